"""The soak notices what it is there for: growth, silence, lost trials, wrong exit codes and wrong answers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trust import soak_faults
from trust.figure import conclude
from trust.growth import ALLOWED, Growth, Sample, growths, look, slope
from trust.soak import faults_in_order, figure_of, tenths_without
from trust.soak_faults import Place, Tally, damage_one, held_against, suffer

HOUR = 3600.0


def hour(value: Any) -> list[Sample]:
    """An hour of samples, `value(minute)` of memory each."""
    return [Sample(3.0 * k, {"memory": value(k / 20), "descriptors": 40.0, "threads": 9.0}) for k in range(1200)]


def grown(samples: list[Sample]) -> dict[str, bool]:
    return {each.measure: each.too_much for each in growths("search", samples, HOUR / 5)}


NOISE = random.Random(0)


@pytest.mark.parametrize(
    ("value", "too_much"),
    [
        (lambda minute: 500.0, False),
        (lambda minute: 500 + 2 * minute, True),
        (lambda minute: 500 + 0.5 * minute, False),
        (lambda minute: 500 + NOISE.uniform(-80, 80), False),
        (lambda minute: 500 + 2 * minute + NOISE.uniform(-80, 80), True),
        (lambda minute: 500 + 30 * min(minute, 10), False),  # what comes while it warms up
        (lambda minute: 500 + (900 if 30 < minute < 33 else 0), False),  # a peak that goes away
        (lambda minute: 500 + 12 * (minute // 5), True),  # in steps, with each fault
    ],
)
def test_growth_is_told_from_noise_from_warming_up_and_from_peaks(value: Any, too_much: bool) -> None:
    assert grown(hour(value)) == {"memory": too_much, "descriptors": False, "threads": False}


def test_one_descriptor_with_every_fault_is_too_much() -> None:
    samples = [Sample(3.0 * k, {"memory": 500.0, "descriptors": 40.0 + k // 100, "threads": 9.0}) for k in range(1200)]
    assert grown(samples) == {"memory": False, "descriptors": True, "threads": False}


def test_too_few_samples_say_nothing() -> None:
    assert growths("search", hour(lambda minute: minute)[:250], HOUR / 5) == []
    assert growths("search", [], 1.0) == []
    assert slope([(0.0, 1.0)]) == 0.0


def test_a_process_is_looked_at() -> None:
    seen = look(os.getpid(), 5.0)
    assert seen is not None
    assert seen.seconds == 5.0
    assert seen.values["memory"] > 1
    assert seen.values["threads"] >= threading.active_count()
    before = seen.values["descriptors"]
    with Path(os.devnull).open():
        again = look(os.getpid(), 6.0)
    assert again is not None
    assert again.values["descriptors"] == before + 1
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert look(ended.pid, 7.0) is None


# --- verdict ----------------------------------------------------------------------------------------------------------


FLAT = [Growth("search", measure, 10, 10, 0.0, 3000.0, allowed) for measure, allowed in ALLOWED.items()]


def whole(**changes: Any) -> Tally:
    """An hour in which all went well."""
    made = Tally(
        Counter({"kill -9": 6}), resumed=6, answers=Counter({200: 90}), completed=[60.0 * k for k in range(60)]
    )
    made.disk = [1_000_000, 1_300_000]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_an_hour_in_which_all_went_well_is_held(tmp_path: Path) -> None:
    figure = figure_of(whole(), FLAT, HOUR)
    assert figure.held
    assert "6 faults of 1 kinds in 60 minutes, 6 searches mended and resumed, 60 trials" in figure.text
    assert conclude(figure, tmp_path / "figure.json") == 0
    assert json.loads((tmp_path / "figure.json").read_text())["figures"]["completed"] == 60


@pytest.mark.parametrize(
    ("tally", "measured", "said"),
    [
        (whole(wrong=["SIGTERM: it ended with 1 instead of 75"]), FLAT, "1 instead of 75"),
        (whole(completed=[60.0 * k for k in range(60) if k not in range(12, 24)]), FLAT, "tenths of the time: 3, 4"),
        (whole(completed=[]), FLAT, "2, 3, 4, 5, 6, 7, 8, 9, 10"),
        (whole(disk=[1_000_000, 9_000_000]), FLAT, "from 1000000 to 9000000 bytes"),
        (whole(weights=30.5), FLAT, "took 30.5 times the largest"),
        (whole(), [], "too few samples"),
        (whole(), [Growth("server", "threads", 9, 15, 6.0, 3000.0, 2.0)], "threads of server: 9 to 15, +6.0 in 50 min"),
    ],
)
def test_everything_that_is_not_as_promised_is_told(tally: Tally, measured: list[Growth], said: str) -> None:
    figure = figure_of(tally, measured, HOUR)
    assert not figure.held
    assert said in " ".join(figure.faults)


def test_tenths() -> None:
    assert tenths_without([0.0, 10.0, 25.0, 99.9, 130.0], 100.0) == [4, 5, 6, 7, 8, 9]


def test_every_kind_of_fault_comes_before_any_comes_again() -> None:
    faults = faults_in_order(random.Random(0), "abcde")
    assert sorted(next(faults) for _ in range(5)) == list("abcde")
    assert sorted(next(faults) for _ in range(5)) == list("abcde")


# --- faults that end a search, on a stand-in for the command ----------------------------------------------------------


STAND_IN = """
import json, pathlib, signal, sys, time
fault, command, *rest = sys.argv[1:]
if command == "report":
    sys.exit(fault == "unverified")
given = dict(zip(rest, rest[1:]))
resumed = "--resume" in given
run = pathlib.Path(given["--resume"] if resumed else given["--out"])
for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
    signal.signal(number, lambda *_, code=code: sys.exit(1 if fault == "code" else code))
trials = run / "trials"
trials.mkdir(parents=True, exist_ok=True)
if resumed and fault == "refuses":
    sys.exit(2)
if resumed and fault == "loses":
    (trials / "000000.json").unlink()
for number in range(3):
    file = trials / f"{number:06d}.json"
    if fault == "repeats" or not file.exists():
        record = {"number": number, "state": "complete", "at": time.time(), "padding": "x" * 500}
        file.with_suffix(".part").write_text(json.dumps(record))
        file.with_suffix(".part").rename(file)
    if not resumed and number == 1:
        time.sleep(0 if fault == "quick" else 30)
"""


@pytest.fixture
def suffered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the stand-in suffer; what the tally says then."""
    monkeypatch.setattr(soak_faults, "PATIENCE", 20.0)
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)

    def suffer_one(kind: str, fault: str) -> Tally:
        place, tally = Place(tmp_path, None, (sys.executable, str(program), fault)), Tally()
        chance = random.Random(0)
        monkeypatch.setattr(chance, "uniform", lambda low, high: 0.1)
        suffer(kind, place, 1, chance, tally)
        assert not (tmp_path / "short-1").exists()
        return tally

    return suffer_one


@pytest.mark.parametrize("kind", ["kill -9", "SIGTERM", "Ctrl-C"])
def test_a_search_that_goes_on_is_counted(suffered: Any, kind: str) -> None:
    tally = suffered(kind, "none")
    assert (tally.wrong, tally.resumed, tally.ended_first, len(tally.disk)) == ([], 1, 0, 1)


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        ("SIGTERM", "code", "it ended with 1 instead of 75"),
        ("kill -9", "refuses", "--resume ended with 2"),
        ("kill -9", "loses", "trial 0 was complete and is another"),
        ("SIGTERM", "repeats", "trial 0 was complete and is another"),
        ("kill -9", "unverified", "does not follow from the predictions"),
    ],
)
def test_every_fault_of_a_resumed_search_is_noticed(suffered: Any, kind: str, fault: str, said: str) -> None:
    tally = suffered(kind, fault)
    assert tally.resumed == 0
    assert said in tally.wrong[0]


def test_a_search_that_was_done_before_its_fault_proves_nothing(suffered: Any) -> None:
    tally = suffered("SIGTERM", "quick")
    assert (tally.wrong, tally.resumed, tally.ended_first) == ([], 0, 1)


def test_trials_are_held_against_what_was_there() -> None:
    assert held_against({1: "a", 2: "b"}, {1: "a", 2: "b", 3: "c"}) == []
    assert held_against({1: "a", 2: "b"}, {2: "c"}) == [
        "trial 1 was complete and is missing",
        "trial 2 was complete and is another",
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_record_is_damaged(tmp_path: Path, seed: int) -> None:
    (tmp_path / "trials").mkdir()
    whole = json.dumps({"number": 4, "state": "complete", "padding": "x" * 100}).encode()
    file = tmp_path / "trials" / "000004.json"
    file.write_bytes(whole)
    assert damage_one(tmp_path, random.Random(seed)) == 4
    assert file.read_bytes() != whole
