"""What the table names is there and takes what it is given; what misses is told, and keeps nothing from its turn."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from stages import ROOT
from trust import suite
from trust.suite import MEASUREMENTS, SIZES, Measurement, Share, main, wanted

#: What `figure.parser` gives to every script.
COMMON = {"--seed", "--json"}
SCRIPTS = [each for each in MEASUREMENTS if not each.script.startswith("-m ")]


def stand_in(folder: Path, name: str, source: str, minutes: float = 1.0, *, writes: bool = False) -> Measurement:
    file = folder / f"{name}.py"
    file.write_text(source)
    share = Share("", minutes)
    return Measurement((name,), str(file), share, share, share, writes=writes)


@pytest.mark.parametrize("each", SCRIPTS, ids=lambda each: f"{','.join(each.targets)}-{Path(each.script).name}")
def test_a_script_is_there_and_knows_its_options(each: Measurement) -> None:
    source = (ROOT / each.script.split()[0]).read_text(encoding="utf-8")
    known = set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", source)) | (COMMON if "parser(" in source else set())
    given = {word for size in SIZES if (share := each.share(size)) for word in share.options.split()}
    assert {word for word in given if word.startswith("--")} <= known
    assert not each.writes or "--json" in known


def test_every_target_of_the_page_is_measured_in_full_and_every_measurement_has_its_row() -> None:
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    promised = re.findall(r"^\| (R\d+) \|", page, re.MULTILINE)
    assert len(promised) == len(set(promised)) == 18
    assert {target for each in MEASUREMENTS if each.full for target in each.targets} == set(promised)


def test_sizes_fit_into_their_time() -> None:
    """What they may take at most; what they take on a quiet machine is far less."""
    whole = {size: sum(share.minutes for each in MEASUREMENTS if (share := each.share(size))) for size in SIZES}
    assert whole["smoke"] < whole["selection"] < whole["full"]


def test_what_misses_fails_or_hangs_is_told_and_the_next_one_has_its_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "all.json"
    table = [
        stand_in(tmp_path, "R1", "print('said before'); print('R1 MISSED: 1 lost'); raise SystemExit(1)"),
        stand_in(tmp_path, "R2", "raise ValueError('no such thing')"),
        stand_in(tmp_path, "R3", "import time; print('began', flush=True); time.sleep(60)", minutes=0.02),
        stand_in(tmp_path, "R4", WRITES, writes=True),
    ]
    began = time.monotonic()
    assert main(["--size", "smoke", "--json", str(told)], table) == 1
    assert time.monotonic() - began < 30
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["R1", "MISSED"], ["R2", "MISSED"], ["R3", "MISSED"], ["R4", "held"],
    ]  # fmt: skip
    assert lines[0].endswith("R1 MISSED: 1 lost")
    assert "stopped after 0.02 minutes" in lines[2]
    assert lines[-1].endswith("missed: R1, R2, R3")
    content = json.loads(told.read_text())
    assert content["size"] == "smoke"
    assert content["machine"]["python"]
    assert [each["told"] for each in content["figures"]] == [None, None, None, {"held": True}]


WRITES = "import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--json') + 1]).write_text('{\"held\": true}')"


def test_several_at_once_are_told_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waits = "import time; time.sleep({}); print('{} held: it waited')"
    table = [stand_in(tmp_path, f"R{number}", waits.format(1 - number / 10, f"R{number}")) for number in range(1, 6)]
    began = time.monotonic()
    assert main(["--size", "smoke", "--at-once", "5"], table) == 0
    assert time.monotonic() - began < 3.5
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["R1", "R2", "R3", "R4", "R5"]
    assert all(line.endswith(f"R{number} held: it waited") for number, line in enumerate(lines[:5], start=1))


def test_nothing_missed_is_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "full"], [stand_in(tmp_path, "R7", "print('R7 held: all of them')")]) == 0
    assert "1 measurements" in capsys.readouterr().out


STARTS_ANOTHER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
pathlib.Path({file!r}).write_text(str(child.pid))
time.sleep(60)
"""


def test_what_a_stopped_script_had_started_is_stopped_too(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    each = stand_in(tmp_path, "R1", STARTS_ANOTHER.format(file=str(file)), minutes=0.05)
    outcome = suite.measure(each, each.full or Share("", 1), tmp_path / "figures.json")
    assert not outcome.held
    child = int(file.read_text())
    ends = time.monotonic() + 10
    while _runs(child) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize(
    ("size", "only", "found"),
    [
        ("smoke", [], ["a", "c"]),
        ("full", ["R2"], ["b"]),
        ("full", ["R3", "R1"], ["a", "c"]),
    ],
)
def test_a_size_and_a_choice_of_targets(size: str, only: list[str], found: list[str]) -> None:
    share = Share("", 1)
    table = [
        Measurement(("R1", "R3"), "a", share, share, share),
        Measurement(("R2",), "b", None, share, share),
        Measurement(("R3",), "c", share, share, share),
    ]
    assert [each.script for each in wanted(size, only, table)] == found
    with pytest.raises(ValueError, match="does not measure R9: it has R1"):
        wanted(size, ["R9"], table)
    with pytest.raises(ValueError, match="--size smoke does not measure R2"):
        wanted("smoke", ["R2"], table)


def test_an_unknown_target_is_a_mistake_on_the_command_line(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "R99"])
    assert ended.value.code == 2
    assert "does not measure R99" in capsys.readouterr().err
