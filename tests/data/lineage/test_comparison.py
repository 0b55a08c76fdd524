from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_cases import make_facts, make_manifest
from scenes import clouds, scene, tilting, warped
from sklearn.datasets import load_sample_images
from threadpoolctl import threadpool_info, threadpool_limits

from automl_vision.config import DataSettings
from automl_vision.data.cache_entries import COMPARISONS
from automl_vision.data.decode import FileSignature
from automl_vision.data.facts import Compared
from automl_vision.data.lineage import candidates, comparison, picking, sight
from automl_vision.data.lineage.comparison import compare
from automl_vision.data.lineage.comparison_cache import comparison_cache
from automl_vision.data.lineage.group_sizes import GroupSizes
from automl_vision.data.lineage.neighbours import nearest_pairs
from automl_vision.data.lineage.sight import Sight

FULL = DataSettings(lineage="full")


def pictures() -> list[np.ndarray]:
    """Six strangers, then a mirrored copy of the first and a turned one of the second."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(6):
        coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        made.append(cv2.resize(coarse, (144, 144), interpolation=cv2.INTER_CUBIC))
    return [*made, np.ascontiguousarray(made[0][:, ::-1]), np.ascontiguousarray(np.rot90(made[1]))]


def compared(paths=None, pixels=None, faults=None, images=None, **changes) -> Compared:
    images = images or pictures()
    manifest = make_manifest(paths or [f"a/{i}x.png" for i in range(8)])
    facts = make_facts(manifest, pixels=pixels, faults=faults, width=144, height=144)
    sight = replace(Sight(images.__getitem__, None, threads=2, seconds=math.inf), **changes)
    return compare(manifest, facts, FULL, sight)


def test_copies_are_found_and_strangers_are_not() -> None:
    found = compared()
    assert {tuple(pair) for pair in found.pairs[found.same].tolist()} == {(0, 6), (1, 7)}
    assert found.unchecked == 0
    assert found.tiny == 0


def test_the_number_of_threads_changes_nothing() -> None:
    assert compared(threads=1).to_dict() == compared(threads=5).to_dict()


def test_features_decide_who_is_compared() -> None:
    features = np.eye(8, dtype=np.float32)
    features[6] = features[0] + 0.1
    found = compared(describe=lambda rows, stop: features[rows])
    assert {tuple(pair) for pair in found.pairs[found.same].tolist()} >= {(0, 6)}


def test_pairs_that_are_joined_already_are_passed_over() -> None:
    paths = [f"a/{i}x.png" for i in range(6)] + ["a/0x_hflip.png", "a/7x.png"]
    assert compared(paths).pairs.tolist() == [[1, 7]]


def test_what_names_join_and_pixels_do_not_is_told() -> None:
    paths = [f"a/{i}x.png" for i in range(6)] + ["a/0x_hflip.png", "a/2x_dark.png"]
    found = compared(paths)
    assert found.strangers.tolist() == [[2, 7]]
    assert found.named == 2
    assert [1, 7] in found.pairs.tolist(), "what it does show is found"
    assert compared(paths, seconds=-1.0).named == 0


def test_of_tiny_plain_and_broken_pictures_nothing_is_contradicted() -> None:
    paths = [f"a/{i}x.png" for i in range(6)] + ["a/0x_hflip.png", "a/2x_dark.png"]
    small = [np.ascontiguousarray(image[::3, ::3]) for image in pictures()]
    assert compared(paths, images=small).strangers.tolist() == []
    plain = [*pictures()[:7], np.full((144, 144, 3), 200, np.uint8)]
    assert compared(paths, images=plain).strangers.tolist() == []
    assert compared(paths, faults=[""] * 7 + ["truncated"]).named == 1


def test_a_copy_that_another_copy_leads_to_is_no_contradiction() -> None:
    images = pictures()
    turned = cv2.resize(images[7], (300, 300))  # like the copy beside it, unlike what both are named after
    images = [*images[:3], images[7], images[4], images[5], images[6], np.ascontiguousarray(turned[:, ::-1])]
    found = compared(
        ["a/p.png", "a/q.png", "a/r.png", "a/s_aug_1.png", "a/t.png", "a/u.png", "a/v.png", "a/s_aug_2.png"]
    )
    assert found.strangers.tolist() == [[3, 7]]
    paths = ["a/p.png", "a/q.png", "a/r.png", "a/s_aug_1.png", "a/t.png", "a/u.png", "a/v.png", "a/s_aug_2.png"]
    assert compared(paths, images=images).strangers.tolist() == []


def test_hints_of_siblings_come_last() -> None:
    paths = [f"a/{name}.png" for name in ("p", "q_2", "q_3", "s", "t", "u", "p (1)", "v")]
    features = np.eye(8, dtype=np.float32)
    order: list[int] = []
    images = pictures()

    class Seen(list):
        def __getitem__(self, row: int) -> np.ndarray:
            order.append(row)
            return images[row]

    compared(paths, images=Seen(images), describe=lambda rows, stop: features[rows], threads=1)
    assert set(order[:2]) == {0, 6}
    assert set(order[2:4]) == {1, 2}, "nothing else is near enough; what was not joined is looked at again"


def test_hints_of_names_are_compared_whatever_the_features_say() -> None:
    paths = [f"a/{name}.png" for name in ("p", "q", "r", "s", "t", "u", "p (1)", "v")]
    features = np.eye(8, dtype=np.float32)
    assert [0, 6] in compared(paths, describe=lambda rows, stop: features[rows]).pairs.tolist()


def test_without_time_nothing_is_compared_and_it_is_counted() -> None:
    found = compared(seconds=-1.0)
    assert len(found.pairs) == 0
    assert found.unchecked > 0


def test_without_features_in_time_hints_are_compared_and_the_rest_is_counted() -> None:
    paths = [f"a/{name}.png" for name in ("p", "q", "r", "s", "t", "u", "p (1)", "v")]
    found = compared(paths, describe=lambda rows, stop: None)
    assert found.pairs[found.same].tolist() == [[0, 6]]
    assert found.unchecked == 40


def test_plain_pictures_are_named() -> None:
    images = pictures()
    images[3] = np.full((144, 144, 3), 200, np.uint8)
    images[4] = np.full((144, 144, 3), 90, np.uint8)
    assert compared(images=images).plain.tolist() == [3, 4]


def test_equal_and_broken_pictures_are_not_opened() -> None:
    opened: list[int] = []
    images = pictures()

    def pixels(row: int) -> np.ndarray:
        opened.append(row)
        return images[row]

    manifest = make_manifest([f"a/{i}x.png" for i in range(8)])
    facts = make_facts(manifest, pixels=[0, 1, 2, 3, 4, 5, 0, 7], faults=["", "", "", "", "empty", "", "", ""])
    compare(manifest, facts, FULL, Sight(pixels, None, 1, math.inf))
    assert sorted(set(opened)) == [0, 1, 2, 3, 5, 7]


def test_what_was_compared_survives_json_and_a_smaller_manifest() -> None:
    found = compared()
    again = Compared.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    fewer = found.take(np.array([7, 6, 1]), 8)
    assert fewer.pairs[fewer.same].tolist() == [[0, 2]]
    rows = {"plain": np.array([1, 5]), "resembling": np.array([2, 7])}
    told = replace(found, strangers=np.array([[2, 7], [1, 3]]), named=9, looked=40, left=7, barren=3, **rows)
    assert Compared.from_dict(json.loads(json.dumps(told.to_dict()))).to_dict() == told.to_dict()
    fewer = told.take(np.array([7, 2, 5]), 8)
    assert fewer.strangers.tolist() == [[0, 1]]
    assert (fewer.plain.tolist(), fewer.resembling.tolist()) == ([2], [0, 1])


def photographs() -> list[np.ndarray]:
    """A photograph, copies of it with black corners, and strangers."""
    china = cv2.resize(load_sample_images().images[0], (300, 200), interpolation=cv2.INTER_AREA)
    turned = [cv2.warpAffine(china, cv2.getRotationMatrix2D((150, 100), angle, 1.0), (300, 200)) for angle in (12, -17)]
    return [china, *turned, *pictures()[:5]]


def signed(row: int) -> FileSignature:
    """The copies were written by another program, as coarser JPEG."""
    return FileSignature("copies", 9.0, False) if row in (1, 2) else FileSignature("camera", 1.5, False)


def test_groups_are_judged_where_nothing_stronger_names_their_original() -> None:
    found = compared(images=photographs(), signature=signed)
    assert sorted(found.original) == [0, 1, 2]
    assert max(found.original, key=found.original.__getitem__) == 0
    assert sum(found.original.values()) <= 1 + 1e-9
    named = ["a/0x.png", "a/0x_rot12.png", "a/2x.png", *(f"a/{i}x.png" for i in range(3, 8))]
    assert compared(named, images=photographs(), signature=signed).original == {}
    assert compared(images=photographs(), signature=signed, seconds=-1.0).original == {}


def test_a_twin_has_the_answer_of_the_one_that_was_judged() -> None:
    images = photographs()
    images[5] = images[0]
    found = compared(images=images, pixels=[0, 1, 2, 3, 4, 0, 6, 7], signature=signed)
    assert found.original[5] == found.original[0]


def test_what_looks_augmented_is_marked_and_kept() -> None:
    found = compared(images=photographs(), signature=signed)
    assert sorted(found.marked) == [1, 2]
    again = Compared.from_dict(json.loads(json.dumps(found.to_dict())))
    assert (dict(again.original), dict(again.marked)) == (dict(found.original), dict(found.marked))
    fewer = found.take(np.array([2, 7, 0]), 8)
    assert (sorted(fewer.original), sorted(fewer.marked)) == ([0, 2], [0])


def strangers(n: int) -> list[np.ndarray]:
    """Strangers with so few key points that comparing them takes no time."""
    return [cv2.resize(clouds(seed, side=100), (72, 72)) for seed in range(n)]


def folder(names: list[str], images: list[np.ndarray], features: np.ndarray, seconds: float = math.inf) -> Compared:
    manifest = make_manifest([f"a/{name}.png" for name in names])
    facts = make_facts(manifest, width=72, height=72)
    return compare(manifest, facts, FULL, Sight(images.__getitem__, lambda rows, stop: features[rows], 1, seconds))


WORDS = [f"p{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]


def alike_features(n: int, columns: int = 3) -> np.ndarray:
    """Features of strangers that nevertheless resemble each other: many candidates."""
    return np.random.default_rng(0).normal(size=(n, columns)).astype(np.float32)


def test_in_a_folder_without_copies_the_rest_is_left_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_LAID", 0)
    features = alike_features(60)
    pairs = len(nearest_pairs(features[None]).pairs)
    assert pairs > 300
    found = folder(WORDS, strangers(60), features)
    assert not found.same.any()
    assert found.looked == found.barren == 128, "two lots of 64 are the first that are more than 64"
    assert found.left == pairs - 128
    assert found.unchecked == 0


def test_hints_of_names_are_compared_although_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_LAID", 0)
    features = alike_features(60)
    features[-2:] = np.eye(3, dtype=np.float32)[:2]  # not near: only their names bring them together
    names = [*WORDS[:-2], "q_2", "q_3"]
    images = strangers(60)
    images[-2:] = [pictures()[0][::2, ::2], np.ascontiguousarray(pictures()[0][::2, ::-2])]
    found = folder(names, images, features)
    assert found.left > 0
    assert found.barren == 128
    assert found.pairs[found.same].tolist() == [[58, 59]]
    assert found.looked == 128 + 1


def test_copies_make_it_more_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_LAID", 0)
    features = alike_features(60)
    images = strangers(60)
    for row in range(40, 60):  # copies of the first ones, and the most alike of all
        features[row] = features[row - 40] * 1.0001
        images[row - 40] = cv2.resize(
            np.random.default_rng(row).integers(0, 256, (24, 24, 3), dtype=np.uint8), (72, 72)
        )
        images[row] = np.ascontiguousarray(images[row - 40][:, ::-1])
    looked = []
    monkeypatch.setattr(candidates, "_HELD_AGAINST", 0)
    for per_copy in (0, 10):
        monkeypatch.setattr(comparison, "_PATIENCE_PER_COPY", per_copy)
        found = folder(WORDS, images, features)
        assert len(found.pairs[found.same]) == 20
        looked.append(found.looked)
    assert looked[0] < looked[1]


def test_nothing_is_left_where_all_was_compared() -> None:
    found = compared()
    assert (found.left, found.barren) == (0, 0)
    assert found.looked > 0


def test_what_was_described_in_time_is_compared_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_DESCRIBED", 10)
    features = np.random.default_rng(1).normal(size=(60, 64)).astype(np.float32)
    described: list[int] = []

    def describe(rows: np.ndarray, _stop: float) -> np.ndarray | None:
        if len(described) >= 40:
            return None
        described.extend(rows.tolist())
        return features[rows]

    images = strangers(60)
    order = np.random.default_rng(0).permutation(60)
    inside, outside = sorted(order[:40].tolist()), sorted(order[40:].tolist())
    copies = [(inside[3], inside[20]), (inside[5], outside[4])]
    for original, copy in copies:
        features[copy] = features[original] * 1.01
        images[original] = scene(original, side=96)
        images[copy] = np.ascontiguousarray(images[original][:, ::-1])
    manifest = make_manifest([f"a/{name}.png" for name in WORDS])
    sight = Sight(images.__getitem__, describe, 1, 60.0)
    found = compare(manifest, make_facts(manifest), FULL, sight)
    assert sorted(described) == inside, "no class is left out more than another"
    assert found.pairs[found.same].tolist() == [sorted(copies[0])]
    assert found.unchecked == 20 * 10 // 2


def test_what_resembles_its_nearest_far_more_than_all_others_is_named() -> None:
    features = np.random.default_rng(1).normal(size=(60, 64)).astype(np.float32)
    features[59] = features[7] + 0.3 * features[30]
    found = folder(WORDS, strangers(60), features)
    assert found.resembling.tolist() == [7, 59]
    manifest = make_manifest([f"a/{name}.png" for name in WORDS])
    sight = Sight(strangers(60).__getitem__, None, 1, -1.0)
    assert compare(manifest, make_facts(manifest), FULL, sight).resembling.tolist() == [], "thumbnails cannot tell"


def test_what_resembles_a_group_that_lost_a_copy_a_little_is_named() -> None:
    random = np.random.default_rng(1)
    features = random.normal(size=(1, 65, 256)).astype(np.float32)
    root = np.array([*np.repeat(np.arange(0, 63, 3), 3), 63, 64])
    root[62] = 62  # twenty groups of three, and one of two
    features[0, 63] += 0.4 * features[0, 60]
    features[0, 64] += 0.4 * features[0, 0]
    near, rows = nearest_pairs(features), np.arange(65)
    assert near.nearest[[63, 64]].max() < comparison._STANDS_OUT_COSINE
    named = comparison._resembling(rows, near, GroupSizes.of(root, rows)).tolist()
    assert 63 in named
    assert 64 not in named, "that group has all its copies"
    assert comparison._resembling(rows, near, GroupSizes.of(np.arange(65), rows)).tolist() == []


def test_what_key_points_do_not_find_is_laid_over(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [clouds(seed) for seed in range(6)]
    images += [np.ascontiguousarray(warped(images[0], tilting())[:, ::-1]), 255 - images[1]]
    features = np.eye(8, dtype=np.float32)
    features[6:] = features[:2] + 0.1
    found = compared(images=images, describe=lambda rows, stop: features[rows])
    assert {tuple(pair) for pair in found.pairs[found.same].tolist()} == {(0, 6), (1, 7)}
    monkeypatch.setattr(candidates, "_LAID", 0)
    monkeypatch.setattr(candidates, "_ALL_WAYS", 0)
    found = compared(images=images, describe=lambda rows, stop: features[rows])
    assert (0, 6) not in {tuple(pair) for pair in found.pairs[found.same].tolist()}


def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each step that opens or compares pictures is taken from now on."""
    counted: Counter[str] = Counter()

    def counting(module: object, name: str) -> None:
        real = getattr(module, name)

        def count(*given: object) -> object:
            counted[name] += 1
            return real(*given)

        monkeypatch.setattr(module, name, count)

    for name in ("describe_picture", "register", "lay_over", "look_again", "traces"):
        counting(sight, name)
    counting(picking, "register")
    counting(picking, "sample")
    return counted


def shown(counted: Counter[str]) -> Callable[[np.ndarray, float], np.ndarray]:
    """Descriptors that the first pictures and their copies share, whatever their rows."""
    features = np.random.default_rng(1).normal(size=(9, 64)).astype(np.float32)
    features[[1, 2, 6, 7]] = features[[0, 0, 0, 1]] + 0.2

    def describe(rows: np.ndarray, stop: float) -> np.ndarray:
        counted["described"] += len(rows)
        return features[rows]

    return describe


def kept_in(folder: Path, notes: list[str], **changes: object) -> dict[str, object]:
    with comparison_cache(folder, "test", notes) as cache:
        found = compared(cache=cache, signature=signed, **changes)
    assert notes == []
    return found.to_dict()


@pytest.mark.parametrize("with_features", [True, False])
def test_a_second_run_looks_at_nothing_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_features: bool
) -> None:
    counted = looked_at(monkeypatch)
    named = ["a/0x.png", *(f"a/{i}x.png" for i in range(1, 7)), "a/3x_dark.png"]
    given = {"images": photographs(), "paths": named, "describe": shown(counted) if with_features else None}
    without = compared(signature=signed, **given).to_dict()
    assert without["original"], "groups are judged"
    assert without["marked"]
    assert without["strangers"]
    first = kept_in(tmp_path, [], **given)
    assert min(counted[name] for name in ("describe_picture", "register", "lay_over", "sample")) > 0
    counted.clear()
    assert kept_in(tmp_path, [], **given) == first == without
    assert not counted


def test_a_picture_that_is_added_costs_only_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = looked_at(monkeypatch)
    images = [*photographs(), np.ascontiguousarray(photographs()[0][:, ::-1])]
    paths = [f"a/{i}x.png" for i in range(9)]
    given = {"images": images, "describe": shown(counted)}
    kept_in(tmp_path, [], paths=paths[:8], **given)
    before = counted.copy()
    counted.clear()
    found = kept_in(tmp_path, [], paths=paths, **given)
    assert counted["described"] == 1
    assert 0 < counted["register"] < before["register"]
    counted.clear()
    assert compared(paths=paths, signature=signed, **given).to_dict() == found


def test_renamed_files_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = looked_at(monkeypatch)
    pixels = list(range(8))
    first = kept_in(tmp_path, [], images=photographs(), pixels=pixels)
    counted.clear()
    renamed = kept_in(tmp_path, [], images=photographs(), pixels=pixels, paths=[f"a/{i}y.png" for i in range(8)])
    assert renamed == first
    assert not counted


@pytest.fixture(scope="module")
def sound_cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, object]]:
    """The file that comparing `pictures` left, and what it found."""
    folder = tmp_path_factory.mktemp("sound")
    with comparison_cache(folder, "test", []) as cache:
        found = compared(cache=cache).to_dict()
    return (folder / COMPARISONS).read_bytes(), found


@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=200))
@settings(max_examples=10, deadline=None)
def test_a_damaged_cache_changes_no_result(
    tmp_path_factory: pytest.TempPathFactory, sound_cache: tuple[bytes, dict[str, object]], at: int, scribble: bytes
) -> None:
    sound, found = sound_cache
    content = bytearray(sound)
    start = at % len(content)
    content[start : start + len(scribble)] = scribble
    folder = tmp_path_factory.mktemp("cache")
    (folder / COMPARISONS).write_bytes(content)
    with comparison_cache(folder, "test", []) as cache:
        assert compared(cache=cache).to_dict() == found


def test_a_comparison_that_is_stopped_leaves_the_threads_of_others_alone() -> None:
    def threads() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    def stopped(rows: np.ndarray, stop: float) -> np.ndarray:
        raise KeyboardInterrupt

    with threadpool_limits(2, "blas"):
        before = threads()
        with pytest.raises(KeyboardInterrupt):
            compared(describe=stopped)
        assert threads() == before
        assert set(before) == {2}
