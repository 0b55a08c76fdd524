"""What benchmarks/speed.py compares: ratios of arms that take turns, by the wall clock and in CPU seconds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_vision.runtime import Runtime
from speed_parts import cold_start_arms, first_epoch_arms, folder_arms, head_arms, peer_arms, trial_arms
from speed_steps import Block, Scene, step_arms

#: What is trained, by kind of device.
SCENES: dict[str, tuple[Scene, ...]] = {
    "cpu": (
        Scene("mobilenetv3_small_100", 128, images=128),
        Scene("mobilenetv3_small_100", 224, images=64),
        Scene("resnet18", 128, images=64),
    ),
    "cuda": (
        Scene("mobilenetv3_small_100", 160, batch=512, images=8_192),
        Scene("resnet18", 224, batch=256, images=4_096),
        Scene("resnet50", 224, batch=128, images=2_048),
    ),
}


CLOCKS = ("wall", "cpu")
#: Clock -> seconds per unit of work, of one arm in one round.
Cost = Mapping[str, float]
#: Costs of the arms of one part, one dict per round.
Rounds = Sequence[Mapping[str, Cost]]


@dataclass(frozen=True)
class Ratio:
    """What is compared.

    Attributes:
        letter: by which it is asked for.
        title: for people.
        part: a key of `PARTS`.
        of: costs of one round, by the wall clock or in CPU seconds, to the ratio.
        bars: scene, or "" for all of them -> what is aimed at on a CPU.
        least: whether the bar is a lower one.
    """

    letter: str
    title: str
    part: str
    of: Callable[[Mapping[str, float]], float]
    bars: Mapping[str, float]
    least: bool = True


RATIOS = (
    Ratio(
        "E",
        "step on resident data / step",
        "steps",
        lambda cost: cost["resident"] / cost["ours"],
        {"mobilenetv3_small_100@128": 0.95, "": 0.97},
    ),
    Ratio("L", "timm's train benchmark / step", "steps", lambda cost: cost["timm"] / cost["ours"], {"": 1.5}),
    Ratio(
        "LT",
        "the same, both training the statistics of batch norm",
        "steps",
        lambda cost: cost["timm"] / cost["ours, statistics trained"],
        {},
    ),
    Ratio(
        "D",
        "ImageFolder and DataLoader / ours, 500 px",
        "steps",
        lambda cost: cost["loader, 500 px"] / cost["ours"],
        {"mobilenetv3_small_100@128": 1.6},
    ),
    Ratio(
        "D3",
        "the same, 3-megapixel photographs",
        "steps",
        lambda cost: cost["loader, 3 megapixels"] / cost["ours"],
        {"mobilenetv3_small_100@128": 4.0},
    ),
    Ratio(
        "P",
        "Trainer of Hugging Face, tuned / ours",
        "peers",
        lambda cost: cost["hugging_face"] / cost["ours"],
        {"": 1.8},
    ),
    Ratio(
        "PT",
        "the same, both training the statistics of batch norm",
        "peers",
        lambda cost: cost["hugging_face"] / cost["ours, statistics trained"],
        {},
    ),
    Ratio("PF", "fastai, tuned / ours", "peers", lambda cost: cost["fastai"] / cost["ours"], {"": 1.8}),
    Ratio(
        "F",
        "first epoch / the larger of decoding and an epoch without loading",
        "first epoch",
        lambda cost: cost["first epoch"] / max(cost["decoding, shared"], cost["resident"]),
        {"": 1.15},
        least=False,
    ),
    Ratio(
        "FS",
        "first epoch / decoding and an epoch without loading, one after the other",
        "first epoch",
        lambda cost: cost["first epoch"] / (cost["decoding, shared"] + cost["resident"]),
        {"": 1.15},
        least=False,
    ),
    Ratio(
        "O",
        "seconds of a trial around its epoch",
        "trial",
        lambda cost: cost["trial of an epoch"] - cost["epoch"],
        {"": 0.5},
        least=False,
    ),
    Ratio(
        "H",
        "128 heads / one",
        "heads",
        lambda cost: 128 * cost["heads of a probe"] / cost["one head"],
        {"": 32.0},
        least=False,
    ),
    Ratio(
        "S",
        "predict, cold / a bare script",
        "cold start",
        lambda cost: cost["predict"] / cost["bare script"],
        {"": 1.1},
        least=False,
    ),
    Ratio(
        "B",
        "predict of a folder / the larger of decoding and the network",
        "folder",
        lambda cost: cost["folder"] / max(cost["decoding"], cost["network"]),
        {},
        least=False,
    ),
    Ratio(
        "BS",
        "predict of a folder / decoding and the network, one after the other",
        "folder",
        lambda cost: cost["folder"] / (cost["decoding"] + cost["network"]),
        {"": 1.05},
        least=False,
    ),
)


@dataclass(frozen=True)
class Bench:
    """What parts are given: pictures, device, an empty folder."""

    small: Path
    large: Path
    runtime: Runtime
    scratch: Path


@dataclass(frozen=True)
class Part:
    """Arms that are measured together, for every scene or for the first one alone."""

    arms: Callable[[Scene, Bench], dict[str, Block]]
    for_every_scene: bool = False


#: name -> its arms.
PARTS: dict[str, Part] = {
    "steps": Part(lambda scene, bench: step_arms(scene, bench.small, bench.large, bench.runtime), for_every_scene=True),
    "first epoch": Part(lambda scene, bench: first_epoch_arms(scene, bench.small, bench.runtime)),
    "peers": Part(lambda scene, bench: peer_arms(scene, bench.small, bench.runtime)),
    "trial": Part(lambda _scene, bench: trial_arms(Scene("efficientnet_lite0", 96), bench.small, bench.runtime)),
    "heads": Part(lambda _scene, _bench: head_arms()),
    "cold start": Part(lambda _scene, bench: cold_start_arms(bench.scratch, next(bench.small.rglob("*.jpg")))),
    "folder": Part(lambda scene, bench: folder_arms(scene, bench.small, bench.runtime), for_every_scene=True),
}


def measure(arms: Mapping[str, Block], rounds: int) -> list[dict[str, Cost]]:
    """Every arm once without a look at the clock, then in turns."""
    for block in arms.values():
        block()
    names = list(arms)
    return [
        {name: _timed(arms[name]) for name in (*names[turn % len(names) :], *names[: turn % len(names)])}
        for turn in range(rounds)
    ]


def _timed(block: Block) -> Cost:
    wall, cpu = time.perf_counter(), cpu_seconds()
    units = block()
    return {"wall": (time.perf_counter() - wall) / units, "cpu": (cpu_seconds() - cpu) / units}


def cpu_seconds() -> float:
    """Of this process, of what it started and has ended, and, on Linux, of its children that run."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system + sum(map(_running_seconds, _children()))


def _children(process: str = "self") -> list[int]:
    """Processes that a process started, that those started, and so on."""
    try:
        lists = [(task / "children").read_text() for task in Path(f"/proc/{process}/task").iterdir()]
    except OSError:
        return []  # it has just ended, or the system does not tell
    own = [int(number) for text in lists for number in text.split()]
    return [*own, *(each for child in own for each in _children(str(child)))]


def _running_seconds(process: int) -> float:
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has just ended
    ticks = sum(int(each) for each in after_name[11:15])  # its own and those of its ended children
    return ticks / os.sysconf("SC_CLK_TCK")


# --- what it comes to ------------------------------------------------------------------------------------------------


def ratios(part: str, scene: str, rounds: Rounds, cores: int) -> list[dict[str, Any]]:
    """One row per ratio of the part: its median, least and most by both clocks, and the bar."""
    rows = []
    for ratio in (each for each in RATIOS if each.part == part):
        row: dict[str, Any] = {"ratio": ratio.letter, "title": ratio.title, "scene": scene}
        row |= {"bar": ratio.bars.get(scene, ratio.bars.get("")), "least": ratio.least}
        for clock in CLOCKS:
            values = [ratio.of(_by_clock(each, clock, cores)) for each in rounds]
            row[clock] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
        rows.append(row)
    return rows


def _by_clock(costs: Mapping[str, Cost], clock: str, cores: int) -> dict[str, float]:
    values = {name: cost[clock] for name, cost in costs.items()}
    if "decoding on one core" in values:  # all cores decode as fast as one of them, times their number
        values["decoding, shared"] = values["decoding on one core"] / (cores if clock == "wall" else 1)
    return values


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| ratio | | scene | aim | wall | CPU |", "|---|---|---|---|---|---|"]
    for row in rows:
        aim = "" if row["bar"] is None else f"{'>=' if row['least'] else '<='} {row['bar']:g}"
        told = [f"{row[c]['median']:.3g} [{row[c]['low']:.3g}, {row[c]['high']:.3g}]" for c in CLOCKS]
        lines.append(f"| {row['ratio']} | {row['title']} | {row['scene']} | {aim} | {' | '.join(told)} |")
    return "\n".join(lines)
