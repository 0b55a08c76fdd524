"""Every banned call is found where somebody plants it, by ruff or by `checks/banned_calls.py`; here there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from banned_calls import EXCEPTIONS, FOLDERS, RULES, check, findings_in

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = ROOT / "pyproject.toml"

#: What is planted -> the rule that finds it.
RUFF: dict[str, tuple[str, str]] = {
    "pickle": ("import pickle", "TID251"),
    "names of pickle": ("from pickle import loads", "TID251"),
    "pickle inside of a function": ("def read():\n    import pickle\n", "TID251"),
    "C's pickle": ("import _pickle", "TID251"),
    "dill": ("import dill", "TID251"),
    "cloudpickle": ("import cloudpickle", "TID251"),
    "marshal": ("import marshal", "TID251"),
    "shelve": ("import shelve", "TID251"),
    "joblib": ("import joblib\n\njoblib.load('a')", "TID251"),
    "sklearn's joblib": ("from joblib import load", "TID251"),
    "pickles of pandas": ("import pandas as pd\n\npd.read_pickle('a')", "TID251"),
    "torch.load": ("import torch\n\ntorch.load('a', weights_only=True)", "TID251"),
    "torch.load by name": ("from torch import load\n\nload('a', weights_only=True)", "TID251"),
    "TorchScript": ("import torch\n\ntorch.jit.load('a')", "TID251"),
    "exported programs": ("import torch\n\ntorch.export.load('a')", "TID251"),
    "torch.hub": ("import torch\n\ntorch.hub.load('a', 'b')", "TID251"),
    "more that torch may make": ("import torch\n\ntorch.serialization.add_safe_globals([print])", "TID251"),
    "yaml": ("import yaml\n\nyaml.load('a', yaml.SafeLoader)", "TID251"),
    "yaml by name": ("from yaml import unsafe_load", "TID251"),
    "eval": ("eval('1')", "S307"),
    "exec": ("exec('1')", "S102"),
    "a shell": ("import subprocess\n\nsubprocess.run('ls', shell=True, check=True)", "S602"),
    "os.system": ("import os\n\nos.system('ls')", "TID251"),
    "os.popen": ("import os\n\nos.popen('ls')", "TID251"),
    "getoutput": ("from subprocess import getoutput", "TID251"),
    "unpacking": ("import shutil\n\nshutil.unpack_archive('a')", "TID251"),
    "tar": ("import tarfile\n\ntarfile.open('a').extractall('b')", "S202"),
    "a fixed name in /tmp": ("NAME = '/tmp/automl'", "S108"),
    "mktemp": ("import tempfile\n\ntempfile.mktemp()", "TID251"),
    "Optuna's CMA-ES": ("import optuna\n\noptuna.samplers.CmaEsSampler()", "TID251"),
    "Optuna's CMA-ES by name": ("from optuna.samplers import CmaEsSampler", "TID251"),
    "Ray's Tuner": ("from ray import tune", "TID251"),
    "webdataset": ("import webdataset", "TID251"),
    "looking away from everything": ("import os  # noqa", "PGH004"),
    "looking away in a whole file": ("# ruff: noqa\nimport os", "PGH004"),
}
OURS: dict[str, tuple[str, str]] = {
    "weights that are more": ("import torch\ntorch.load('a', weights_only=False)", "weights_only"),
    "weights that may be more": ("import torch\ntorch.load('a')", "weights_only"),
    "weights by a variable": ("import torch\ntorch.load('a', weights_only=safe)", "weights_only"),
    "weights of another loader": ("load_file('a', weights_only=False)", "weights_only"),
    "arrays of objects": ("import numpy as np\nnp.load('a', allow_pickle=True)", "allow_pickle"),
    "arrays as numpy likes": ("import numpy as np\nnp.load('a')", "allow_pickle"),
    "arrays by name": ("from numpy import load as read\nread('a')", "allow_pickle"),
    "arrays by keywords": ("import numpy as np\nnp.load('a', **options)", "allow_pickle"),
    "arrays that are written": ("import numpy as np\nnp.save('a', values)", "allow_pickle"),
    "any format": ("from PIL import Image\nImage.open('a')", "formats"),
    "any format by module": ("import PIL.Image\nPIL.Image.open('a')", "formats"),
    "half a picture": ("from PIL import ImageFile\nImageFile.LOAD_TRUNCATED_IMAGES = True", "LOAD_TRUNCATED_IMAGES"),
    "half a picture by name": ("from PIL.ImageFile import LOAD_TRUNCATED_IMAGES", "LOAD_TRUNCATED_IMAGES"),
    "programs of a data set": (
        "import datasets\ndatasets.load_dataset('a', trust_remote_code=True)",
        "trust_remote_code",
    ),
    "zip": ("import zipfile\nzipfile.ZipFile('a').extractall('b')", "extract"),
    "one of a tar": ("import tarfile\ntarfile.open('a').extract('b')", "extract"),
    "any method's shell": ("runner.run('ls', shell=True)", "shell"),
    "code of text": ("compile('1', 'a', 'eval')", "compile"),
    "a module by text": ("__import__('os')", "compile"),
    "a rule of ruff switched off": ("import pickle  # noqa: TID251 - so what", "TID251"),
    "two rules of ruff switched off": ("import pickle  # noqa: F401, S403", "S403"),
    "bandit switched off": ("import pickle  # nosec B403 # so what", "S403"),
    "both switched off": ("TOKEN = 'a'  # noqa: E501 - long # nosec B105", "S105"),
}
HARMLESS = """
import re
import numpy as np
import torch
from PIL import Image
pattern = re.compile("a")
Image.open("a", formats=("PNG",))
np.load("a", allow_pickle=False)
step = torch.compile(step)
net.eval()
frame.text.str.extract("(a)")
assert pattern  # noqa: S101 - for the type checker # nosec B101
subprocess.run(["true"], check=True)  # noqa: S603 - a list of our own
"""


@pytest.fixture(scope="module")
def said_by_ruff(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each planted file breaks, by our own configuration."""
    folder = tmp_path_factory.mktemp("planted")
    names = {f"planted_{number}.py": name for number, name in enumerate(RUFF)}
    for file, name in names.items():
        (folder / file).write_text(RUFF[name][0] + "\n", encoding="utf-8")
    line = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(PYPROJECT), "--output-format", "json"]
    ended = subprocess.run([*line, str(folder)], capture_output=True, text=True, check=False)
    broken: dict[str, set[str]] = {name: set() for name in RUFF}
    for finding in json.loads(ended.stdout):
        broken[names[Path(finding["filename"]).name]].add(finding["code"])
    return broken


@pytest.mark.parametrize("name", RUFF)
def test_ruff_finds_what_is_banned_in_any_form(said_by_ruff: dict[str, set[str]], name: str) -> None:
    assert RUFF[name][1] in said_by_ruff[name]


@pytest.mark.parametrize(("source", "rule"), OURS.values(), ids=OURS)
def test_our_own_check_finds_the_rest(source: str, rule: str) -> None:
    assert rule in {each.rule for each in findings_in(source, "planted.py")}


def test_every_rule_of_ours_was_planted() -> None:
    assert set(RULES) <= {rule for _, rule in OURS.values()}


def test_what_is_harmless_is_let_through() -> None:
    assert list(findings_in(HARMLESS, "harmless.py")) == []


def test_a_planted_file_of_the_package_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "src" / "automl_vision" / "planted.py"
    file.parent.mkdir(parents=True)
    file.write_text("import numpy as np\n\nnp.load('a')\n", encoding="utf-8")
    (wrong,) = check(tmp_path, {})
    assert wrong.startswith("src/automl_vision/planted.py:3: allow_pickle: ")
    assert check(tmp_path, {("src/automl_vision/planted.py", "allow_pickle"): "for a test"}) == []


def test_an_exception_that_nothing_needs_is_told(tmp_path: Path) -> None:
    (wrong,) = check(tmp_path, {("src/gone.py", "shell"): "it was there once"})
    assert wrong == "src/gone.py: shell: an exception that nothing needs"


def test_nothing_is_banned_here_but_the_exceptions() -> None:
    assert check(ROOT, EXCEPTIONS) == []


def test_all_code_that_is_kept_is_looked_at() -> None:
    """A folder of programs that is new has to be added."""
    tracked = {file.parent.relative_to(ROOT).parts[0] for each in ROOT.iterdir() for file in _programs(each)}
    assert tracked <= {*FOLDERS, "tests"}


def _programs(folder: Path) -> list[Path]:
    return list(folder.rglob("*.py")) if folder.is_dir() and not folder.name.startswith(".") else []
