"""Configurations and pages are part of the product: they load, are complete and are up to date."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from automl_vision.config import Settings, list_settings, load_settings
from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.errors import IMAGE_FAULTS
from make_settings import PAGE, settings_page

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").rglob("*.md")])


def load(name: str) -> Settings:
    return load_settings(ROOT / "configs" / name)


def test_the_configurations_are_here() -> None:
    of_examples = {file.parent.name for file in (ROOT / "examples").glob("*/run.sh")}
    assert {file.stem for file in CONFIGS} == {"quick", "smoke", "standard", "thorough"} | of_examples


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_configuration_loads_and_opens_with_its_command(file: Path) -> None:
    load_settings(file)
    opening = file.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    assert re.search(rf"^#     automl-vision search --data \S+ --config configs/{file.name}$", opening, re.M)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_suggested_values_load_too(file: Path, tmp_path: Path) -> None:
    suggested = re.sub(r"^# (\w+ = )", r"\1", file.read_text(), flags=re.M)
    assert len(tomllib.loads(suggested)) >= len(tomllib.loads(file.read_text()))
    (tmp_path / file.name).write_text(suggested)
    load_settings(tmp_path / file.name)


def test_budgets_grow_from_quick_to_thorough() -> None:
    budgets = [load(name).budget_seconds for name in ("quick.toml", "standard.toml", "thorough.toml")]
    assert budgets == [120, 600, 3600]


def test_the_smoke_run_needs_no_network_and_little_work() -> None:
    smoke = load("smoke.toml")
    assert smoke.search.offline
    assert smoke.search.backbones == ["efficientnet_lite0"]
    assert smoke.search.trials == 2
    assert max(smoke.search.resolutions) <= 64
    assert smoke.training.epochs == 1


def test_the_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run: python docs/make_settings.py"


def test_every_setting_is_on_the_settings_page() -> None:
    sections = dict(re.findall(r"^## \[(\w+)\]\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
    for each in list_settings():
        table, _, key = each.name.partition(".")
        assert f"| `{key}` |" in sections[table]


def test_every_setting_named_in_a_page_exists() -> None:
    known = {each.name for each in list_settings()}
    tables = {name.partition(".")[0] for name in known}
    for page in PAGES:
        for table, key in re.findall(r"`(\w+)\.(\w+)`", page.read_text(encoding="utf-8")):
            assert table not in tables or f"{table}.{key}" in known or key == "csv", (page.name, table, key)


def test_every_image_fault_is_explained() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    assert [fault for fault in IMAGE_FAULTS if f"| `{fault}` |" not in page] == []
    assert "fault" in FACT_COLUMNS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "SECURITY.md", ROOT / "docs" / "trust.md"], ids=lambda file: file.name)
def test_every_test_that_a_promise_names_is_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
    assert len(named) > 15
    gone = [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert gone == []
