"""Whether any installed package has a known hole, as pip-audit hears from an advisory service.

    uv run python checks/audit_packages.py

Ends with 1 where there is a finding. Where no service answers, nothing was checked: that is said, and ends with 0,
since a machine without a way out is no reason to fail. pip-audit itself calls a package that its service does not know
"skipped", and the whole "no known vulnerabilities"; here it is counted as not checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

#: Asked one after the other, until one answers.
SERVICES = ("pypi", "osv")
#: Advisory -> why it does not concern this package.
EXPLAINED: dict[str, str] = {}
OWN = "automl-vision"
_SECONDS = 900
_REQUEST_SECONDS = 15


@dataclass(frozen=True)
class Audit:
    """What a service said.

    Attributes:
        checked: packages that it knows.
        unknown: packages that it was asked about in vain.
        findings: one line per advisory that is not explained.
    """

    checked: int
    unknown: tuple[str, ...]
    findings: tuple[str, ...]


def installed() -> list[str]:
    """Every package of this environment but our own, as `name==version`, without what a build adds to a version."""
    versions = {each.name.lower(): each.version.partition("+")[0] for each in distributions()}
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != OWN]


def audit_of(answer: Mapping[str, Any], explained: Mapping[str, str]) -> Audit:
    """What pip-audit's JSON says.

    Args:
        answer: with `dependencies`: name, and version and vulns, or skip_reason.
        explained: advisory -> why it does not matter here.
    """
    known = [each for each in answer["dependencies"] if "skip_reason" not in each]
    findings = [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for each in known
        for hole in each["vulns"]
        if not {hole["id"], *hole.get("aliases", [])} & set(explained)
    ]
    unknown = [each["name"] for each in answer["dependencies"] if "skip_reason" in each]
    return Audit(len(known), tuple(unknown), tuple(findings))


def ask(service: str, requirements: Sequence[str]) -> Mapping[str, Any] | None:
    """pip-audit's JSON; None where the service was not reached."""
    with tempfile.TemporaryDirectory() as folder:
        listed, said = Path(folder) / "requirements.txt", Path(folder) / "said.json"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        line = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        line += ["--vulnerability-service", service, "--format", "json", "--output", str(said)]
        line += ["--progress-spinner", "off", "--timeout", str(_REQUEST_SECONDS)]
        try:
            subprocess.run(line, capture_output=True, check=False, timeout=_SECONDS)
            answer: Mapping[str, Any] = json.loads(said.read_text(encoding="utf-8"))
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None  # it ended before it had an answer
    return answer


def conclusion(answers: Mapping[str, Mapping[str, Any] | None], explained: Mapping[str, str]) -> tuple[int, list[str]]:
    """The exit code, and what to print.

    Args:
        answers: service -> what it said, in the order of asking.
        explained: advisory -> why it does not matter here.
    """
    audits = {service: audit_of(answer, explained) for service, answer in answers.items() if answer is not None}
    asked = next(((service, audit) for service, audit in audits.items() if audit.checked), None)
    if asked is None:
        return 0, [f"packages: NOT CHECKED, no advisory service answered ({', '.join(answers)})"]
    service, audit = asked
    unknown = f", {len(audit.unknown)} unknown to it and not checked" if audit.unknown else ""
    told = f"packages: {len(audit.findings)} findings in {audit.checked} packages, by {service}{unknown}"
    return int(bool(audit.findings)), [*audit.findings, told]


def main() -> int:
    """Ask the services in turn, and print what they say."""
    requirements = installed()
    answers: dict[str, Mapping[str, Any] | None] = {}
    for service in SERVICES:
        answers[service] = answer = ask(service, requirements)
        if answer is not None and audit_of(answer, EXPLAINED).checked:
            break
    code, lines = conclusion(answers, EXPLAINED)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
