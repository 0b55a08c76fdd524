"""R7: mutated image files through everything that opens one. Does anything crash, hang, or raise what it should not?

    python benchmarks/trust/mutated_images.py --files 100000 --commands 2000

Sound images of every format and mode take turns; each file is one of them, damaged at random, and can be made again
from `--seed` and its number. All of them go through the doors of `image_doors.py` in a child process with bounds: 1 GB
of address space beside what it began with, and 5 seconds of processor time for one file at one door, after which it is
killed and the file named. A share goes through the real commands, too: `inspect` reads them in a folder with sound
images, `predict` and `serve` answer for each. Whatever they say of a file has to be what the doors said, and they may
take 1 GB more than they take for the sound images alone (their libraries come to .8 to 1 GB before the first image).
"""

from __future__ import annotations

import csv
import http.client
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from automl_vision.bundle import Bundle, save_bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.errors import IMAGE_FAULTS
from automl_vision.models.classifier import build_classifier
from serve_load import Server
from stages import find_command
from timed_process import peak_mb, run_timed
from trust.bounded_child import Bounds, Lost, told_by_children
from trust.figure import Figure, conclude, parser
from trust.image_seeds import Seed, scene, seeds
from trust.mutations import mutated

MOST_MB = 1000
_CLASSES = 4
#: Sound images of each class among the mutated ones, so that the classes can be dealt.
_SOUND = 12
#: Files of one request.
_BATCH = 16
#: Seconds after which a command has hung.
_PATIENCE = 1800.0
_FAULTS_SHOWN = 20
_BOUNDARY = b"x-mutated-images"
_HALF = (0.5, 0.5, 0.5)


@dataclass
class Tally:
    """What was seen of all files.

    Attributes:
        said: what the doors said of how many files; "ok" is one of it.
        crashes, hangs, foreign: files that ended a process, or held it up, or let another error out.
        slowest: seconds of processor time of one file at one door.
        peak_mb: resident memory of the child, and of each command by name.
        sound_mb: of each command with sound images alone.
        faults: each of what is wrong, in a line.
    """

    said: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    hangs: int = 0
    foreign: int = 0
    slowest: float = 0.0
    peak_mb: dict[str, float] = field(default_factory=dict)
    sound_mb: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add_lost(self, lost: Iterable[Lost], bounds: Bounds) -> None:
        """Count what ended a child."""
        for each in lost:
            self.crashes += each.kind == "crash"
            self.hangs += each.kind == "hang"
            self.slowest = max(self.slowest, bounds.cpu_seconds if each.kind == "hang" else 0.0)
            self.faults.append(f"{each.kind} at file {each.number}: {each.detail}")

    def add(self, told: Iterable[Mapping[str, Any]], bounds: Bounds) -> None:
        """Count what came to an end."""
        for line in told:
            about = f"file {line['number']} ({line.get('seed', '')})"
            self.slowest = max(self.slowest, line["cpu"])
            self.peak_mb["child"] = max(self.peak_mb.get("child", 0.0), line["peak_mb"])
            if "foreign" in line:
                self.foreign += 1
                self.faults.append(f"{about}: {line['foreign']} at {line['where']}")
                continue
            self.said[line["said"]] += 1
            self.faults += [f"{about}: {each}" for each in line["wrong"]]
            if line["cpu"] > bounds.cpu_seconds:
                self.hangs += 1
                self.faults.append(f"{about}: {line['cpu']:.1f} s of processor time")

    def figure(self, files: int, kinds: int, through: int) -> Figure:
        """What is concluded of them."""
        over = [f"{each} MB of memory" for name, each in self._memory().items() if self._beyond(name) > MOST_MB]
        unseen = files - sum(self.said.values()) - self.crashes - self.hangs - self.foreign
        missing = [f"{unseen:,} files of which nothing was told"] if unseen > 0 else []
        faults = (*self.faults[:_FAULTS_SHOWN], *over, *missing)
        text = (
            f"{files - max(unseen, 0):,} files of {kinds} seeds, {through:,} of them through the commands: "
            f"{self.crashes} crashes, {self.hangs} over 5 s, {self.foreign} foreign errors, "
            f"{len(self.faults)} faults in all; "
            f"{self.said['ok']:,} could be read; slowest {self.slowest:.2f} s of processor time; "
            f"peak memory in MB: {', '.join(self._memory().values())}"
        )
        figures = {
            "files": files,
            "seeds": kinds,
            "through_commands": through,
            "said": dict(self.said.most_common()),
            "crashes": self.crashes,
            "hangs": self.hangs,
            "foreign": self.foreign,
            "slowest_cpu_seconds": self.slowest,
            "peak_mb": self.peak_mb,
            "sound_mb": self.sound_mb,
            "faults": len(self.faults),
        }
        return Figure("R7", not faults, text, figures, faults)

    def _beyond(self, name: str) -> float:
        """What mutated images add to the memory of a command; all memory of the child."""
        return self.peak_mb[name] - self.sound_mb.get(name, 0.0)

    def _memory(self) -> dict[str, str]:
        alone = {name: f" ({peak:.0f} with sound images alone)" for name, peak in self.sound_mb.items()}
        return {name: f"{name} {peak:.0f}{alone.get(name, '')}" for name, peak in self.peak_mb.items()}


# --- the real commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """Mutated files in class folders, between sound images.

    Attributes:
        data: the folder.
        files: number -> where it lies; sound images have numbers below 0.
        said: number -> what the doors said of it; "ok" of sound images.
    """

    data: Path
    files: Mapping[int, Path]
    said: Mapping[int, str]

    def differences(self, command: str, found: Mapping[Path, str]) -> list[str]:
        """Files of which a command says something else; `found` has what it said of each."""
        return [
            f"{command} says {found.get(path, 'nothing')} of file {number}, not {self.said[number]}"
            for number, path in self.files.items()
            if found.get(path, "nothing") != self.said[number]
        ]


def make_scene(data: Path, kinds: Sequence[Seed], seed: int, said: Mapping[int, str]) -> Scene:
    """Write the files of `said`, and sound ones beside them."""
    files: dict[int, Path] = {}
    sound = range(-_CLASSES * _SOUND, 0)
    for number in said:
        image = mutated(kinds, seed, number)
        path = data / f"class_{number % _CLASSES}" / f"{number:06d}.{image.ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.data)
        files[number] = path
    for number in sound:
        path = data / f"class_{number % _CLASSES}" / f"sound_{-number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(3 * number + 100).point(lambda value, n=number: (value + 5 * n) % 256).save(path)
        files[number] = path
    return Scene(data, files, {**said, **dict.fromkeys(sound, "ok")})


def inspected(scene: Scene, out: Path, tally: Tally) -> None:
    """`inspect` over all of them: what it lists is what cannot be read, with the reason."""
    options = ["--lineage", "names", "--no-cache", "--max-unreadable", "1", "--json"]
    line = [find_command(), "inspect", "--data", str(scene.data), "--out", str(out), *options]
    ended = run_timed(line, _PATIENCE)
    tally.peak_mb["inspect"] = ended.peak_mb
    if ended.code != 0:
        tally.faults.append(f"inspect ended with {ended.code}: {ended.err[-300:]}")
        return
    with (out / "audit.csv").open(encoding="utf-8", newline="") as file:
        listed = {scene.data / row["path"]: row["kind"] for row in csv.DictReader(file) if row["kind"] in IMAGE_FAULTS}
    tally.faults += scene.differences("inspect", {path: listed.get(path, "ok") for path in scene.files.values()})


def predicted(scene: Scene, model: Path, out: Path, tally: Tally) -> None:
    """`predict` over all of them: a row for each, in which those that cannot be read say why."""
    line = [find_command(), "predict", str(model), str(scene.data), "--format", "jsonl", "--out", str(out)]
    ended = run_timed([*line, "--device", "cpu"], _PATIENCE)
    tally.peak_mb["predict"] = ended.peak_mb
    expected = 3 if set(scene.said.values()) != {"ok"} else 0
    if ended.code != expected:
        tally.faults.append(f"predict ended with {ended.code}, not {expected}: {ended.err[-300:]}")
        return
    rows = [json.loads(row) for row in out.read_text("utf-8").splitlines()]
    tally.faults += scene.differences("predict", {Path(row["path"]): _kind_of(row) for row in rows})


def _kind_of(row: Mapping[str, Any]) -> str:
    return str(row["status"]) if row["status"] == "ok" else str(row["error"]).partition(":")[0]


def served(scene: Scene, model: Path, tally: Tally) -> None:
    """`serve`, with the files of a request side by side; it is alive at the end and ends when it is told to."""
    server = Server(model)
    try:
        found: dict[Path, str] = {}
        paths = list(scene.files.values())
        for at in range(0, len(paths), _BATCH):
            found |= _answers(server.port, paths[at : at + _BATCH])
        tally.faults += scene.differences("serve", found)
        tally.peak_mb["serve"] = peak_mb(server._process.pid)
        code = server.end()
        if code != 0:
            tally.faults.append(f"serve ended with {code}")
    except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        tally.faults.append(f"serve: {type(error).__name__}: {error}")
    finally:
        server.kill()


def _answers(port: int, paths: Sequence[Path]) -> dict[Path, str]:
    head = b'--%b\r\nContent-Disposition: form-data; name="files"; filename="%d"\r\n\r\n%b\r\n'
    parts = [head % (_BOUNDARY, number, path.read_bytes()) for number, path in enumerate(paths)]
    kind = f"multipart/form-data; boundary={_BOUNDARY.decode('ascii')}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/predict", b"".join(parts) + b"--%b--\r\n" % _BOUNDARY, {"Content-Type": kind})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    rows = answer.get("results", [])
    return {paths[int(row["name"])]: row["error"]["kind"] if row["error"] else row["status"] for row in rows}


def make_model(path: Path) -> Path:
    """A small network for inputs of 32 px, with random weights."""
    names = tuple(f"class_{number}" for number in range(_CLASSES))
    net = build_classifier("test_resnet", len(names), resolution=32, seed=0)
    save_bundle(Bundle("test_resnet", "linear", names, Preprocessing(32, _HALF, _HALF), 1.0, net.state_dict()), path)
    return path


# --- all of it ------------------------------------------------------------------------------------------------------


def storm(files: int, through: int, seed: int, folder: Path, children: int = 1, minutes: float = math.inf) -> Figure:
    """All files through the doors, and the first ones that came to an end there through the commands."""
    until = time.monotonic() + 60 * minutes
    kinds, bounds, tally = seeds(), Bounds(), Tally()
    child = [sys.executable, str(Path(__file__).with_name("image_doors.py")), str(seed)]

    def send(part: int) -> tuple[list[dict[str, Any]], list[Lost]]:
        work = folder / f"child-{part}"
        work.mkdir()
        numbers = range(files * part // children, files * (part + 1) // children)
        return told_by_children(child, numbers, work, bounds, until)

    said: dict[int, str] = {}
    with ThreadPoolExecutor(children) as pool:
        for told, lost in pool.map(send, range(children)):
            tally.add(told, bounds)
            tally.add_lost(lost, bounds)
            said |= {line["number"]: line["said"] for line in told if "said" in line}
    some = {number: said[number] for number in sorted(said)[:through]}
    if some:
        model, alone = make_model(folder / "model.pt"), Tally()
        through_commands(make_scene(folder / "sound", kinds, seed, {}), model, folder, alone)
        through_commands(make_scene(folder / "mutated", kinds, seed, some), model, folder, tally)
        tally.sound_mb = alone.peak_mb
        tally.faults += [f"sound images alone: {fault}" for fault in alone.faults]
    return tally.figure(files, len(kinds), len(some))


def through_commands(scene: Scene, model: Path, folder: Path, tally: Tally) -> None:
    """All files of a scene through every command."""
    inspected(scene, folder / f"{scene.data.name}-inspected", tally)
    predicted(scene, model, folder / f"{scene.data.name}-predicted.jsonl", tally)
    served(scene, model, tally)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=100_000, help="through the doors")
    options.add_argument("--commands", type=int, default=2_000, help="of them, through inspect, predict and serve")
    options.add_argument("--children", type=int, default=1, help="child processes side by side")
    options.add_argument("--minutes", type=float, default=math.inf, help="for the doors; what is left then is missing")
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mutated-images-") as folder:
        figure = storm(given.files, given.commands, given.seed, Path(folder), given.children, given.minutes)
        return conclude(figure, given.json)


if __name__ == "__main__":
    sys.exit(main())
