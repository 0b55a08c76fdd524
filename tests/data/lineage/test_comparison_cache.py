"""Whatever is kept comes back bit for bit, and only for the pixels and the order that it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.data.decode import FileSignature
from automl_vision.data.lineage import comparison_cache as module
from automl_vision.data.lineage.agreement import Agreement
from automl_vision.data.lineage.comparison_cache import Appearance, ComparisonCache, Signed, comparison_cache
from automl_vision.data.lineage.keypoints import VARIANTS
from automl_vision.data.lineage.originals import Group
from automl_vision.data.lineage.registration import Registration


class Remembered:
    """A store without a file."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.values[key] = value


NUMBER = st.floats(allow_nan=False)
REGISTRATIONS = st.builds(
    Registration,
    st.integers(0, 400),
    st.builds(Agreement, NUMBER, NUMBER, NUMBER, st.tuples(NUMBER, NUMBER)),
    st.sampled_from(sorted(VARIANTS)),
    st.booleans(),
    st.none() | st.lists(NUMBER, min_size=9, max_size=9).map(lambda each: np.array(each).reshape(3, 3)),
)


@given(REGISTRATIONS)
def test_a_registration_comes_back_bit_for_bit(found: Registration) -> None:
    cache = ComparisonCache(Remembered())
    cache.keep_registration("points", ("a", "b"), found)
    again = cache.registration("points", ("a", "b"))
    assert again is not None
    assert (again.inliers, again.agreement, again.variant, again.tiny) == (
        found.inliers,
        found.agreement,
        found.variant,
        found.tiny,
    )
    assert (again.map is None) == (found.map is None)
    assert found.map is None or again.map.tobytes() == found.map.tobytes()
    assert (again.score, again.same, again.perhaps, again.detail) == (
        found.score,
        found.same,
        found.perhaps,
        found.detail,
    )
    assert cache.registration("points", ("b", "a")) is None
    assert cache.registration("laid", ("a", "b")) is None


@given(st.lists(st.floats(width=16, allow_nan=False), min_size=1, max_size=9))
def test_a_descriptor_comes_back_for_its_maker_alone(values: list[float]) -> None:
    store = Remembered()
    descriptor = np.array(values, dtype=np.float16)
    ComparisonCache(store, "net 224").keep_descriptor("a", descriptor)
    again = ComparisonCache(store, "net 224").descriptor("a")
    assert again is not None
    assert again.tobytes() == descriptor.tobytes()
    assert ComparisonCache(store, "net 96").descriptor("a") is None


@given(st.booleans(), st.booleans(), st.lists(st.text(max_size=9), max_size=3))
def test_an_appearance_comes_back(plain: bool, tiny: bool, traces: list[str]) -> None:
    cache, seen = ComparisonCache(Remembered()), Appearance(plain, tiny, tuple(traces))
    cache.keep_appearance("a", seen)
    assert (cache.appearance("a"), cache.appearance("b")) == (seen, None)


def members() -> list[Signed]:
    return [Signed(pixels, FileSignature(f"by {pixels}", 1.5, False), 1000) for pixels in "abc"]


def test_a_group_comes_back_for_the_same_files_in_the_same_order() -> None:
    cache, rng = ComparisonCache(Remembered()), np.random.default_rng(0)
    pairs = rng.normal(size=(3, 3, 14))
    pairs[0, 1] = np.nan
    group = Group(rng.normal(size=(3, 16)), pairs, ("by a", "by b", "ü"), ("3x4",) * 3)
    cache.keep_group(members(), group)
    again = cache.group(members())
    assert again is not None
    assert (again.single.tobytes(), again.pairs.tobytes()) == (group.single.tobytes(), group.pairs.tobytes())
    assert (again.writers, again.sizes) == (group.writers, group.sizes)
    assert cache.group(members()[::-1]) is None
    assert cache.group(members()[:2]) is None
    other = Signed("a", FileSignature("by a", 1.5, True), 1000)
    assert cache.group([other, *members()[1:]]) is None
    assert cache.group([Signed("a", FileSignature("by a", 1.5, False), 1001), *members()[1:]]) is None


def test_without_a_folder_nothing_is_kept() -> None:
    notes: list[str] = []
    with comparison_cache(None, "net", notes) as cache:
        cache.keep_appearance("a", Appearance(True, False, ()))
        assert cache.appearance("a") is None
    assert notes == []


def test_a_change_of_the_code_makes_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    code = Path(module.__file__).parent

    def kept() -> bool:
        monkeypatch.setattr(module, "_VERSION", module._version_of(code))
        with comparison_cache(tmp_path / "cache", "net", notes) as cache:
            found = cache.appearance("a") is not None
            cache.keep_appearance("a", Appearance(True, False, ()))
        return found

    assert [kept(), kept()] == [False, True]
    for name in module._MADE_BY:
        (tmp_path / name).write_bytes((code / name).read_bytes())
    code = tmp_path
    assert kept(), "the same code elsewhere"
    with (tmp_path / "overlay.py").open("a") as edited:
        edited.write("# other\n")
    assert [kept(), kept()] == [False, True]
    (tmp_path / "overlay.py").unlink()
    assert not kept(), "code that cannot be read cannot be told from other code"
    assert notes == []


def test_all_code_that_sees_pictures_is_in_the_version() -> None:
    """Modules that these import from the same folder, and that are no part of it, compute nothing of what is kept."""
    here = Path(module.__file__).parent
    imported = {
        line.split()[1].rpartition(".")[2] + ".py"
        for name in module._MADE_BY
        for line in (here / name).read_text("utf-8").splitlines()
        if line.startswith("from automl_vision.data.lineage.")
    }
    assert imported - set(module._MADE_BY) == {"originals.py"}  # weighs the cues that are kept
