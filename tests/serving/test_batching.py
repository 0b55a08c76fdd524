"""Every image gets its own answer, batches are shared, and failures stay where they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.serving.batching import Batcher, powers_of_two
from automl_vision.serving.limits import Busy


class Doubling:
    """Doubles numbers and remembers the batches; negative ones make the whole batch fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, batch: Sequence[int]) -> list[int]:
        assert self.go.wait(60)
        self.batches.append(list(batch))
        self.threads.add(threading.get_ident())
        if any(each < 0 for each in batch):
            raise ArithmeticError(f"a negative one among {len(batch)}")
        return [2 * each for each in batch]


def run(
    model: Any, ask: Callable[[Batcher[int, int]], Any], *, size: int = 8, room: int = 1000, wait: float = 0.0
) -> Any:
    async def whole() -> Any:
        async with Batcher(model, size=size, patience=wait, room=room) as batcher:
            return await ask(batcher)

    return asyncio.run(whole())


@settings(max_examples=50, deadline=None)
@given(requests=st.lists(st.lists(st.integers(-2, 50), max_size=7), max_size=12), size=st.integers(1, 9))
def test_everyone_gets_their_own_answer_or_their_own_failure(requests: list[list[int]], size: int) -> None:
    model = Doubling()

    async def ask(batcher: Batcher[int, int]) -> list[list[Any]]:
        coming = [batcher.submit(request) for request in requests]
        return [list(await asyncio.gather(*each, return_exceptions=True)) for each in coming]

    answers = run(model, ask, size=size)
    for request, answer in zip(requests, answers, strict=True):
        assert len(answer) == len(request)
        for number, got in zip(request, answer, strict=True):
            assert isinstance(got, ArithmeticError) if number < 0 else got == 2 * number
    assert all(1 <= len(batch) <= size for batch in model.batches)
    assert all(len(batch).bit_count() == 1 for batch in model.batches)
    assert len(model.threads) <= 1


@given(st.lists(st.integers(), max_size=300))
def test_parts_are_powers_of_two_and_nothing_is_lost(batch: list[int]) -> None:
    parts = list(powers_of_two(batch))
    assert [each for part in parts for each in part] == batch
    lengths = [len(part) for part in parts]
    assert all(length.bit_count() == 1 for length in lengths)
    assert lengths == sorted(set(lengths), reverse=True)


def test_those_who_wait_while_the_model_is_busy_share_the_next_passes() -> None:
    model = Doubling()
    model.go.clear()

    async def ask(batcher: Batcher[int, int]) -> None:
        first = batcher.submit([0])
        while batcher.waiting:
            await asyncio.sleep(0.001)
        others = [batcher.submit([number])[0] for number in range(1, 21)]
        model.go.set()
        await asyncio.gather(*first, *others)
        assert batcher.passes == 4
        assert batcher.answered == 21

    run(model, ask, size=8)
    assert [len(batch) for batch in model.batches] == [1, 8, 8, 4]


def test_patience_lets_others_join() -> None:
    model = Doubling()

    async def ask(batcher: Batcher[int, int]) -> None:
        first = batcher.submit([1])
        await asyncio.sleep(0.05)
        assert not first[0].done()
        await asyncio.gather(*first, *batcher.submit([2, 3, 4]))

    run(model, ask, size=4, wait=60.0)  # full after four: nobody waits for the minute to pass
    assert model.batches == [[1, 2, 3, 4]]


def test_nobody_is_queued_where_not_all_fit() -> None:
    model = Doubling()
    model.go.clear()

    async def ask(batcher: Batcher[int, int]) -> None:
        running = batcher.submit([1])
        while batcher.waiting:
            await asyncio.sleep(0.001)
        waiting = batcher.submit([2, 3])
        with pytest.raises(Busy):
            batcher.submit([4, 5])
        assert batcher.waiting == 2
        assert not batcher.full
        waiting += batcher.submit([6])
        assert batcher.full
        model.go.set()
        assert await asyncio.gather(*running, *waiting) == [2, 4, 6, 12]

    run(model, ask, room=3)


def test_who_left_is_not_answered_and_costs_no_pass() -> None:
    model = Doubling()
    model.go.clear()

    async def ask(batcher: Batcher[int, int]) -> None:
        running = batcher.submit([1])
        while batcher.waiting:
            await asyncio.sleep(0.001)
        left, stayed = batcher.submit([2]), batcher.submit([3])
        left[0].cancel()
        model.go.set()
        assert await asyncio.gather(*running, *stayed) == [2, 6]

    run(model, ask)
    assert model.batches == [[1], [3]]


def test_a_model_that_answers_too_few_fails_what_was_asked() -> None:
    async def ask(batcher: Batcher[int, int]) -> list[Any]:
        return await asyncio.gather(*batcher.submit([1, 2]), return_exceptions=True)

    for answer in run(lambda _batch: [], ask):
        assert isinstance(answer, RuntimeError)
