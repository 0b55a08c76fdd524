"""Errors: what, the value, the fix, and an exit code that scripts rely on."""

from __future__ import annotations

import pytest

from automl_vision import errors
from automl_vision.errors import IMAGE_FAULTS, AutomlVisionError, ImageReadError

EXIT_CODES = {
    "AutomlVisionError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "DataError": 2,
    "ModelFileError": 2,
    "FileTooLarge": 2,
    "ShortOfMemory": 2,
    "WeightsError": 2,
    "ResolutionError": 2,
    "RunError": 2,
    "RunInUse": 75,
    "ProcessLost": 1,
    "PartialFailure": 3,
    "LeakFound": 4,
    "BudgetExhausted": 5,
    "Interrupted": 130,
    "TakenAway": 75,
}


def tree(root: type[AutomlVisionError]) -> list[type[AutomlVisionError]]:
    return [root, *(each for child in root.__subclasses__() for each in tree(child))]


def test_every_error_has_the_documented_exit_code() -> None:
    inside = [each for each in tree(AutomlVisionError) if each.__module__ == errors.__name__]
    assert {each.__name__: each.exit_code for each in inside} == EXIT_CODES


def test_the_tree_in_the_module_docstring_is_complete() -> None:
    for name, code in EXIT_CODES.items():
        assert any(name in line and f" {code} " in line for line in (errors.__doc__ or "").splitlines()), name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"value": "x.jpg", "fix": "look again"}, "cannot read: x.jpg\nFix: look again"),
        ({"value": "x.jpg"}, "cannot read: x.jpg"),
        ({"fix": "look again"}, "cannot read\nFix: look again"),
        ({"value": 0}, "cannot read: 0"),
        ({"value": "\n  - a: \n  - b"}, "cannot read:\n  - a: \n  - b"),
    ],
)
def test_an_error_shows_what_the_value_and_the_fix(arguments: dict[str, object], text: str) -> None:
    assert str(AutomlVisionError("cannot read", **arguments)) == text


def test_image_faults_have_a_fix_and_no_other_kind_is_accepted() -> None:
    assert all(IMAGE_FAULTS.values())
    assert str(ImageReadError("empty", "0 bytes")) == "empty: 0 bytes"
    with pytest.raises(ValueError, match="blurry"):
        ImageReadError("blurry", "")


def test_a_bad_image_cannot_pass_for_an_error_of_the_command() -> None:
    assert not issubclass(ImageReadError, AutomlVisionError)
