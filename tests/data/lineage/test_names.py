"""Naming schemes of the usual tools, and ordinary names that only look like them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from lineage_cases import make_manifest

from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.names import NAME_RULES, read_names

HEX = "0123456789abcdef" * 2
UUID = "0b1c2d3e-4f50-4a61-8b72-9c8d7e6f5a4b"
UUID2 = "1b1c2d3e-4f50-4a61-8b72-9c8d7e6f5a4b"

#: scheme -> how copy j of `{stem}.jpg` is called; all of these name their source.
NAMING_SCHEMES = {
    "suffix": "{stem}_aug{j}.jpg",
    "suffix2": "{stem}_aug_{j}.jpg",
    "augmented": "{stem}_augmented_{j}.png",
    "prefix": "aug_{j}_{stem}.jpg",
    "keras_stem": "{stem}_0_{big}.jpeg",
    "augmentor": "output/cls_original_{stem}.jpg_{uuid}.jpg",
    "imgaug": "{stem}_imgaug_{j}.jpg",
    "opname": "{stem}_{op}.jpg",
    "opname_number": "{stem}_{op}_{j}.jpg",
    "opname_chain": "{stem}-{op}-rot90.jpg",
    "opprefix": "{op}_{stem}.jpg",
    "opprefix_chain": "{op}_rotated_{stem}.jpg",
    "degrees": "{stem}_rot_{j}deg.jpg",
    "folder": "augmented/{stem}_{j}.jpg",
    "folder_same_name": "aug/{stem}.png",
    "folder_prefix": "augmented_images/{j}_0_{stem}.jpg",
    "folder_paren": "generated/{stem} ({j}).jpg",
    "keras_preview": "preview/{stem}_{j}_{big}.jpeg",
    "roboflow": "{stem}_jpg.rf.{hex}.jpg",
}
OPERATIONS = ("flip", "blur", "dark")


def copies_of(scheme: str, stem: str) -> list[str]:
    """Two copies, or one where the scheme has no number."""
    made = []
    for j, op in enumerate(OPERATIONS[:2], start=1):
        big, uuid, hexes = 4000 + 37 * j, UUID[:-1] + str(j), f"{j:x}{HEX[1:]}"
        made.append(NAMING_SCHEMES[scheme].format(stem=stem, j=j, op=op, big=big, uuid=uuid, hex=hexes))
    return list(dict.fromkeys(made))


def grouped(paths: list[str], labels: list[str] | None = None) -> dict[str, int]:
    manifest = make_manifest(paths, labels)
    root = connected(len(paths), read_names(manifest).links)
    return dict(zip(paths, root.tolist(), strict=True))


def claims(paths: list[str], labels: list[str] | None = None) -> dict[str, str]:
    return dict(zip(paths, read_names(make_manifest(paths, labels)).claims.tolist(), strict=True))


@pytest.mark.parametrize("stem", ["IMG_0001", "photo", "cat 12", "n01440764_10026", "Größe", "a.b"])
@pytest.mark.parametrize("scheme", NAMING_SCHEMES)
def test_a_copy_joins_its_original(scheme: str, stem: str) -> None:
    original, strangers = f"cls/{stem}.jpg", ["cls/zebra7.jpg", "cls/IMG_0002.jpg"]
    if scheme == "prefix" and not re.search(r"[^\W\d_]", stem):
        pytest.skip("a prefix needs a letter after it")
    copies = [f"cls/{name}" for name in copies_of(scheme, stem)]
    paths = sorted([original, *strangers, *copies])
    group, claim = grouped(paths), claims(paths)
    assert {group[copy] for copy in copies} == {group[original]}
    assert {claim[copy] for copy in copies} == {"copy"}
    assert claim[original] == "original"
    for stranger in strangers:
        assert group[stranger] != group[original]
        assert claim[stranger] == ""


@pytest.mark.parametrize("scheme", NAMING_SCHEMES)
def test_two_labels_are_never_joined_by_a_name(scheme: str) -> None:
    copies = [f"dog/{name}" for name in copies_of(scheme, "photo1")]
    group = grouped(["cat/photo1.jpg", "cat/photo1_flip.jpg", "cat/augmented/photo1.jpg", *copies])
    assert group["cat/photo1.jpg"] not in {group[copy] for copy in copies}


NATURAL_NAMES = {
    "film": ["dark_knight.jpg", "scale_model_3.jpg", "crop_circle.jpg", "blur_band.jpg", "snow_leopard.jpg"],
    "camera": ["IMG_0001_2.jpg", "IMG_0001_3.jpg", "IMG_20230101_123456.jpg", "IMG_20230101_123457.jpg"],
    "numbers": ["00012.png", "00013.png", "1.png", "2.png"],
    "frames": ["frame_12.jpg", "frame_13.jpg", "video_1_2.jpg", "video_1_3.jpg"],
    "no_anchor": ["test_rotated.jpg", "other.jpg"],
    "grid": ["image_0_1.png", "image_0_2.png", "image_1_1.png", "image_512_1024.png"],
    "kinds": ["chair_dark_1.jpg", "chair_dark_2.jpg", "chair_light_1.jpg", "chair_gray_7.jpg"],
    "numbered": ["photo.jpg", "photo_2.jpg", "photo-3.jpg", "photo (4).jpg", "photo - Copy.jpg"],
    "twice_numbered": ["photo.jpg", "photo_1_2.jpg", "photo_001_002.jpg"],
    "clodsa": ["photo.jpg", "0_1_photo.jpg"],
    "dates": ["aug_12_2020.jpg", "aug_13_2020.jpg", "jul_30_2020.jpg"],
    "flower": ["flip_flop.jpg", "mirror_lake.jpg", "rain_forest_2.jpg", "light_bulb.jpg", "bulb.jpg"],
    "odd": ["_.jpg", "...jpg", ".jpg", "aug.jpg", "flip.jpg", "_aug_.jpg", "noextension"],
}


@pytest.mark.parametrize("names", NATURAL_NAMES.values(), ids=NATURAL_NAMES)
def test_ordinary_names_mean_nothing(names: list[str]) -> None:
    read = read_names(make_manifest([f"cls/{name}" for name in names]))
    assert read.links == ()
    assert set(read.claims) == {""}


def test_numbered_names_are_left_as_candidates_for_pixels() -> None:
    manifest = make_manifest(["cls/0_1_photo.jpg", "cls/photo (4).jpg", "cls/photo.jpg", "cls/photo_2.jpg"])
    candidates = read_names(manifest).candidates
    assert {(link.first, link.second) for link in candidates} == {(0, 2), (1, 2), (2, 3)}


def test_copies_of_one_source_hold_each_other_where_the_word_is_unmistakable() -> None:
    paths = ["cls/a1_aug_0.jpg", "cls/a1_aug_1.jpg", "cls/b1_aug_0.jpg", "cls/c.jpg"]
    group, claim = grouped(paths), claims(paths)
    assert group[paths[0]] == group[paths[1]] != group[paths[2]]
    assert list(claim.values()) == ["copy", "copy", "", ""]


def test_a_copy_of_a_copy_joins_through_the_copy_that_is_there() -> None:
    paths = ["cls/x_flip.jpg", "cls/x_flip_rot90.jpg"]
    assert len(set(grouped(paths).values())) == 1
    assert claims(paths)["cls/x_flip.jpg"] == "original"


def test_same_source_is_unsure_until_the_source_is_there() -> None:
    pair = [f"cls/x_jpg.rf.{HEX}.jpg", f"cls/x_jpg.rf.f{HEX[1:]}.jpg"]
    assert set(claims(pair).values()) == {"unsure"}
    assert claims([pair[0], "cls/y.jpg"])[pair[0]] == "original"
    assert claims([*pair, "cls/x.jpg"]) == {pair[0]: "copy", pair[1]: "copy", "cls/x.jpg": "original"}


def test_same_source_across_the_folders_of_a_users_split_is_found() -> None:
    paths = [f"test/cls/x_jpg.rf.{HEX}.jpg", f"train/cls/x_jpg.rf.f{HEX[1:]}.jpg"]
    assert len(set(grouped(paths, ["cls", "cls"]).values())) == 1


@pytest.mark.parametrize("name", ["aug_0_1234.png", "_3_99812.jpeg", f"c_original_gone.jpg_{UUID}.jpg"])
def test_a_known_tool_marks_a_copy_without_its_source(name: str) -> None:
    assert claims([f"cls/{name}", "cls/x.jpg"])[f"cls/{name}"] == "copy"


def test_dates_among_keras_names_are_keras_names() -> None:
    assert claims(["cls/aug_12_2020.jpg", "cls/aug_3_9123.jpg"])["cls/aug_12_2020.jpg"] == "copy"


@pytest.mark.parametrize("folder", ["augmented", "aug", "cls_aug", "aug_cls", "output", "preview", "generated"])
def test_a_folder_marks_copies_even_of_unknown_sources(folder: str) -> None:
    paths = ["cls/x.jpg", f"cls/{folder}/qwerty.jpg"]
    assert list(claims(paths).values()) == ["", "copy"]


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["generated/a.jpg", "real/b.jpg"], None),  # a class of its own
        (["fake/output/a.jpg", "fake/output/b.jpg", "real/c.jpg"], None),  # nothing beside it
        (["2020/aug/a.jpg", "2020/jul/b.jpg"], ["x", "x"]),  # a month
        (["augmented/cat/a.jpg", "augmented/dog/b.jpg"], ["cat", "dog"]),  # everything is in it
        (["aug/a.jpg", "b/b.jpg"], None),
    ],
)
def test_folders_that_only_look_augmented(paths: list[str], labels: list[str] | None) -> None:
    assert set(claims(paths, labels).values()) == {""}


def test_twin_folders_lead_back_to_the_original() -> None:
    paths = ["cats/x.jpg", "cats_aug/x_3.jpg", "original/dogs/y.jpg", "augmented/dogs/y.jpg"]
    group = grouped(paths, ["cat", "cat", "dog", "dog"])
    assert group["cats/x.jpg"] == group["cats_aug/x_3.jpg"]
    assert group["original/dogs/y.jpg"] == group["augmented/dogs/y.jpg"]


def test_equal_stems_in_other_folders_of_a_class_stay_apart() -> None:
    paths = ["cls/p1/001.jpg", "cls/p1/001_flip.jpg", "cls/p2/001.jpg"]
    group = grouped(paths)
    assert group["cls/p1/001.jpg"] == group["cls/p1/001_flip.jpg"] != group["cls/p2/001.jpg"]


def test_an_ambiguous_source_is_not_guessed() -> None:
    paths = ["cls/p1/001.jpg", "cls/p2/001.jpg", "cls/p3/001_dark.jpg"]
    assert len(set(grouped(paths).values())) == 3


def test_the_extension_decides_between_sources() -> None:
    paths = ["cls/x.jpg", "cls/x.png", "cls/x_flip.png"]
    group = grouped(paths)
    assert group["cls/x.png"] == group["cls/x_flip.png"] != group["cls/x.jpg"]


def test_hostile_names_take_no_time() -> None:
    stems = ["1" * 100 + "_aug" + "_1" * 60 + "!", "aug_" * 60 + "!", "_" * 250, "x (1)" * 50, "0_0_" * 60]
    read = read_names(make_manifest([f"cls/{stem}.jpg" for stem in stems]))
    assert np.all(read.claims == "")


def test_every_rule_says_how_it_is_anchored() -> None:
    for rule in NAME_RULES:
        needs_key = rule.anchor in ("stem", "siblings") or rule.says != "copy"
        assert not needs_key or "k" in rule.pattern.groupindex, rule.tool
        assert rule.says != "hint" or rule.anchor == "stem", rule.tool
