"""The parts that run on a GPU fit into ten minutes, and a step that hangs takes nothing with it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import on_gpu
from on_gpu import LIMIT, PARTS, Settings


def budgets(steps: list[on_gpu.Step]) -> float:
    """Seconds of all arms of a duel."""
    total = 0.0
    for step in steps:
        budget, arms = step[step.index("--budgets") + 1], step[step.index("--arms") + 1 :]
        total += float(budget) * len(arms)
    return total


def test_the_budgets_of_a_duel_fit_into_its_part(tmp_path: Path) -> None:
    assert budgets(PARTS["duel"](Settings("cuda", 1.0, tmp_path))) <= LIMIT
    assert budgets(PARTS["duel"](Settings("cpu", 0.05, tmp_path))) == 5 * 20


@pytest.mark.parametrize("part", PARTS)
def test_every_step_is_a_program_of_the_folder(part: str, tmp_path: Path) -> None:
    for step in PARTS[part](Settings("cuda", 1.0, tmp_path)):
        assert (on_gpu.HERE / step[0]).is_file()
        assert "cuda" in step


def test_a_step_that_hangs_is_killed_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "HERE", tmp_path)
    (tmp_path / "hangs.py").write_text("import time; time.sleep(60)")
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    (tmp_path / "works.py").write_text(f"open({str(tmp_path / 'done')!r}, 'w')")
    started = time.monotonic()
    assert on_gpu.run([["works.py"], ["fails.py"], ["hangs.py"]], limit=3.0) == 2
    assert time.monotonic() - started < 30
    assert (tmp_path / "done").exists()
