"""Durations, and rules that say in words what they check in code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.errors import ConfigError
from automl_vision.rules import (
    OPTIONAL_BURST_WINDOW,
    BurstWindow,
    at_least,
    below,
    between,
    one_of,
    parse_burst_window,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1d2h3m4s", 93784),
        ("1.5h", 5400),
        ("45", 45),
        (" 10 M ", 600),
    ],
)
def test_durations_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "0s",
        "-5m",
        "ten",
        "10x",
        "1h30",
        "30m1h",
        "5m5m",
        "1e3",
        "1.h",
        "inf",
        "nan",
        "9" * 400,
        "١m",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="10m") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("3", BurstWindow(3, 0.0)),
        ("2s", BurstWindow(0, 2.0)),
        ("0.5s", BurstWindow(0, 0.5)),
        ("1m30s", BurstWindow(0, 90.0)),
        ("3,2s", BurstWindow(3, 2.0)),
        (" 2s , 3 ", BurstWindow(3, 2.0)),
    ],
)
def test_windows_people_write(text: str, window: BurstWindow) -> None:
    assert parse_burst_window(text) == window
    assert OPTIONAL_BURST_WINDOW.check(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "2 parsecs",
        "0",
        "0s",
        "-2s",
        "3,3",
        "2s,3s",
        "3,2s,1",
        ",",
        "3,",
        "1.5",
        "three",
        "1e3",
        "9999999",
        "٣",
        " ",
    ],
)
def test_what_is_no_window_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="3,2s") as caught:
        parse_burst_window(text)
    assert repr(text) in str(caught.value)
    assert "3,2s" in OPTIONAL_BURST_WINDOW.check(text)


def test_no_window_is_allowed() -> None:
    assert OPTIONAL_BURST_WINDOW.check("") == ""


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    whole = parse_duration(f"{days}d{hours}h{minutes}m{seconds}s")
    assert whole == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.text())
def test_any_other_text_is_a_positive_number_or_a_config_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ConfigError:
        return
    assert 0 < seconds < float("inf")


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (between(0, 1), [0, 0.5, 1], [-0.1, 1.1, float("nan")]),
        (below(0, 1), [0, 0.99], [1, -1, float("nan")]),
        (at_least(2), [2, 10**400], [1.9, float("inf"), float("nan")]),
        (one_of("a", "b"), ["a", "b"], ["", "c", "A"]),
    ],
)
def test_a_rule_says_what_it_accepts(rule, good, bad) -> None:
    assert [rule.check(value) for value in good] == [""] * len(good)
    assert all(rule.allowed in rule.check(value) for value in bad)
