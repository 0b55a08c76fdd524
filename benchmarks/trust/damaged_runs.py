"""Every file of a run damaged in turn, in several ways: is it said, is nothing begun anew in silence, and does it heal?

    python benchmarks/trust/damaged_runs.py                                    # all files, all ways, all commands
    python benchmarks/trust/damaged_runs.py --files 4 --ways cut --commands report,predict    # a smoke test

Two runs: one that ended, and one whose process was killed in the middle of a fine-tune. In a copy of each, one file at
a time is cut in half, emptied, zeroed, or has a tenth of its bytes changed; then `search --resume`, `report`, `report
--verify`, `predict`, `evaluate` and `export` are called on it. Each has to do its work, or to say in one line what is
wrong and in one what to do, with exit code 2; what a command lives by it may not do without. A resumed run keeps every
other trial as it was, and names a file that it goes on without. Then the file is put back: what was refused works.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trust.figure import Figure, conclude, parser
from trust.run_state import Record, clear_faults, lost_and_repeated, records
from trust.sessions import PATIENCE, Session
from trust.tiny_search import TinySearch, is_complete, looks, tiny_search

REFUSED = 2
#: A probe and a fine-tune; the killed run has trained a part of the latter.
OPTIONS = (
    "--trials 1 --epochs 4 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --threads 1 --no-history"
)
#: Not of a run: who holds its lock, which is nobody here.
_PASSED_OVER = (".lock", ".lock.owner")
#: Share of the bytes that `garble` changes.
_GARBLED = 0.1


def cut(content: bytes, _: random.Random) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def empty(_: bytes, __: random.Random) -> bytes:
    """Nothing."""
    return b""


def zero(content: bytes, _: random.Random) -> bytes:
    """As many zeros, as a file system may leave after a crash."""
    return bytes(len(content))


def garble(content: bytes, chance: random.Random) -> bytes:
    """A tenth of the bytes changed, in places that are drawn, one of them at least."""
    changed = bytearray(content)
    for _ in range(max(1, min(int(_GARBLED * len(content)), 100_000)) if content else 0):
        changed[chance.randrange(len(content))] ^= chance.randrange(1, 256)
    return bytes(changed)


#: How files are damaged.
WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {"cut": cut, "empty": empty, "zero": zero, "garble": garble}


@dataclass(frozen=True)
class Scene:
    """What commands are called with.

    Attributes:
        run: the folder.
        image: one that can be predicted.
        data: labelled images.
        out: where something may be written.
    """

    run: Path
    image: Path
    data: Path
    out: Path


#: Name -> arguments of the command line.
COMMANDS: dict[str, Callable[[Scene], list[str]]] = {
    "report": lambda scene: ["report", str(scene.run)],
    "verify": lambda scene: ["report", str(scene.run), "--verify"],
    "predict": lambda scene: ["predict", str(scene.run / "model.pt"), str(scene.image), "--format", "json"],
    "evaluate": lambda scene: ["evaluate", str(scene.run / "model.pt"), "--data", str(scene.data), "--quiet"],
    "export": lambda scene: [
        *("export", str(scene.run / "model.pt"), "--format", "torchscript", "--out", str(scene.out / "model.ts")),
        "--force",
    ],
    "resume": lambda scene: ["search", "--resume", str(scene.run), "--quiet"],
}
#: What a command lives by: without it, it may not end as if nothing was.
LIVES_BY = {
    "report": {"report.json"},
    "verify": {"report.json", "predictions_test.csv"},
    "predict": {"model.pt"},
    "evaluate": {"model.pt"},
    "export": {"model.pt"},
    "resume": {"config.toml", "run.json", "spent.json"},
}


@dataclass
class Tally:
    """What was found.

    Attributes:
        cases: one file of one run damaged in one way.
        calls: of commands.
        refused: of them.
        codes: exit code -> how often.
        healed: calls that were refused, and work with the file back in its place.
        faults: what was not as promised.
    """

    cases: int = 0
    calls: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    healed: int = 0
    faults: list[str] = field(default_factory=list)


def make_runs(search: TinySearch, scratch: Path) -> dict[str, Path]:
    """One that ended, and one that was killed.

    Raises:
        RuntimeError: a search does not do what it has to.
    """
    finished, killed = scratch / "finished", scratch / "killed"
    if search.begin(finished).wait(PATIENCE) != 0:
        raise RuntimeError(f"the search failed: {finished.with_suffix('.log').read_text()[-500:]}")
    session = search.begin(killed)
    if not session.runs_until(lambda _: _is_in_the_middle(killed)):
        raise RuntimeError(f"the search ended before it could be killed: {session.said[-500:]}")
    session.kill()
    for leftover in killed.rglob("*.tmp"):
        leftover.unlink()
    return {"finished": finished, "killed": killed}


def _is_in_the_middle(run: Path) -> bool:
    """Whether a fine-tune has a checkpoint, and is not at its end."""
    return any(run.glob("trials/*/checkpoint.pt")) and any(
        0 < len(each["epochs"]) < each["recipe"]["epochs"] for each in records(run).values()
    )


def files_of(run: Path) -> list[str]:
    """The files of a run, by their names below it."""
    every = (each.relative_to(run).as_posix() for each in run.rglob("*") if each.is_file())
    return sorted(each for each in every if each not in _PASSED_OVER)


def one(
    search: TinySearch, kept: Path, name: str, way: str, commands: Sequence[str], scene: Scene, seed: int, tally: Tally
) -> None:
    """One file of a run damaged in one way, and every command on it."""
    tally.cases += 1
    original = (kept / name).read_bytes()
    damaged = WAYS[way](original, random.Random(f"{seed} {name} {way}"))
    for command in commands:
        if damaged == original:
            continue
        _copy(kept, scene.run)
        _put(scene.run / name, damaged)
        about = f"{kept.name}/{name} {way}, {command}"
        called = search.asked(scene.run, *COMMANDS[command](scene))
        tally.calls += 1
        tally.codes[str(called.code)] += 1
        tally.faults += [f"{about}: {each}" for each in clear_faults(called.code, called.said, 0, REFUSED)]
        if called.code == 0:
            tally.faults += [f"{about}: {each}" for each in _unsaid(command, name, kept, scene.run, called)]
            continue
        tally.refused += 1
        _heal(search, scene, name, original, command, about, tally)


def _works(search: TinySearch, kept: Path, command: str, scene: Scene) -> bool:
    """Whether a command works on a run to which nothing was done: a killed one has no report yet."""
    _copy(kept, scene.run)
    return search.asked(scene.run, *COMMANDS[command](scene)).code == 0


def _copy(kept: Path, run: Path) -> None:
    """A copy whose large files are links: no command writes into a file that is there."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(kept, run, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    if source.endswith(".pt"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _put(file: Path, content: bytes) -> None:
    """As a file of its own, and not as one that the copy shares with what was copied."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def _unsaid(command: str, name: str, kept: Path, run: Path, called: Session) -> Iterator[str]:
    """What is wrong with a command that did its work although a file is damaged."""
    if command == "resume" and is_complete(kept):  # there is nothing to be done, and nothing may be
        yield from _changed(kept, run, name)
        return
    if name in LIVES_BY[command]:
        yield "it did its work without what it lives by"
    if command != "resume":
        return
    before, after = records(kept), records(run)
    mine = {number for number in before if name.startswith(f"trials/{number:06d}")}
    others = {number: record for number, record in before.items() if number not in mine}
    lost, repeated = lost_and_repeated(others, after)
    if lost or repeated:
        yield f"{lost} other trials lost, {repeated} other epochs trained again"
    own: dict[int, Record] = {number: before[number] for number in mine}
    if any(lost_and_repeated(own, after)) and not _is_named(name, run, called):
        yield "a trial began anew, and nobody was told"
    if name == "looks.json" and looks(run) <= looks(kept):
        yield "an earlier look at the test set was forgotten"
    if not is_complete(run):
        yield "it did not come to its end"


def _changed(kept: Path, run: Path, damaged: str) -> Iterator[str]:
    """Files that are others than before, beside the damaged one: a run that is complete is left as it is."""
    for name in files_of(kept):
        if name != damaged and (not (run / name).is_file() or (run / name).read_bytes() != (kept / name).read_bytes()):
            yield f"{name} is another than before"


def _is_named(name: str, run: Path, called: Session) -> bool:
    log = run / "events.log"
    return name in called.said or (log.is_file() and name in log.read_text("utf-8", "replace"))


def _heal(search: TinySearch, scene: Scene, name: str, original: bytes, command: str, about: str, tally: Tally) -> None:
    """Put the file back, and call what was refused once more."""
    _put(scene.run / name, original)
    again = search.asked(scene.run, *COMMANDS[command](scene))
    tally.calls += 1
    if again.code == 0:
        tally.healed += 1
    else:
        tally.faults.append(f"{about}: with the file put back it ends with {again.code}: {again.said[-300:]!r}")


def measure(
    search: TinySearch, scratch: Path, ways: Sequence[str], commands: Sequence[str], most_files: int, seed: int
) -> Tally:
    """All of it; of each run so many files at most, those that are drawn."""
    tally = Tally()
    runs = make_runs(search, scratch)
    data = Path(search.options[search.options.index("--data") + 1])
    image = min(each for each in data.rglob("*.png"))
    scene = Scene(scratch / "copy" / "run", image, data, scratch / "copy")
    for kept in runs.values():
        works = [command for command in commands if _works(search, kept, command, scene)]
        if kept.name == "finished" and works != list(commands):
            raise RuntimeError(f"of {', '.join(commands)} only {', '.join(works)} work on a sound run")
        names = files_of(kept)
        chosen = sorted(random.Random(seed).sample(names, min(most_files, len(names))))
        for name in chosen:
            for way in ways:
                one(search, kept, name, way, works, scene, seed, tally)
            print(f"{kept.name}/{name}: {tally.calls} calls, {len(tally.faults)} faults", file=sys.stderr, flush=True)
    return tally


def figure_of(tally: Tally) -> Figure:
    """The line, and what is behind it."""
    codes = ", ".join(f"{times} with {code}" for code, times in sorted(tally.codes.items()))
    return Figure(
        target="damaged runs",
        held=not tally.faults and tally.calls > 0,
        text=f"{tally.cases} damaged files, {tally.calls} calls: {codes}; {tally.healed} of {tally.refused} refused "
        f"ones work with the file put back; {len(tally.faults)} faults",
        figures={**vars(tally), "codes": dict(tally.codes)},
        faults=tuple(tally.faults),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where the promise was missed."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=1000, help="of each run, at most")
    options.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    options.add_argument("--commands", default=",".join(COMMANDS), help=f"of {', '.join(COMMANDS)}")
    options.add_argument("--data", type=Path, help="images (default: sixty that are drawn)")
    options.add_argument("--command", help="the program to measure (default: this package)")
    given = options.parse_args(arguments)
    ways, commands = given.ways.split(","), given.commands.split(",")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        search = tiny_search(Path(folder), OPTIONS, given.command, given.data)
        tally = measure(search, Path(folder), ways, commands, given.files, given.seed)
    return conclude(figure_of(tally), given.json)


if __name__ == "__main__":
    sys.exit(main())
