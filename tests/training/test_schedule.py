from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.training.schedule import SCHEDULES

shares = st.floats(0, 1)
warmups = st.floats(0, 0.9)


@pytest.mark.parametrize("name", SCHEDULES)
@given(done=shares, warmup=warmups)
def test_factors_are_shares_of_the_peak(name: str, done: float, warmup: float) -> None:
    assert -1e-9 <= SCHEDULES[name](done, warmup) <= 1 + 1e-9


@pytest.mark.parametrize("name", SCHEDULES)
@given(warmup=st.floats(0.05, 0.7))
def test_the_rate_rises_to_its_peak_in_the_warmup_and_never_after(name: str, warmup: float) -> None:
    schedule = SCHEDULES[name]
    rising = [schedule(warmup * i / 20, warmup) for i in range(20)]
    falling = [schedule(warmup + (1 - warmup) * i / 20, warmup) for i in range(21)]
    assert rising == sorted(rising)
    assert all(later <= sooner + 1e-9 for sooner, later in itertools.pairwise(falling))
    assert falling[0] == pytest.approx(1)


@pytest.mark.parametrize("name", ["cosine", "linear", "trapezoid", "one_cycle"])
def test_decaying_schedules_end_at_nothing(name: str) -> None:
    assert SCHEDULES[name](1.0, 0.1) == pytest.approx(0, abs=1e-3)


def test_a_trapezoid_stays_until_the_last_quarter() -> None:
    assert [SCHEDULES["trapezoid"](done, 0.1) for done in (0.05, 0.2, 0.74, 0.875, 1.0)] == pytest.approx(
        [0.5, 1, 1, 0.5, 0]
    )
