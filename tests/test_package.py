"""The public names are what the README says, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest

ORDERS = [
    "from automl_vision import load, search",
    "from automl_vision import search, load",
    "import automl_vision.search.trial; from automl_vision import load, search",
    "from automl_vision.pipeline import Run; from automl_vision import load, search",
    "import automl_vision; load = automl_vision.load; search = automl_vision.search",
]
#: Each order begins with the package as it is after a fresh import; torch and timm are imported once.
SCRIPT = """
import sys
for order in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "automl_vision"]:
        del sys.modules[name]
    names = {}
    exec(order, names)
    print(type(names["load"]).__name__, type(names["search"]).__name__)
"""


def test_search_is_the_function_in_every_order_of_imports():
    ended = subprocess.run([sys.executable, "-c", SCRIPT, *ORDERS], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["function function"] * len(ORDERS)


def test_the_subpackage_is_still_found():
    from automl_vision.search import trial
    from automl_vision.search.trial import Trial

    assert trial.Trial is Trial


def test_an_unknown_name_is_an_attribute_error():
    import automl_vision

    with pytest.raises(AttributeError, match="predict"):
        _ = automl_vision.predict
