"""Names of foreign origin, made safe to look at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from automl_vision.visible import visible


@given(st.text(st.characters(codec=None)))
def test_nothing_in_it_acts_on_a_terminal_or_turns_the_writing(text: str) -> None:
    assert visible(text).isprintable()
    visible(text).encode("utf-8")


def test_what_cannot_be_shown_is_named() -> None:
    assert visible("a\nb\x1b[31m\u202ex\udcff") == "a\\x0ab\\x1b[31m\\u202ex\\xff"


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("кот 猫 1.jpg", "<b>&amp;", "📷.png", 'it\'s "x"'):
        assert visible(name) == name
