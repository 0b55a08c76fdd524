"""A missing package is told with the command that brings it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from automl_vision import extras
from automl_vision.errors import UsageError
from automl_vision.extras import EXTRAS, installed, require


def test_what_is_here_is_not_told():
    require(["json", "numpy"], "export", "this")


def test_what_is_missing_is_named_and_nothing_else():
    with pytest.raises(UsageError) as caught:
        require(["json", "no_such_a", "no_such_b"], "export", "exporting to ONNX")
    assert str(caught.value) == (
        "exporting to ONNX needs packages that are not installed: no_such_a, no_such_b\n"
        "Fix: pip install 'automl-vision[export]'"
    )


def test_the_table_of_extras_is_that_of_the_package():
    file = Path(__file__).parents[1] / "pyproject.toml"
    declared = tomllib.loads(file.read_text())["project"]["optional-dependencies"]
    assert {name: tuple(re.split(r"[<>=\[]", each)[0] for each in needs) for name, needs in declared.items()} == EXTRAS


def test_an_extra_is_told_with_its_versions_or_with_what_brings_it(monkeypatch):
    assert installed("export") == ", ".join(f"{name} {version(name)}" for name in EXTRAS["export"])
    here = {"mlflow-skinny": "3.1"}
    monkeypatch.setattr(extras, "version_of", lambda name: here.get(name, ""))
    assert installed("track") == "mlflow-skinny 3.1; tensorboard, wandb missing: pip install 'automl-vision[track]'"
    assert installed("ray") == "not installed: pip install 'automl-vision[ray]'"
