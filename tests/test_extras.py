"""A missing package is told with the command that brings it."""

import pytest

from automl_vision.errors import UsageError
from automl_vision.extras import require


def test_what_is_here_is_not_told():
    require(["json", "numpy"], "export", "this")


def test_what_is_missing_is_named_and_nothing_else():
    with pytest.raises(UsageError) as caught:
        require(["json", "no_such_a", "no_such_b"], "export", "exporting to ONNX")
    assert str(caught.value) == (
        "exporting to ONNX needs packages that are not installed: no_such_a, no_such_b\n"
        "Fix: pip install 'automl-vision[export]'"
    )
