"""The plan for very many images: its arithmetic, and that the page shows what it computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import plan

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


@pytest.mark.parametrize("table", [plan.cost_table, plan.ends_table], ids=lambda table: table.__name__)
def test_the_page_has_the_tables(table: object) -> None:
    assert callable(table)
    assert table() in PAGE.read_text(encoding="utf-8"), "run: cd benchmarks; python -m cluster.plan"


def test_what_grows_in_proportion_is_extrapolated_in_proportion() -> None:
    stage = plan.Stage("linear", cpu=0.036)
    assert stage.cpu_hours(1_000_000) == pytest.approx(10)
    assert stage.cpu_hours(10_000_000) == pytest.approx(100)


def test_two_measurements_say_how_much_grows_with_the_square() -> None:
    of_each, square = plan.both(1_000, 1_000 * 2e-3 + 1_000**2 * 5e-9, 2_000 * 2e-3 + 2_000**2 * 5e-9)
    assert (of_each, square) == (pytest.approx(2e-3), pytest.approx(5e-9))
    stage = plan.Stage("square", cpu=of_each, cpu_each_other=square)
    assert stage.cpu_hours(10**9) == pytest.approx((2e6 + 5e9) / 3600)


def test_a_machine_ends_where_the_first_of_its_limits_is_reached() -> None:
    assert plan.Stage("memory", cpu=1e-9, memory=256.0).ends == (pytest.approx(1e9), "its memory")
    assert plan.Stage("disk", disk=4e3).ends == (pytest.approx(1e9), "its disk")
    assert plan.Stage("all cores", cpu=64 * 86_400 / 1e6).ends == (pytest.approx(1e6), "a day")
    assert plan.Stage("one core", cpu=86_400 / 1e6, alone=True).ends == (pytest.approx(1e6), "a day")
    images, why = plan.Stage("square", cpu=1e-3, cpu_each_other=1e-9, alone=True).ends
    assert why == "a day"
    assert images * 1e-3 + images**2 * 1e-9 == pytest.approx(86_400)


def test_every_stage_that_was_measured_says_with_how_many_images() -> None:
    assert len({stage.name for stage in plan.MEASURED}) == len(plan.MEASURED)
    for stage in plan.MEASURED:
        assert stage.at > 0 or "counted" in stage.name
        assert stage.cpu or stage.memory or stage.disk


def test_a_row_has_the_figures_of_all_counts() -> None:
    header, _, *rows = plan.cost_table().splitlines()
    assert header.endswith("| 10^7 | 10^8 | 10^9 |")
    assert len(rows) == len(plan.MEASURED)
    decode = next(row for row in rows if row.startswith("| decode"))
    first, second, third = decode.strip("| ").split(" | ")[-3:]
    assert [cell.split(" h")[0].replace(",", "") for cell in (first, second, third)] == ["20", "200", "2000"]
