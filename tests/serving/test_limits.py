"""Nobody gets more than their rate, whenever they ask; room that was taken is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.serving import limits
from automl_vision.serving.limits import Busy, ClientRates, Shares, client_of, is_this_machine


@given(
    pauses=st.lists(st.floats(0, 30), max_size=60),
    per_minute=st.floats(1, 600),
    burst=st.integers(1, 10),
)
def test_no_window_grants_more_than_the_burst_and_the_rate(pauses: list[float], per_minute: float, burst: int) -> None:
    clock = [0.0]
    rates = ClientRates(per_minute, burst, lambda: clock[0])
    granted = []
    for pause in pauses:
        clock[0] += pause
        wait = rates.wait("a")
        assert wait >= 0
        granted += [clock[0]] * (wait == 0)
    for first, start in enumerate(granted):
        for last in range(first, len(granted)):
            assert last - first + 1 <= burst + per_minute / 60 * (granted[last] - start) + 1e-6


def test_who_waits_as_long_as_told_is_let_in() -> None:
    clock = [0.0]
    rates = ClientRates(6, 1, lambda: clock[0])
    assert rates.wait("a") == 0
    wait = rates.wait("a")
    assert wait == pytest.approx(10)
    clock[0] += wait
    assert rates.wait("a") == 0


def test_clients_have_rates_of_their_own_and_zero_is_no_limit() -> None:
    rates = ClientRates(1, 1, lambda: 0.0)
    assert [rates.wait(each) == 0 for each in "aabba"] == [True, False, True, False, False]
    free = ClientRates(0, 1, lambda: 0.0)
    assert [free.wait("a") for _ in range(100)] == [0] * 100


def test_clients_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_CLIENTS", 3)
    rates = ClientRates(1, 1, lambda: 0.0)
    for client in "abcd":
        rates.wait(client)
    assert len(rates._buckets) == 3
    assert rates.wait("d") > 0
    assert rates.wait("a") == 0  # who was away longest begins anew


def test_shares_are_given_back_whatever_happens() -> None:
    held = Shares(10)
    with held.hold("a", 6):
        with pytest.raises(Busy), held.hold("a", 5):
            raise AssertionError("there was no room")
        with held.hold("b", 4):
            assert held.taken == 10
    with pytest.raises(KeyError), held.hold("a", 10):
        raise KeyError
    assert held.taken == 0


def test_a_share_grows_as_far_as_there_is_room_and_is_given_back_whole() -> None:
    held = Shares(10)
    with held.hold("a") as share:
        share.grow(7)
        with pytest.raises(Busy):
            share.grow(4)
        share.grow(3)
        assert (share.count, held.taken) == (10, 10)
    assert held.taken == 0
    assert not held._each, "clients are forgotten"


def test_one_client_has_no_more_than_its_share_unless_it_is_this_machine() -> None:
    held = Shares(10, of_one=4)
    with held.hold("192.0.2.1", 4):
        with pytest.raises(Busy), held.hold("192.0.2.1", 1):
            raise AssertionError("it had its share")
        with held.hold("192.0.2.2", 4), pytest.raises(Busy), held.hold("127.0.0.1", 3):
            raise AssertionError("there was no room")
        with held.hold("127.0.0.1", 6):
            assert held.taken == 10


@pytest.mark.parametrize(
    ("host", "client", "own"),
    [
        ("192.0.2.7", "192.0.2.7", False),
        ("::ffff:192.0.2.7", "192.0.2.7", False),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.3.2.1", "127.3.2.1", True),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", False),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64", False),
        ("fe80::1%eth0", "fe80::/64", False),
        ("::1", "::1", True),
        ("", "", True),
    ],
)
def test_whom_an_address_belongs_to(host: str, client: str, own: bool) -> None:
    assert client_of(host) == client
    assert is_this_machine(client) == own
