"""Batches that are fetched ahead: those of the source, from buffers that are not written while they are copied."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from late_transfer import LateTransfer

from automl_vision.models import prefetched_images
from automl_vision.models.device_images import DeviceImages, on_device
from automl_vision.models.image_source import release
from automl_vision.models.prefetched_images import CudaTransfer, PrefetchedImages

CPU = torch.device("cpu")
ROWS = 12
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


class Counted:
    """A source of 12 images in two sizes that remembers what was fetched, and in which thread; row 11 is sealed."""

    sizes = (4, 8)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._squares = {
            side: torch.randint(0, 256, (ROWS, side, side, 3), dtype=torch.uint8, generator=generator)
            for side in self.sizes
        }
        self.fetched: list[tuple[int, ...]] = []
        self.here: list[bool] = []
        self.caller = threading.get_ident()
        self.gate = threading.Event()
        self.gate.set()

    def plane_for(self, size: int) -> int:
        return next((side for side in self.sizes if side >= size), 8)

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        here = threading.get_ident() == self.caller
        assert here or self.gate.wait(20)
        if 11 in rows:
            raise PermissionError("row 11 is sealed")
        self.fetched.append(tuple(rows.tolist()))
        self.here.append(here)
        return self._squares[size][rows].permute(0, 3, 1, 2)


def prefetched(source: Counted | None = None, transfer: LateTransfer | None = None) -> PrefetchedImages:
    return PrefetchedImages(source or Counted(), transfer or LateTransfer())


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


calls = st.lists(
    st.tuples(
        st.sampled_from(["expect", "fetch"]),
        st.lists(st.integers(0, 10), min_size=1, max_size=5),
        st.sampled_from([4, 8]),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(calls, st.integers(0, 2))
def test_batches_are_those_of_the_source_whatever_was_expected(
    asked: list[tuple[str, list[int], int]], ahead: int
) -> None:
    """Any order of the two calls, and training's own: every batch announced some steps before it is asked for."""
    source, images = Counted(), prefetched()
    announced = [(("expect", *each[1:]), each) for each in asked]
    shifted = [early for early, _ in announced[:ahead]]
    for number, (_, each) in enumerate(announced):
        shifted += [announced[number + ahead][0]] if number + ahead < len(announced) else []
        shifted.append(each)
    for what, numbers, size in shifted:
        if what == "expect":
            images.expect(rows(*numbers), size)
            continue
        found = images.fetch(rows(*numbers), size)
        assert torch.equal(found, source.fetch(rows(*numbers), size))
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_what_is_expected_is_fetched_in_the_thread_and_once() -> None:
    source = Counted()
    images = prefetched(source)
    for batch in (rows(1, 2), rows(3), rows(1, 2)):
        images.expect(batch, 8)
    for batch in (rows(1, 2), rows(3), rows(4)):
        images.fetch(batch, 8)
    assert source.fetched == [(1, 2), (3,), (4,)]
    assert source.here == [False, False, True]
    images.fetch(rows(1, 2), 8)  # what was given is not kept
    assert source.here[3:] == [True]


def test_the_caller_goes_on_while_a_batch_is_fetched() -> None:
    source = Counted()
    images = prefetched(source)
    source.gate.clear()
    images.expect(rows(1, 2), 8)
    assert source.fetched == []
    assert torch.equal(images.fetch(rows(3), 8), source.fetch(rows(3), 8))
    source.gate.set()
    assert len(images.fetch(rows(1, 2), 8)) == 2


def test_a_buffer_is_written_again_only_when_its_copy_is_done() -> None:
    source, transfer = Counted(), LateTransfer()
    ring = prefetched_images._Ring(transfer)
    sent = [ring.send(source.fetch(rows(number, number + 1), 8)) for number in range(7)]
    for number, (pixels, done) in enumerate(sent):
        done.synchronize()
        assert torch.equal(pixels, source.fetch(rows(number, number + 1), 8))
    assert transfer.buffers == [2 * 3 * 8 * 8] * prefetched_images._BUFFERS  # and no more of them are made


def test_a_larger_batch_gets_a_larger_buffer_and_a_smaller_one_part_of_it() -> None:
    source, transfer = Counted(), LateTransfer()
    ring = prefetched_images._Ring(transfer)
    batches = [rows(*range(count)) for count in (1, 2, 3, 2, 1, 5, 1, 1, 1)]
    for batch in batches:
        pixels, done = ring.send(source.fetch(batch, 4))
        done.synchronize()
        assert torch.equal(pixels, source.fetch(batch, 4))
    assert transfer.buffers == [48 * count for count in (1, 2, 3, 2, 5)]


def test_what_the_thread_stumbled_over_is_raised_where_the_batch_is_asked_for() -> None:
    images = prefetched()
    images.expect(rows(3, 11), 8)
    images.expect(rows(4), 5)  # a size that is not stored
    assert len(images.fetch(rows(2), 8)) == 1
    with pytest.raises(PermissionError, match="sealed"):
        images.fetch(rows(3, 11), 8)
    with pytest.raises(KeyError):
        images.fetch(rows(4), 5)
    images.expect(rows(5), 8)  # and the thread goes on
    assert len(images.fetch(rows(5), 8)) == 1


def test_a_sealed_row_that_was_not_expected_is_refused_as_well() -> None:
    with pytest.raises(PermissionError, match="sealed"):
        prefetched().fetch(rows(11), 8)


class Full(LateTransfer):
    def buffer(self, count: int) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")


def test_without_room_to_fetch_ahead_batches_are_fetched_when_they_are_asked_for() -> None:
    source = Counted()
    images = prefetched(source, Full())
    images.expect(rows(1, 2), 8)
    assert torch.equal(images.fetch(rows(1, 2), 8), source.fetch(rows(1, 2), 8))
    assert source.here == [False, True, True]


def test_what_nobody_asked_for_gives_way() -> None:
    source = Counted()
    images = prefetched(source)
    for number in range(prefetched_images._MOST_COMING + 2):
        images.expect(rows(number), 8)
    assert len(images._coming) == prefetched_images._MOST_COMING
    for number in range(prefetched_images._MOST_COMING + 2):
        images.fetch(rows(number), 8)
    assert source.here.count(True) == 2  # the two oldest


def test_nothing_is_expected_of_an_empty_batch() -> None:
    source = Counted()
    images = prefetched(source)
    images.expect(rows(), 8)
    assert not images.release()


def test_what_is_released_is_fetched_anew() -> None:
    source = Counted()
    images = prefetched(source)
    images.expect(rows(1), 8)
    assert images.release()
    assert not images.release()
    images.fetch(rows(1), 8)
    assert source.here[-1]
    images.expect(rows(2), 8)  # it goes on fetching ahead
    images.fetch(rows(2), 8)
    assert not source.here[-1]


def test_images_that_do_not_stay_on_the_device_release_those_on_their_way() -> None:
    ahead = prefetched()
    images = DeviceImages(ahead, torch.arange(3), CPU, 0)
    images.expect(rows(1), 8)
    assert not images.release()  # memory that is needed again before the next step is none that was gained
    assert not ahead.release()
    assert not release(Counted())  # keeps nothing


def test_images_on_a_device_are_filled_with_what_was_fetched_ahead() -> None:
    source = Counted()
    images = DeviceImages(prefetched(source), torch.arange(6), CPU, 10**6)
    for _ in range(2):
        images.expect(rows(1, 2), 8)
        images.fetch(rows(1, 2), 8)
    assert source.here == [False]


def test_sizes_are_those_of_the_source() -> None:
    images = prefetched()
    assert (images.sizes, images.plane_for(5)) == ((4, 8), 8)


#: A program that ends while batches are on their way.
ENDS = """
import sys
sys.path[:0] = sys.argv[1:]
from test_prefetched_images import prefetched, rows
images = prefetched()
for number in range(4):
    images.expect(rows(number), 8)
print("said")
"""


def test_a_process_ends_with_batches_on_their_way() -> None:
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "doubles")]
    ended = subprocess.run([sys.executable, "-c", ENDS, *folders], capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "said\n", "")


def test_the_thread_ends_with_the_images() -> None:
    images = prefetched()
    images.expect(rows(1), 8)
    images.fetch(rows(1), 8)
    (thread,) = images._thread._threads
    del images
    thread.join(20)
    assert not thread.is_alive()


def test_the_cpu_fetches_nothing_ahead() -> None:
    source = Counted()
    assert on_device(source, (torch.arange(3),), CPU) is source


@needs_gpu
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_gpu_sees_the_batches_of_the_source(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from automl_vision.models import device_images

    monkeypatch.setattr(device_images, "MEMORY_SHARE", share)
    gpu, source = torch.device("cuda"), Counted()
    images = on_device(Counted(), (torch.arange(ROWS - 1),), gpu)
    assert isinstance(images, DeviceImages)
    batches = [rows(number % 11, (3 * number) % 11) for number in range(50)]
    for batch, later in zip(batches, (*batches[2:], rows(), rows()), strict=True):
        images.expect(later, 8)
        found = images.fetch(batch, 8)
        torch.ones(1 << 20, device=gpu).sum()  # something else wants the memory of copies that are done
        assert found.device.type == "cuda"
        assert torch.equal(found.cpu(), source.fetch(batch, 8))


@needs_gpu
def test_a_gpu_copies_from_pinned_memory() -> None:
    transfer = CudaTransfer(torch.device("cuda"))
    assert transfer.buffer(10).is_pinned()
