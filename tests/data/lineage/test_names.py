"""Naming schemes of the usual tools, and ordinary names that only look like them."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_cases import make_manifest

from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.name_rules import NAME_RULES
from automl_vision.data.lineage.names import read_names

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
    "groundtruth": "output/_groundtruth_(1)_cls_{stem}.jpg_{uuid}.jpg",
    "imgaug_prefix": "aug_{stem}-{j}.jpg",
    "suffix_padded": "{stem}_aug_00{j}.jpg",
    "suffix_time": "{stem}_aug_{j}_1_99{big}.jpg",
    "suffix_operation": "{stem}_aug_0{j}_{op}.png",
    "operation_aug": "{stem}_{op}_aug_{j}.jpg",
    "degrees_flip": "{stem}_new30degFlipLR.JPG",
    "degrees_only": "{stem}_{j}80deg.JPG",
    "flip_tb": "{stem}_flipTB.JPG",
    "ending_inside": "{stem}.jpg_000{j}.jpg",
    "ending_and_aug": "{stem}.jpg_aug_{j}.jpg",
    "folder_operation": "flipped/{stem}.jpg",
    "folder_suffix": "../cls_augmented/{stem}_{j}.jpg",
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
    if scheme in ("prefix", "imgaug_prefix") and not re.search(r"[^\W\d_]", stem):
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


#: Names as they are in public data sets, one class each; several of one class wherever they could be misread.
PUBLIC_NAMES = """
    ImageNet: n01440764_10026.JPEG n01440764_10027.JPEG n01440764_18.JPEG
    ImageNet validation: ILSVRC2012_val_00000001.JPEG ILSVRC2012_val_00000002.JPEG
    Dogs vs. Cats: cat.0.jpg cat.1.jpg cat.10.jpg cat.12499.jpg
    GTSRB: 00001_00000_00012.ppm 00001_00000_00013.ppm 00001_00001_00012.ppm 00012.ppm
    ISIC: ISIC_0024306.jpg ISIC_0024307.jpg ISIC_0053453_downsampled.jpg ISIC_0053454_downsampled.jpg
    chest X-rays: person1_virus_6.jpeg person1_virus_7.jpeg person1_bacteria_1.jpeg person1_bacteria_2.jpeg
    chest X-rays, normal: IM-0115-0001.jpeg IM-0117-0001.jpeg NORMAL2-IM-0588-0001.jpeg NORMAL2-IM-0588-0002.jpeg
    X-rays of Guangzhou: BACTERIA-7422-0001.jpeg VIRUS-123-0002.jpeg NORMAL-28501-0001.jpeg
    CUB-200: Black_Footed_Albatross_0001_796111.jpg Black_Footed_Albatross_0002_55.jpg
    Caltech-256: 001_0001.jpg 001_0002.jpg 257_0001.jpg
    Oxford flowers: image_00001.jpg image_00002.jpg
    Oxford pets: Abyssinian_1.jpg Abyssinian_2.jpg great_pyrenees_12.jpg great_pyrenees_13.jpg
    Food-101: 1005755.jpg 1005756.jpg
    EuroSAT: AnnualCrop_1.jpg AnnualCrop_2.jpg PermanentCrop_1.jpg
    UC Merced: agricultural00.tif agricultural01.tif
    RESISC45: airplane_001.jpg airplane_002.jpg airplane_700.jpg
    PlantVillage: 0a5e9323-dbad-432d-ac58-d291718345d9___FREC_Scab.JPG 0a769a71-052a-4f19-a4d8-b0f0cb75541c___FREC.JPG
    Fruits-360: 0_100.jpg 100_100.jpg r_0_100.jpg r_100_100.jpg r2_0_100.jpg
    LFW: Aaron_Eckhart_0001.jpg Aaron_Eckhart_0002.jpg
    UTKFace: 100_0_0_20170112213500903.jpg.chip.jpg 100_0_0_20170112215240346.jpg.chip.jpg
    FER: Training_3908.jpg PublicTest_28.jpg PrivateTest_11895.jpg
    signs by hand: hand1_0_bot_seg_1_cropped.jpeg hand1_0_bot_seg_2_cropped.jpeg hand1_0_left_seg_1_cropped.jpeg
    rock paper scissors: paper01-000.png paper01-001.png testpaper01-00.png
    malaria: C100P61ThinF_IMG_20150918_144104_cell_162.png C100P61ThinF_IMG_20150918_144104_cell_163.png
    histology: 8863_idx5_x51_y1251_class0.png 8863_idx5_x101_y1251_class0.png
    DeepWeeds: 20160928-140314-0.jpg 20160928-140337-0.jpg
    cracks: 00001.jpg 00001_1.jpg 00002.jpg 10000_1.jpg
    castings: cast_def_0_0.jpeg cast_def_0_1.jpeg cast_def_0_1007.jpeg
    diabetic eyes: 10_left.jpeg 10_right.jpeg 13_left.jpeg 13_right.jpeg
    brain tumours: Tr-gl_0010.jpg Te-no_0011.jpg Y1.jpg Y2.JPG
    rice: Arborio_(1).jpg Arborio_(2).jpg Arborio_(15000).jpg
    Flickr: 100080576_f52e8ee070_n.jpg 10140303196_b88d3d6cec.jpg
    mushrooms: 000_ePQknW8cTp8.jpg 001_2jP9N_ipAo8.jpg
    COIL-100: obj1__0.png obj1__5.png obj10__355.png
    CIFAR as files: airplane_0001.png 0_cat.png 1_cat.png aquatic_mammals_s_000050.png
    trash: cardboard1.jpg cardboard2.jpg O_1.jpg R_10.jpg
    street numbers: 5_0.png 5_1.png 0_5.png
    Places: Places365_val_00000001.jpg 00000001.jpg
    iNaturalist: 0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg
    cameras: IMG_20230401_123456_1.jpg IMG_20230401_123456.jpg DSC_0001.jpg DSC_0001-2.jpg DSCN1234.JPG P1000123.JPG
    phones: PXL_20230401_123456789.jpg 20230401_123456(0).jpg 20230401_123456.jpg IMG-20200101-WA0003.jpg
    iPhone: IMG_1234.JPG IMG_E1234.JPG IMG_1234_2.JPG
    bursts: 00000IMG_00000_BURST20200101120000123_COVER.jpg 00001IMG_00001_BURST20200101120000123.jpg
    search engine: images.jpg images_(1).jpg images_(12).jpg download.jpg download_(3).jpg
    video: frame_0001.jpg frame_0002.jpg video1_frame_12.jpg out-001.png out-002.png
    fruit: apple_1.jpg apple_2.jpg apple.jpg apple_10.jpg
    films: dark_knight.jpg light_bulb.jpg crop_circle_3.jpg scale_model.jpg mirror_lake_2.jpg blur_band_live.jpg
    birds: black_and_white_warbler_1.jpg gray_catbird.jpg color_throated_12.jpg dark_eyed_junco_3.jpg
    places: salt_lake_city_1.jpg negative_space.jpg rain_forest_1.jpg perspective_drawing_4.jpg sharp_peak.jpg
    microscope: sample_gray_1.png sample_gray_2.png stage2_brightfield_11.tif gaussian_beam.png noise_floor_2.png
    August: trip_aug_2019_1.jpg trip_aug_2019_2.jpg trip_aug_12_2019.jpg 12-aug-2019.jpg aug-2019-1.jpg aug-2019-2.jpg
    uploads: a1b2c3d4-photo.jpg 9f8e7d6c-photo.jpg src_ZoqW18z.png src.png
    copies of files: x.jpg x_copy.jpg x_copy_2.jpg Copy_of_x.jpg Kopie_von_x.jpg x_(copy).jpg x~1.jpg kopie_2.jpg
    words in words: background.jpg rotation.jpg rotator_cuff.jpg cropland_7.jpg flipper_2.jpg noisette.jpg scaled.jpg
    people: rotterdam_1.jpg augusta_1.jpg augustus-2.jpg copycat_3.jpg kopiec_2.jpg copenhagen_1.jpg editor_2.jpg
    screens: Screenshot_20230401-123456.png Screenshot_20230401-123456_App.png WhatsApp_Image_2020-05-01.jpg
    slices: case_001_slice_12.png case_001_slice_13.png patient12_left_MLO_2.png IM000001.jpg
    letters: a.jpg b.jpg c-1.jpg A1.jpg B12.jpg
"""


def public_names() -> dict[str, list[str]]:
    lines = (line.strip().split(": ", 1) for line in PUBLIC_NAMES.strip().splitlines())
    return {title: [name.replace("_(", " (") for name in names.split()] for title, names in lines}


def test_enough_names_of_public_sets_are_tried() -> None:
    assert sum(map(len, public_names().values())) > 150


@pytest.mark.parametrize("names", public_names().values(), ids=public_names())
def test_names_of_public_data_sets_mean_nothing(names: list[str]) -> None:
    read = read_names(make_manifest([f"cls/{name}" for name in names]))
    assert read.links == ()
    assert set(read.claims) == {""}


def test_all_public_names_in_one_class_mean_nothing_either() -> None:
    names = sorted({name for found in public_names().values() for name in found})
    read = read_names(make_manifest([f"cls/{name}" for name in names]))
    assert read.links == ()
    assert set(read.claims) == {""}


@pytest.mark.parametrize("names", NATURAL_NAMES.values(), ids=NATURAL_NAMES)
def test_ordinary_names_mean_nothing(names: list[str]) -> None:
    read = read_names(make_manifest([f"cls/{name}" for name in names]))
    assert read.links == ()
    assert set(read.claims) == {""}


def test_numbered_names_are_left_as_candidates_for_pixels() -> None:
    manifest = make_manifest(["cls/0_1_photo.jpg", "cls/photo (4).jpg", "cls/photo.jpg", "cls/photo_2.jpg"])
    candidates = read_names(manifest).candidates
    assert {(link.first, link.second) for link in candidates if link.score == 1.0} == {(0, 2), (1, 2), (2, 3)}


def candidates(names: list[str], labels: list[str] | None = None) -> set[tuple[str, str]]:
    paths = [f"cls/{name}.jpg" for name in names]
    found = read_names(make_manifest(paths, labels)).candidates
    return {(names[link.first], names[link.second]) for link in found}


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        ("photo", "photo_2"),
        ("photo", "photo-2"),
        ("photo", "photo (1)"),
        ("photo", "photo(1)"),
        ("IMG_20200101_120000", "IMG_20200101_120000~2"),
        ("photo", "photo - Copy"),
        ("photo", "photo - Copy (3)"),
        ("photo", "photo copy"),
        ("photo", "photo copy 2"),
        ("photo", "photo (copy)"),
        ("photo", "photo (another copy)"),
        ("photo", "photo (3rd copy)"),
        ("photo", "Copy of photo"),
        ("photo", "Copy (2) of photo"),
        ("photo", "photo - Kopie"),
        ("photo", "photo - Kopie (2)"),
        ("photo", "Kopie von photo"),
        ("photo", "photo Kopie 3"),
        ("photo", "photo - Copie"),
        ("photo", "Copie de photo"),
        ("photo", "photo - copia (2)"),
        ("photo", "photo - Cópia"),
        ("photo", "photo - コピー"),
        ("photo", "photo - 副本 (2)"),
        ("photo", "photo — копия"),
        ("photo", "photo_copy"),
        ("photo", "photo-edited"),
        ("photo", "photo-edited(1)"),
        ("IMG_1234", "IMG_E1234"),
        ("photo", "0_1_photo"),
        ("photo", "a1b2c3d4-photo"),
        ("photo", "12-a1b2c3d4-photo"),
        ("photo", "photo_ZoqW18z"),
    ],
)
def test_what_may_be_a_copy_of_a_file_is_a_candidate_and_joins_nothing(source: str, copy: str) -> None:
    names = sorted(["zebra", source, copy, "IMG_0007"])
    assert candidates(names) == {(min(source, copy), max(source, copy))}
    assert grouped([f"cls/{name}.jpg" for name in names]) == {f"cls/{name}.jpg": i for i, name in enumerate(names)}


@pytest.mark.parametrize(
    "names",
    [
        ["photo_1", "photo_2", "photo_3"],
        ["photo (1)", "photo (2)", "photo (9)"],
        ["photo_0_1234", "photo_0_77", "photo_0_9"],
        ["a1b2c3d4-photo", "b1b2c3d4-photo", "c1b2c3d4-photo"],
        ["photo - Copy", "photo - Copy (2)", "photo - Copy (7)"],
    ],
)
def test_siblings_without_their_source_are_candidates_of_each_other(names: list[str]) -> None:
    assert candidates(names) == {(names[0], names[1]), (names[0], names[2]), (names[1], names[2])}


def test_of_many_siblings_only_neighbours_are_candidates() -> None:
    numbers = [*range(1, 400), *range(402, 1000)]
    names = sorted(f"photo_{number:03d}" for number in numbers)
    found = candidates(names)
    assert len(found) == len(numbers) - 2  # no pair across the gap
    assert ("photo_001", "photo_003") not in found
    assert ("photo_399", "photo_402") not in found


def test_the_running_numbers_of_a_camera_are_no_candidates() -> None:
    assert candidates([f"IMG_{number:04d}" for number in range(1, 300)]) == set()


def test_what_has_its_source_beside_it_comes_before_siblings() -> None:
    paths = [f"cls/{name}.jpg" for name in ("a_1", "a_2", "photo", "photo_1", "photo_2")]
    scores = [link.score for link in read_names(make_manifest(paths)).candidates]
    assert scores == [1.0, 1.0, 0.5, 0.5]


def test_siblings_of_other_labels_and_folders_are_no_candidates() -> None:
    found = read_names(make_manifest(["a/x_1.jpg", "b/x_2.jpg", "c/p/y_1.jpg", "c/q/y_2.jpg"])).candidates
    assert found == ()


def test_copies_of_uploads_find_the_upload() -> None:
    group = grouped(["cls/a1b2c3d4-photo.jpg", "cls/b1b2c3d4-photo_hflip.jpg", "cls/c1b2c3d4-bird.jpg"])
    assert list(group.values()) == [0, 0, 2]


def test_two_uploads_of_one_name_are_not_guessed_between() -> None:
    group = grouped(["cls/a1b2c3d4-1.jpg", "cls/b1b2c3d4-1.jpg", "cls/c1b2c3d4-1_dark.jpg"])
    assert list(group.values()) == [0, 1, 2]


def test_a_class_name_before_an_operation_is_no_source() -> None:
    crops = [f"cls/cat_cropped_{number}.jpg" for number in range(500)]
    for paths in (crops, [f"cls/cropped_{number}_cat.jpg" for number in range(500)]):
        read = read_names(make_manifest(paths))
        assert read.links == ()
        assert set(read.claims) == {""}


def test_what_is_called_augmented_is_a_copy_however_many_there_are() -> None:
    paths = [f"cls/leaf_augmented_{number}.jpg" for number in range(500)]
    assert set(claims([*paths, "cls/x.jpg"]).values()) == {"copy", ""}


def test_an_operation_folder_needs_the_files_it_was_made_from() -> None:
    assert list(claims(["cls/a.jpg", "cls/b.jpg", "cls/flipped/a.jpg", "cls/flipped/b.jpg"]).values()) == [
        "original",
        "original",
        "copy",
        "copy",
    ]
    strangers = ["cls/a.jpg", "cls/cropped/c.jpg", "cls/cropped/d.jpg", "cls/cropped/d_hflip.jpg"]
    assert list(claims(strangers).values()) == ["", "", "original", "copy"]
    assert set(claims(["rotated/a.jpg", "rotated/b.jpg", "upright/a.jpg"]).values()) == {""}


STEMS = ("photo", "cat_12", "IMG_0001", "dark_knight", "1", "a1b2c3d4-x")
NAMES = st.sampled_from(
    [
        name.format(stem=stem)
        for stem in STEMS
        for name in (
            "{stem}.jpg",
            "{stem}.png",
            "{stem}_1.jpg",
            "{stem}_2.jpg",
            "{stem}_hflip.jpg",
            "{stem}_aug_3.png",
            "{stem}_hflip_aug_1.jpg",
            "flipped_{stem}.jpg",
            "{stem} - Copy.jpg",
            "augmented/{stem}_7.jpg",
            f"{{stem}}_jpg.rf.{HEX}.jpg",
            f"{{stem}}_jpg.rf.f{HEX[1:]}.jpg",
            "flipped/{stem}.jpg",
        )
    ]
)


def partition(paths: list[str], labels: list[str], order: list[int]) -> tuple[set[frozenset[int]], dict[int, str], set]:
    read = read_names(make_manifest([paths[i] for i in order], [labels[i] for i in order]))
    root = connected(len(order), read.links)
    groups = {frozenset(order[at] for at in np.flatnonzero(root == r)) for r in set(root.tolist())}
    candidates = {frozenset((order[link.first], order[link.second])) for link in read.candidates}
    return groups, {order[at]: str(claim) for at, claim in enumerate(read.claims)}, candidates


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_neither_the_order_of_rows_nor_the_names_of_folders_matter(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.tuples(st.sampled_from("ab"), NAMES), unique=True, max_size=25))
    paths, labels = [f"{folder}/{name}" for folder, name in names], [folder for folder, _ in names]
    rows = list(range(len(paths)))
    plain = partition(paths, labels, rows)
    assert partition(paths, labels, data.draw(st.permutations(rows))) == plain
    renamed = {"a": "x9/Katzen", "b": "x9/some dogs"}
    assert partition([f"{renamed[folder]}/{name}" for folder, name in names], labels, rows) == plain


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


def test_copies_of_equal_stems_in_other_folders_stay_apart() -> None:
    group = grouped([f"cls/{p}/001{end}.jpg" for p in ("p1", "p2", "p3") for end in ("", "_hflip", "_aug_1")])
    assert list(group.values()) == [0, 0, 0, 3, 3, 3, 6, 6, 6]


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


#: Reads every rule on long names that nearly are those of copies. In every combination of ways it would never end.
_LONG_NAMES = """
from automl_vision.data.lineage.name_rules import MARK, NAME_RULES, UPLOADED, WITH_ENDING
for word in ("deg", "degrees", "90deg", "rot90", "rot", "h", "aug", "12", "flip_h", "rot90_deg", "copy", "original"):
    for before in ("cat_flipped", "aug", "flip", "cat", ""):
        for after in ("_zebra", "_123", "!", ""):
            name = before + f"_{word}" * (240 // (len(word) + 1)) + after
            for rule in NAME_RULES:
                rule.pattern.fullmatch(name)
            for pattern in (MARK, UPLOADED, WITH_ENDING):
                pattern.search(name)
"""


def test_no_name_takes_for_ever() -> None:
    subprocess.run([sys.executable, "-c", _LONG_NAMES], check=True, timeout=120)
