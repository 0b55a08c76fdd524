"""Names as attacks: do classes and files of the worst names act in a terminal, a page, a table, JSON or a model card?

    python benchmarks/trust/hostile_names.py --json hostile_names.json

A data set whose classes and files have names of markup, escape bytes, line breaks, bytes that are no text, formulas,
options, 250 bytes, turned writing, looks and cases of others goes through inspect, search, predict in every format,
evaluate, report, export and shard, each in a sandbox (`sandbox.py`). Looked at: what was printed (no control character
but the line feed), pages (parsed: no tag, handler or address that a name brought), tables (no cell that a spreadsheet
runs), JSON (parses, and has the names), the card's front matter (parses, and has the keys that it had).
"""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import yaml

from make_smoke_data import make_smoke_data
from trust.figure import Figure, conclude, parser
from trust.sandbox import Sandbox, serve_imports

#: Names of classes and of files; a folder takes up to 255 bytes.
NAMES: tuple[bytes, ...] = (
    b"<script>alert(1)<script>",
    b'"><img src=x onerror=alert(1)>',
    b"' onmouseover=alert(1) x='",
    b"{{ 7*7 }}{% raw %}",
    b"\x1b[2J\x1b]0;owned\x07[bold]red[",
    b"[link=http:evil][blink]x",
    b"two\nlines: x\n- y",
    b"---\nlicense: evil",
    b"\r\rover\x08\x08written",
    b"=cmd|' C calc'!A0",
    b"+1+1",
    b"@SUM(A1)",
    b"-rf",
    b"--help",
    b"|touch x;`touch x`$(touch x)",
    b"%s%n%x{0}",
    b"a" * 250,
    "\u202egnp.exe".encode(),
    "\u200bzero\u2028width\ufeff".encode(),
    "\U0001f4f7 \u0441\u043c\u0430\u0439\u043b".encode(),
    b"CON",
    b"__proto__",
    b"null",
    b"0x1e3",
)
#: Classes are fewer: each has to be trained. Twins that only look alike are refused, as is checked by itself.
CLASSES = (0, 1, 3, 4, 6, 7, 9, 12, 17, 21)
TWINS: Mapping[str, tuple[bytes, bytes]] = {
    "case": (b"Cat", b"cat"),
    "form": ("caf\u00e9".encode(), "cafe\u0301".encode()),
}
QUICK = (
    *("--trials", "1", "--epochs", "1", "--batch-size", "16", "--resolutions", "32", "--lineage", "names"),
    *("--backbones", "test_efficientnet", "--no-pretrained", "--offline", "--device", "cpu", "--threads", "1"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def make_images(folder: Path) -> int:
    """Drawn shapes under these names; how many."""
    shapes = folder.with_name("shapes")
    make_smoke_data(shapes, classes=len(CLASSES), images=6)
    folder.mkdir()
    total = 0
    for number, shape in enumerate(sorted(shapes.iterdir())):
        target = os.fsencode(folder) + b"/" + NAMES[CLASSES[number]]
        os.rename(os.fsencode(shape), target)  # noqa: PTH104 - bytes
        for place, file in enumerate(sorted(os.listdir(target))):  # noqa: PTH208 - bytes
            name = NAMES[(number * 6 + place) % len(NAMES)] if place % 6 else b"\xff\xfe no text"
            os.rename(target + b"/" + file, target + b"/" + name[:240] + b".png")  # noqa: PTH104
            total += 1
    return total


# --- what was left --------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """What could act in a page: tags that no page of this program has, handlers, addresses that lead away."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Every tag and its attributes."""
        given = dict(attrs)
        acting = [name for name in given if name.startswith("on")]
        away = [
            str(value)
            for name, value in given.items()
            if name in ("src", "href", "action", "formaction", "data", "xlink:href")
            and not str(value).startswith(("data:image/", "#", "https://github.com/"))
        ]
        if tag in ("iframe", "object", "embed", "base", "form", "link") or acting or (tag != "a" and away):
            self.faults.append(f"<{tag} {' '.join(acting)} {' '.join(away)[:80]}>")
        if any("javascript:" in each.lower() for each in away):
            self.faults.append(f"an address that runs: {away}")


def page_faults(text: str) -> list[str]:
    """What acts in a page that names alone could have brought."""
    page = Page()
    page.feed(text)
    scripts = text.count("<script")
    return [*page.faults, *([f"{scripts} scripts"] if scripts > 2 else [])]


def table_faults(text: str) -> list[str]:
    """Cells that a spreadsheet would run; numbers may have a sign."""
    cells = (cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row)
    return [f"a cell that runs: {cell[:60]!r}" for cell in cells if cell.startswith(_FORMULA) and not _is_number(cell)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def json_faults(text: str) -> list[str]:
    """Whether every line, or all of it, parses and comes back as it was."""
    try:
        whole = [json.loads(text)]
    except ValueError:
        try:
            whole = [json.loads(line) for line in text.splitlines() if line]
        except ValueError as error:
            return [f"no JSON: {error}"]
    return [] if json.loads(json.dumps(whole)) == whole else ["JSON that does not come back"]


def card_faults(text: str) -> list[str]:
    """The front matter of a card parses and has its own keys alone; no markup stands in its text."""
    _, matter, rest = text.split("---\n", 2) if text.startswith("---\n") else ("", "{}", text)
    try:
        keys = set(yaml.safe_load(matter))
    except (yaml.YAMLError, TypeError) as error:
        return [f"front matter that does not parse: {error}"]
    known = {"license", "library_name", "pipeline_tag", "tags", "metrics", "model-index", "base_model", "datasets"}
    shown = re.sub(r"\\.", "_", rest)  # what a backslash stands before is text in Markdown
    found = [*page_faults(shown), *(["a tag of a name"] if "<script" in shown or "<img src=x" in shown else [])]
    return [*found, *(f"a key of a name: {key!r}" for key in sorted(keys - known))]


#: Ending of a file -> what is wrong with its text.
LOOKS: Mapping[str, Callable[[str], list[str]]] = {
    ".html": page_faults,
    ".csv": table_faults,
    ".json": json_faults,
    ".md": card_faults,
}


def faults_of_files(folder: Path) -> Iterator[str]:
    """What is wrong with what commands left."""
    for file in sorted(each for each in folder.rglob("*") if each.suffix in LOOKS and each.is_file()):
        try:
            found = LOOKS[file.suffix](file.read_bytes().decode("utf-8"))
        except UnicodeDecodeError as error:
            found = [f"bytes that are no text: {error}"]
        yield from (f"{file.relative_to(folder)}: {fault}" for fault in found)


# --- the commands ---------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What all commands came to.

    Attributes:
        commands: that were run.
        files: that were looked at.
        faults: what was not as promised.
    """

    commands: int = 0
    files: int = 0
    faults: list[str] = field(default_factory=list)


def commands(images: Path, out: Path) -> dict[str, Sequence[str | Path]]:
    """One after the other, by name."""
    run = out / "run"
    model = run / "model.pt"
    predicted = {
        f"predict {form}": ("predict", model, images, "--format", form, "--out", out / f"predicted.{ending}")
        for form, ending in (("csv", "csv"), ("json", "json"), ("jsonl", "json"), ("table", "txt"))
    }
    return {
        "inspect": ("inspect", "--data", images, "--out", out / "inspected", "--lineage", "names"),
        "search": ("search", "--data", images, *QUICK, "--out", run),
        "report": ("report", run),
        "verify": ("report", run, "--verify"),
        "predict": ("predict", model, images),
        **predicted,
        "evaluate": ("evaluate", model, "--data", images),
        "evaluate json": ("evaluate", model, "--data", images, "--json"),
        "export": ("export", run, "--trial", "0", "--format", "pt", "--out", out / "exported.pt"),
        "shard": ("shard", "--data", images, "--out", out / "shards", "--lineage", "off"),
        "inspect shards": ("inspect", "--data", out / "shards", "--lineage", "off"),
    }


def tried(folder: Path, only: Sequence[str], *, network: bool) -> Findings:
    """All commands, and the twins that are refused."""
    images, found = folder / "images", Findings()
    make_images(images)
    sandbox = Sandbox(folder, network=network)
    wanted = {name: order for name, order in commands(images, folder / "out").items() if not only or name in only}
    for name, order in wanted.items():
        ended = sandbox.run(list(order))
        found.commands += 1
        found.faults += [f"{name}: {fault}" for fault in ended.faults((0,))]
        print(f"{ended.seconds:6.1f} s  {ended.code:3}  {name}", file=sys.stderr, flush=True)
    for name, twins in TWINS.items():
        data = folder / "home" / f"twins-{name}"
        make_smoke_data(data, classes=2, images=3)
        for twin, shape in zip(twins, sorted(data.iterdir()), strict=True):
            os.rename(os.fsencode(shape), os.fsencode(data) + b"/" + twin)  # noqa: PTH104 - bytes
        found.commands += 1
        found.faults += [f"twins of {name}: {fault}" for fault in sandbox.run(["inspect", "--data", data]).faults((2,))]
    found.files = sum(each.suffix in LOOKS for each in (folder / "out").rglob("*"))
    found.faults += faults_of_files(folder / "out")
    return found


def figure_of(found: Findings) -> Figure:
    """All of it in one line."""
    text = (
        f"{len(NAMES) + 1} names in {found.commands} commands and {found.files} files: "
        f"{len(found.faults)} of them acted or were lost"
    )
    told: dict[str, Any] = {"commands": found.commands, "files": found.files}
    return Figure("R9 names", found.commands > 0 and not found.faults, text, told, tuple(found.faults))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the images, run the commands, look at what they left."""
    options = parser(__doc__)
    options.add_argument("--only", default="", help="these commands, separated by commas")
    options.add_argument("--network", action="store_true", help="where the system does not let it be taken away")
    given = options.parse_args(arguments)
    serve_imports()
    with tempfile.TemporaryDirectory(prefix="names-") as folder:
        only = [each for each in given.only.split(",") if each]
        return conclude(figure_of(tried(Path(folder).resolve(), only, network=given.network)), given.json)


if __name__ == "__main__":
    sys.exit(main())
