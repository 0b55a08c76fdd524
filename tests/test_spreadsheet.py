"""What a spreadsheet would run is disarmed, and comes back as it was."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.spreadsheet import disarmed, rearmed

odd = st.text(alphabet=st.sampled_from(list("'=+-@\t\r\n ;\uff1d\uff0b\uff0d\uff20ab")), max_size=6)


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


@pytest.mark.parametrize("text", ["a;=HYPERLINK(1)", "a; =1", 'a;"=1', "a\t@x", "a\n-1", ";+1", "=a;=b"])
def test_nothing_runs_where_a_name_is_cut_into_cells(text):
    """As a spreadsheet does where lists are separated by `;`."""
    cells = re.split(r"[;\t\r\n]", disarmed(text))
    assert not [cell for cell in cells if cell.lstrip(' "').startswith(("=", "+", "-", "@"))]
    assert rearmed(disarmed(text)) == text
