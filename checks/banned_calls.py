"""Calls that would let a file run code, or that fail in silence: nothing here makes them but for `EXCEPTIONS`.

    uv run python checks/banned_calls.py

What is banned whatever it is called with stands in pyproject.toml, where ruff reads it: `banned-api` (TID251) and the
rules S; bandit has more. Here stands what is fine with one argument and not without it, which neither can tell; and
every place where one of them was told to look away has to be in the table of exceptions, with its reason, too.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Folders whose code is looked at. Tests make hostile files, and call what is banned for it.
FOLDERS = ("src", "checks", "docs", "examples", "fitting", "benchmarks")

#: File and rule -> why it is right there. An exception that nothing needs any more is a finding as well.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("src/automl_vision/tensor_file.py", "TID251"): (
        "torch.load: the one door, with weights_only=True behind checks of the file's outside and of its program"
    ),
    ("src/automl_vision/exporting/to_torch_export.py", "TID251"): (
        "torch.export.load: of a file that this process wrote a moment ago in a folder of its own, to compare it"
    ),
    ("src/automl_vision/exporting/to_torchscript.py", "TID251"): (
        "torch.jit.load: of bytes that this process wrote a moment ago in a folder of its own, to compare them"
    ),
    ("src/automl_vision/tensor_program.py", "S403"): "pickletools tells the opcodes of a pickle, and obeys none",
    ("src/automl_vision/models/weights.py", "S615"): (
        "hf_hub_download: at first use the newest weights of a backbone, which are tensors alone; their revision and "
        "digest are kept, and the next use wants the same"
    ),
    ("src/automl_vision/models/weights.py", "S310"): (
        "urlopen: asks whether the hub is there; http and https are all that the caller lets through"
    ),
    ("src/automl_vision/data/hugging_face.py", "S310"): (
        "urlopen: asks whether the hub is there; http and https are all that the lines above let through"
    ),
    ("src/automl_vision/data/content_store.py", "S608"): (
        "SQL with the name of a table in it: a prefix and hex digits, both of this package; values go as parameters"
    ),
    ("src/automl_vision/exporting/hub.py", "S105"): "the name of the variable that has the token, not a token",
    ("src/automl_vision/report/html.py", "S704"): (
        "drawings that matplotlib made in this call, with the text in them escaped; none is read from a file"
    ),
    ("src/automl_vision/report/script.py", "S704"): "the page's one script, a file of this package",
    ("benchmarks/trust/hostile_files.py", "TID251"): (
        "pickle and os.system: it makes files that would run a command, for readers that must not; it reads none"
    ),
    ("benchmarks/run_rival.py", "TID251"): "torch.load with weights_only=True, of a model that the run before it made",
}


@dataclass(frozen=True)
class Call:
    """A call as it is written.

    Attributes:
        name: dotted, with imports followed ("numpy.load" for `np.load`); of a method of some value, ".method".
        options: keyword -> the value if it is a literal, else None.
        opens_archives: whether the file imports what reads tar or zip archives.
    """

    name: str
    options: Mapping[str, object]
    opens_archives: bool = False


@dataclass(frozen=True)
class Rule:
    """Something that calls must not do.

    Attributes:
        why: what would happen.
        broken_by: whether a call does it.
    """

    why: str
    broken_by: Callable[[Call], bool]


def _other_than(call: Call, option: str, wanted: bool) -> bool:
    return option in call.options and call.options[option] is not wanted


#: Name -> rule. An option that is left out, or whose value is no literal, does not count as given.
RULES: dict[str, Rule] = {
    "weights_only": Rule(
        "torch.load without weights_only=True runs what the file says",
        lambda call: (
            _other_than(call, "weights_only", True)
            or (call.name == "torch.load" and call.options.get("weights_only") is not True)
        ),
    ),
    "allow_pickle": Rule(
        "arrays of objects are pickles: say allow_pickle=False",
        lambda call: (
            _other_than(call, "allow_pickle", False)
            or (call.name in {"numpy.load", "numpy.save"} and call.options.get("allow_pickle") is not False)
        ),
    ),
    "formats": Rule(
        "Image.open without formats= opens forty formats, EPS with Ghostscript among them",
        lambda call: call.name == "PIL.Image.open" and "formats" not in call.options,
    ),
    "trust_remote_code": Rule(
        "it runs programs of a data set or a model",
        lambda call: _other_than(call, "trust_remote_code", False),
    ),
    "extract": Rule(
        "names in an archive may lead out of the folder: read members, and write them under names of your own",
        lambda call: (
            call.name.endswith(".extractall") or (call.opens_archives and call.name.rpartition(".")[2] == "extract")
        ),
    ),
    "shell": Rule("a shell reads more into a text than was meant", lambda call: _other_than(call, "shell", False)),
    "compile": Rule("it makes code of text", lambda call: call.name in {"compile", "__import__"}),
}
#: A name that nothing may so much as mention, and why; it is set, not called.
BANNED_ATTRIBUTE = "LOAD_TRUNCATED_IMAGES"
_BECAUSE = "half a picture would pass for a whole one, with a grey end"
_ARCHIVES = {"tarfile", "zipfile"}
#: Rules whose exceptions belong into the table: all of ruff's and bandit's on security (S310 and B310 are the same) but
#: two: 101 is about `assert`, and 603 finds every program that is started, by a list as it should be (602 has shells).
_GUARDED = re.compile(r"TID251|[SB](?!101\b|603\b)\d{3}")
_LOOKS_AWAY = re.compile(r"#\s*(?:noqa:|nosec:?)\s*([A-Z0-9, ]+)")


@dataclass(frozen=True)
class Finding:
    """A banned call.

    Attributes:
        file: relative to the repository, with slashes.
        line: 1-based.
        rule: a key of `RULES`, `BANNED_ATTRIBUTE`, or a rule of ruff that is switched off there.
        why: what is wrong with it.
    """

    file: str
    line: int
    rule: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.why}"


def findings_in(source: str, file: str) -> Iterator[Finding]:
    """Every banned call in the text of a file, exceptions among them."""
    tree = ast.parse(source, file)
    names = _imported(tree)
    opens_archives = any(whole.partition(".")[0] in _ARCHIVES for whole in names.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = Call(_dotted(node.func, names), _options(node), opens_archives)
            broken = (name for name, rule in RULES.items() if rule.broken_by(call))
            yield from (Finding(file, node.lineno, name, RULES[name].why) for name in broken)
        if BANNED_ATTRIBUTE in (getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "name", "")):
            yield Finding(file, getattr(node, "lineno", 1), BANNED_ATTRIBUTE, _BECAUSE)
    yield from _switched_off(source, file)


def _switched_off(source: str, file: str) -> Iterator[Finding]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        told = _LOOKS_AWAY.findall(token.string) if token.type == tokenize.COMMENT else []
        rules = {rule.replace("B", "S") for each in told for rule in _GUARDED.findall(each)}
        for rule in sorted(rules):
            yield Finding(file, token.start[0], rule, "ruff or bandit was told to look away here")


def _imported(tree: ast.AST) -> dict[str, str]:
    """What a file calls something -> its dotted name."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name.partition(".")[0]: _bound(each) for each in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def _bound(imported: ast.alias) -> str:
    return imported.name if imported.asname else imported.name.partition(".")[0]


def _dotted(called: ast.expr, names: Mapping[str, str]) -> str:
    if isinstance(called, ast.Name):
        return names.get(called.id, called.id)
    if isinstance(called, ast.Attribute):
        return f"{_dotted(called.value, names)}.{called.attr}"
    return ""


def _options(node: ast.Call) -> dict[str, object]:
    return {
        each.arg: each.value.value if isinstance(each.value, ast.Constant) else None
        for each in node.keywords
        if each.arg is not None
    }


def check(root: Path, exceptions: Mapping[tuple[str, str], str], folders: Sequence[str] = FOLDERS) -> list[str]:
    """What is wrong with the code under `root`, one line each: banned calls, and exceptions that nothing needs.

    Args:
        root: of the repository.
        exceptions: file and rule -> why.
        folders: of `root`, that are looked at.
    """
    files = sorted(file for folder in folders for file in (root / folder).rglob("*.py"))
    found = [
        each
        for file in files
        for each in findings_in(file.read_text(encoding="utf-8"), file.relative_to(root).as_posix())
    ]
    needed = {(each.file, each.rule) for each in found}
    unneeded = [
        f"{file}: {rule}: an exception that nothing needs" for file, rule in exceptions if (file, rule) not in needed
    ]
    return [str(each) for each in found if (each.file, each.rule) not in exceptions] + unneeded


def main() -> int:
    """Print what is wrong; 1 where something is."""
    wrong = check(ROOT, EXCEPTIONS)
    for line in wrong:
        print(line)
    print(f"banned calls: {len(wrong)} findings, {len(EXCEPTIONS)} exceptions with their reasons")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
