"""What is made of pip-audit's answers: a finding fails, silence does not, and is not called a pass."""

from __future__ import annotations

from typing import Any

import pytest

import audit_packages

SOUND = {"name": "jinja2", "version": "3.1.6", "vulns": []}
HOLE = {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": ["CVE-2016-10745"], "description": "..."}
HOLED = {"name": "jinja2", "version": "2.4.1", "vulns": [HOLE]}
#: What pip-audit 2.10 says of a package that its service answers 404 for, beside an exit code of 0.
UNKNOWN = {"name": "six", "skip_reason": "Dependency not found on PyPI and could not be audited: six (1.16.0)"}


def answer(*dependencies: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(dependencies), "fixes": []}


def test_no_finding_is_a_pass() -> None:
    code, lines = audit_packages.conclusion({"pypi": answer(SOUND)}, {})
    assert (code, lines) == (0, ["packages: 0 findings in 1 packages, by pypi"])


def test_a_finding_fails_and_says_what_mends_it() -> None:
    code, lines = audit_packages.conclusion({"pypi": answer(HOLED, SOUND, UNKNOWN)}, {})
    assert code == 1
    assert lines == [
        "jinja2 2.4.1: PYSEC-2019-217, mended in 2.10.1",
        "packages: 1 findings in 2 packages, by pypi, 1 unknown to it and not checked",
    ]


@pytest.mark.parametrize("name", ["PYSEC-2019-217", "CVE-2016-10745"])
def test_a_finding_that_is_explained_passes_under_any_of_its_names(name: str) -> None:
    assert audit_packages.conclusion({"pypi": answer(HOLED)}, {name: "no template of ours is foreign"})[0] == 0


@pytest.mark.parametrize("pypi", [None, answer(UNKNOWN), answer()], ids=["nothing", "unknown only", "empty"])
def test_where_no_service_answers_nothing_was_checked_and_that_is_said(pypi: dict[str, Any] | None) -> None:
    code, (line,) = audit_packages.conclusion({"pypi": pypi, "osv": None}, {})
    assert code == 0
    assert "NOT CHECKED" in line


def test_the_second_service_is_asked_where_the_first_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"pypi": answer(UNKNOWN), "osv": answer(HOLED)}
    monkeypatch.setattr(audit_packages, "ask", lambda service, _: said[service])
    assert audit_packages.main() == 1


def test_every_installed_package_is_asked_about_and_not_our_own() -> None:
    listed = audit_packages.installed()
    names = [each.partition("==")[0] for each in listed]
    assert {"torch", "pillow", "jinja2", "numpy"} <= set(names)
    assert audit_packages.OWN not in names
    assert not any("+" in each for each in listed)
