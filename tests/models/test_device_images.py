"""Images that stay on the device: the very batches of their source, each copied once, and nothing that is sealed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.models import device_images
from automl_vision.models.device_images import DeviceImages, on_device

CPU = torch.device("cpu")
ROWS = 12


class Counted:
    """A source of 12 images in two sizes that remembers what was fetched and refuses row 11."""

    sizes = (4, 8)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._squares = {
            side: torch.randint(0, 256, (ROWS, side, side, 3), dtype=torch.uint8, generator=generator)
            for side in self.sizes
        }
        self.fetched: list[tuple[int, int]] = []
        self.expected: list[tuple[int, int]] = []

    def expect(self, rows: torch.Tensor, size: int) -> None:
        self.expected += [(int(row), size) for row in rows]

    def plane_for(self, size: int) -> int:
        return next((side for side in self.sizes if side >= size), 8)

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        if 11 in rows:
            raise PermissionError("row 11 is sealed")
        self.fetched += [(int(row), size) for row in rows]
        return self._squares[size][rows].permute(0, 3, 1, 2)


def kept_rows() -> torch.Tensor:
    return torch.tensor([2, 9, 4, 0, 7, 3])


batches = st.lists(
    st.tuples(st.lists(st.integers(0, 10), min_size=1, max_size=8), st.sampled_from([4, 8])), min_size=1, max_size=12
)


@given(batches, st.sampled_from([0, 6 * 3 * 16, 10_000]))
def test_batches_are_those_of_the_source_whatever_fits(asked: list[tuple[list[int], int]], most_bytes: int) -> None:
    images, source = DeviceImages(Counted(), kept_rows(), CPU, most_bytes), Counted()
    for rows, size in asked:
        found, expected = images.fetch(torch.tensor(rows), size), source.fetch(torch.tensor(rows), size)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_an_image_is_copied_once_and_all_others_come_from_the_source() -> None:
    source = Counted()
    images = DeviceImages(source, kept_rows(), CPU, 10_000)
    for rows in ([2, 9], [9, 4], [2, 9, 4]):
        images.fetch(torch.tensor(rows), 8)
    assert source.fetched == [(2, 8), (9, 8), (4, 8)]
    images.fetch(torch.tensor([2, 5]), 8)
    assert source.fetched[3:] == [(2, 8), (5, 8)]
    images.fetch(torch.tensor([2]), 4)
    assert source.fetched[5:] == [(2, 4)]


def test_what_does_not_fit_comes_from_the_source_every_time() -> None:
    source = Counted()
    images = DeviceImages(source, kept_rows(), CPU, 6 * 3 * 8 * 8 - 1)
    for _ in range(2):
        images.fetch(torch.tensor([2]), 8)
        images.fetch(torch.tensor([2]), 4)
    assert source.fetched == [(2, 8), (2, 4), (2, 8)]


def test_no_room_after_all_costs_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Counted()
    images = DeviceImages(source, kept_rows(), CPU, 10_000)

    def full(*_arguments: object, **_options: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch, "empty", full)
    assert images.fetch(torch.tensor([2, 9]), 8).shape == (2, 3, 8, 8)


def test_sealed_rows_stay_sealed() -> None:
    images = DeviceImages(Counted(), torch.arange(ROWS), CPU, 10_000)
    images.fetch(torch.arange(11), 8)
    for _ in range(2):
        with pytest.raises(PermissionError, match="sealed"):
            images.fetch(torch.tensor([3, 11]), 8)


def test_a_size_that_is_not_stored_is_the_source_s_business() -> None:
    images = DeviceImages(Counted(), kept_rows(), CPU, 10_000)
    with pytest.raises(KeyError):
        images.fetch(torch.tensor([2]), 5)
    assert (images.sizes, images.plane_for(5)) == ((4, 8), 8)


def test_the_cpu_keeps_its_source() -> None:
    source = Counted()
    assert on_device(source, (kept_rows(),), CPU) is source


@pytest.mark.parametrize(
    ("free", "share", "kept"), [(800, 1.0, 400), (800, 0.5, 200), (300, 0.5, 150), (800, 0.25, 75)]
)
def test_a_process_beside_others_keeps_what_is_free_within_its_share_of_all_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, share: float, kept: int
) -> None:
    """Half of it, on a GPU of 1000 bytes of which it has 100; others may have taken theirs already."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(device_images, "CudaTransfer", lambda device: None)
    monkeypatch.setattr(device_images, "PrefetchedImages", lambda source, transfer: source)
    images = on_device(Counted(), (kept_rows(),), torch.device("cuda"), share)
    assert isinstance(images, DeviceImages)
    assert images._free == kept


def test_what_is_released_comes_from_the_source_from_then_on() -> None:
    source = Counted()
    images = DeviceImages(source, kept_rows(), CPU, 10_000)
    assert not DeviceImages(source, kept_rows(), CPU, 10_000).release()
    before = images.fetch(torch.tensor([2, 9]), 8)
    assert images.release()
    assert not images.release()
    for _ in range(2):
        assert torch.equal(images.fetch(torch.tensor([2, 9]), 8), before)
    assert source.fetched == 3 * [(2, 8), (9, 8)]


def test_what_is_expected_and_not_on_the_device_is_expected_of_the_source() -> None:
    source = Counted()
    images = DeviceImages(source, kept_rows(), CPU, 6 * 3 * 8 * 8)
    images.fetch(torch.tensor([2, 9]), 8)
    for rows in ([2, 9], [2, 4], [2, 5]):  # all kept, one not yet, one that never is
        images.expect(torch.tensor(rows), 8)
    assert source.expected == [(4, 8), (2, 8), (5, 8)]
    images.expect(torch.tensor([2]), 4)  # there is no room for this size
    assert source.expected[3:] == [(2, 4)]
    images.release()
    images.expect(torch.tensor([2]), 8)
    assert source.expected[4:] == [(2, 8)]
