"""What a spreadsheet would run is disarmed, and comes back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.spreadsheet import disarmed, rearmed

odd = st.text(alphabet=st.sampled_from(list("'=+-@\t\r\n \uff1d\uff0b\uff0d\uff20ab")), max_size=6)


@given(st.one_of(odd, st.text()))
def test_it_comes_back(text):
    assert rearmed(disarmed(text)) == text


@given(st.one_of(odd, st.text()))
def test_nothing_that_runs_is_left(text):
    assert not disarmed(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


@pytest.mark.parametrize("text", ["", "a=b", "x-1", "it's", "'quoted'", " =1"])
def test_other_text_is_left_as_it_is(text):
    assert disarmed(text) == text
    assert rearmed(text) == text
