from __future__ import annotations

from typing import Any

import pytest
from lineage_cases import make_compared, make_facts, make_manifest

from automl_vision.config import DataSettings
from automl_vision.data.audit import KINDS, Audit, audit
from automl_vision.data.manifest import Manifest
from automl_vision.errors import IMAGE_FAULTS

PLAIN = [f"{c}/{c}{i:02d}.jpg" for c in "ab" for i in range(12)]


def audited(paths: list[str], facts: dict[str, Any] | None = None, **columns: Any) -> tuple[Manifest, Audit]:
    manifest = make_manifest(paths, **columns)
    return manifest, audit(manifest, make_facts(manifest, **(facts or {})), DataSettings())


def kinds(checked: Audit) -> set[str]:
    return {finding.kind for finding in checked.findings}


def messages(checked: Audit, kind: str) -> list[str]:
    return [finding.message for finding in checked.findings if finding.kind == kind]


def test_clean_data_has_only_its_counts() -> None:
    _, checked = audited(PLAIN)
    assert kinds(checked) == {"class_counts"}
    assert messages(checked, "class_counts") == ["24 readable images in 2 classes: 12 a, 12 b"]
    assert checked.eligible.all()
    assert not checked.label_conflict.any()


def test_every_fault_has_a_kind_with_its_fix() -> None:
    for fault, fix in IMAGE_FAULTS.items():
        assert KINDS[fault] == ("error", fix)


def test_quarantined_files_are_named_and_many_of_them_too() -> None:
    faults = ["truncated", "empty", *[""] * 22]
    manifest, checked = audited(PLAIN, {"faults": faults})
    frame = checked.to_frame(manifest)
    assert list(frame.columns) == ["path", "label", "kind", "severity", "message", "fix"]
    assert frame.loc[frame["kind"] == "empty", "path"].tolist() == [PLAIN[1]]
    whole = frame[frame["kind"] == "many_unreadable"]
    assert whole[["path", "label", "message"]].to_numpy().tolist() == [["", "", "2 of 24 files are not usable"]]
    assert not checked.eligible[:2].any()


def test_one_of_twenty_four_is_not_many() -> None:
    assert "many_unreadable" not in kinds(audited(PLAIN, {"faults": ["empty", *[""] * 23]})[1])


def test_class_sizes() -> None:
    paths = [*PLAIN, "c/1.jpg", "c/2.jpg", "d/3.jpg", *(f"e/{i}.jpg" for i in range(5))]
    faults = ["empty" if path == "d/3.jpg" else "" for path in paths]
    _, checked = audited(paths, {"faults": faults}, empty_classes=("f",))
    assert messages(checked, "nothing_readable") == ["class 'd': none of 1 files is usable"]
    assert "only 2 groups" in messages(checked, "too_few_originals")[0]
    assert messages(checked, "tiny_class") == ["class 'e' has 5 originals"]
    assert messages(checked, "empty_class") == ["nothing usable in class folder 'f'"]
    assert "6.0 times" in messages(checked, "imbalance")[0]
    assert checked.class_counts["readable"].tolist() == [12, 12, 2, 0, 5]


def test_duplicates_by_bytes_and_by_pixels() -> None:
    pixels = [0, 0, 0, *range(3, 24)]
    manifest, checked = audited(PLAIN, {"pixels": pixels, "files": pixels})
    assert len(messages(checked, "duplicate_file")) == 2
    assert messages(checked, "duplicate_file")[0] == f"the same file as {PLAIN[0]}"
    _, checked = audited(PLAIN, {"pixels": pixels})
    assert len(messages(checked, "duplicate_pixels")) == 2
    assert checked.class_counts["copies"].tolist() == [2, 0]
    assert len(manifest) == 24


def test_a_picture_under_two_labels_taints_its_copies_and_nobody_else() -> None:
    paths = [*PLAIN, "a/x.jpg", "a/x_flip.jpg", "b/y.jpg"]
    pixels = [*range(24), "same", "flipped", "same"]
    group = ("patient", *[None] * 23, "patient", None, None)
    manifest, checked = audited(paths, {"pixels": pixels}, group=group)
    assert [p for p, bad in zip(manifest.paths, checked.label_conflict, strict=True) if bad] == paths[24:]
    assert set(messages(checked, "label_conflict")) == {"the same picture is in 'a' and 'b'"}
    assert checked.eligible[:24].all()


def test_a_patient_with_two_labels_is_no_conflict() -> None:
    assert not audited(PLAIN, group=("p",) * 24)[1].label_conflict.any()


def test_orphans_and_unsure_groups_are_counted_and_explained() -> None:
    hexes = "0123456789abcdef" * 2
    paths = [*PLAIN, "a/aug_0_1234.jpg", f"a/x_jpg.rf.{hexes}.jpg", f"a/x_jpg.rf.f{hexes[1:]}.jpg"]
    _, checked = audited(paths)
    assert messages(checked, "orphan_copies")[0].startswith("1 copies")
    assert "Keras" in messages(checked, "orphan_copy")[0]
    assert "1 groups (2 images)" in messages(checked, "unsure_groups")[0]
    assert len(messages(checked, "unsure_original")) == 2
    assert not checked.eligible[24:].any()


def test_nothing_in_a_group_with_an_unsure_member_is_eligible() -> None:
    hexes = "0123456789abcdef" * 2
    paths = [*PLAIN, f"a/x_jpg.rf.{hexes}.jpg", f"a/x_jpg.rf.f{hexes[1:]}.jpg"]
    _, checked = audited(paths, group=("p", *[None] * 23, "p", None))
    assert checked.lineage.role[0] == "original"
    assert checked.eligible.tolist() == [False] + [True] * 23 + [False] * 2


def test_files_that_are_not_what_they_seem() -> None:
    columns = {
        "format": ["PNG", *["JPEG"] * 23],
        "frames": [1, 7, *[1] * 22],
        "exif_rotated": [True, True, *[False] * 22],
    }
    _, checked = audited(PLAIN, columns, ignored={"hidden file": 3})
    assert messages(checked, "wrong_extension") == ["named .jpg, but the content is PNG"]
    assert messages(checked, "multi_frame") == ["7 frames or pages in one file"]
    assert messages(checked, "exif_rotated")[0].startswith("2 images")
    assert messages(checked, "ignored") == ["3 passed over: hidden file"]


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (["L"] * 12 + ["RGB"] * 12, ["100% of class 'a' are greyscale, elsewhere 0%"]),
        (["L"] * 24, []),
        (["L", "RGB"] * 12, []),
        (["L"] * 8 + ["RGB"] * 16, []),
    ],
)
def test_a_file_type_that_gives_the_class_away(modes: list[str], expected: list[str]) -> None:
    assert messages(audited(PLAIN, {"mode": modes})[1], "mode_by_class") == expected


def test_a_class_of_copies_is_pointed_out() -> None:
    paths = [*PLAIN, *(f"a_aug/q{i}.jpg" for i in range(12))]
    assert messages(audited(paths)[1], "class_of_copies") == ["class 'a_aug' reads like copies of class 'a'"]


def test_findings_on_the_whole_come_first() -> None:
    rows = [f.row for f in audited(PLAIN, {"faults": ["empty"] * 3 + [""] * 21})[1].findings]
    assert rows == sorted(rows, key=lambda row: row >= 0)
    assert rows[-1] >= 0


def test_what_may_be_a_copy_is_not_tested_on() -> None:
    manifest = make_manifest([f"{c}/{i}.png" for c in "ab" for i in range(4)])
    found = make_compared((0, 1, True), (2, 3, False), unchecked=7, tiny=2)
    checked = audit(manifest, make_facts(manifest, compared=found), DataSettings(lineage="full"))
    assert checked.eligible.tolist() == [False] * 4 + [True] * 4
    kinds = [finding.kind for finding in checked.findings]
    for kind in ("same_pictures", "same_picture", "perhaps_same_pictures", "perhaps_same_picture"):
        assert kinds.count(kind) == 1
    said = {finding.kind: finding.message for finding in checked.findings}
    assert "7 pairs" in said["not_compared"]
    assert "2 images" in said["too_small_to_compare"]
    assert "too_plain_to_compare" not in said
    assert "score 20.0" in said["same_picture"]


def test_labels_may_differ_where_only_registration_joins_but_it_is_said_and_not_tested_on() -> None:
    manifest = make_manifest(["a/1.png", "b/2.png", "b/3.png"])
    facts = make_facts(manifest, compared=make_compared((0, 1, True)))
    checked = audit(manifest, facts, DataSettings(lineage="full"))
    assert not checked.label_conflict.any()
    assert checked.eligible.tolist() == [False, False, True]
    said = [finding.message for finding in checked.findings if finding.kind == "same_picture_two_labels"]
    assert said == ["shows the same picture as a/1.png, but they are in 'a' and 'b'"]


def test_names_that_pixels_contradict_are_told_and_keep_their_say() -> None:
    paths = ["a/x.jpg", "a/x_hflip.jpg", *PLAIN]
    manifest = make_manifest(paths)
    facts = make_facts(manifest, compared=make_compared(strangers=[(0, 1)]))
    checked = audit(manifest, facts, DataSettings(lineage="full"))
    assert messages(checked, "names_contradicted") == [
        "1 of 10 pairs that names join have nothing visible in common",
        "named like a copy with a/x.jpg, but nothing common is seen in the two",
    ]
    assert checked.lineage.role[1] == "copy"
    assert checked.lineage.group[0] == checked.lineage.group[1]


def test_where_nearly_all_are_copies_it_is_asked_whether_they_are() -> None:
    few = [f"a/leaf_augmented_{i}.jpg" for i in range(97)]
    assert messages(audited([*few, "b/x.jpg"])[1], "nearly_all_copies") == [
        "97 of 98 images count as copies, by names or by what you said"
    ]
    assert "nearly_all_copies" not in kinds(audited([*few, *(f"b/{i}.jpg" for i in range(10))])[1])


def test_bursts_are_counted_and_one_that_swallows_a_class_is_told() -> None:
    paths = [*(f"a/f_{i:03d}.jpg" for i in range(6)), *(f"a/g{i}00.jpg" for i in range(14)), *PLAIN[12:]]
    manifest = make_manifest(paths)
    checked = audit(manifest, make_facts(manifest), DataSettings(burst_window="1"))
    assert messages(checked, "bursts") == [
        "18 images were taken in 2 bursts, by their numbers or times; the largest has 12"
    ]
    assert messages(checked, "large_burst") == [
        "one burst holds 6 of 20 images of class 'a' (30%)",
        "one burst holds 12 of 12 images of class 'b' (100%)",
    ]
    assert kinds(audited(paths)[1]).isdisjoint({"bursts", "large_burst"})


def test_a_small_burst_is_only_counted() -> None:
    manifest = make_manifest([*(f"a/f_{i:03d}.jpg" for i in (0, 1)), *(f"a/g{i}00.jpg" for i in range(14))])
    checked = audit(manifest, make_facts(manifest), DataSettings(burst_window="1"))
    assert "bursts" in kinds(checked)
    assert "large_burst" not in kinds(checked)


def test_lone_images_that_may_be_missed_copies_are_told_with_their_reason() -> None:
    manifest = make_manifest(PLAIN)
    found = make_compared((0, 1, True), (0, 2, True), resembling=[1, 5], plain=[5, 7])
    checked = audit(manifest, make_facts(manifest, compared=found), DataSettings(lineage="full"))
    assert messages(checked, "perhaps_missed_copies") == [
        "2 lone images may be copies that were missed, in a folder with many copies: they are not tested on"
    ]
    assert {finding.row: finding.message for finding in checked.findings if finding.kind == "perhaps_missed_copy"} == {
        5: "resembles its nearest image as a copy does, in a folder with many copies",
        7: "too plain to be recognised, in a folder with many copies",
    }
    assert not checked.eligible[[5, 7]].any()
    few = make_compared((0, 1, True), resembling=[1, 5], plain=[7])
    checked = audit(manifest, make_facts(manifest, compared=few), DataSettings(lineage="full"))
    assert kinds(checked).isdisjoint({"perhaps_missed_copies", "perhaps_missed_copy"})
    assert checked.eligible[[5, 7]].all()


def test_groups_that_lost_a_copy_are_told_and_not_tested_on() -> None:
    manifest = make_manifest([f"a/p{chr(97 + i // 26)}{chr(97 + i % 26)}.jpg" for i in range(34)])
    pairs = [(first, first + more, True) for first in range(0, 33, 3) for more in (1, 2)]
    found = make_compared(*pairs[:-1], original=dict.fromkeys(range(0, 33, 3), 0.999))
    checked = audit(manifest, make_facts(manifest, compared=found), DataSettings(lineage="full"))
    assert messages(checked, "groups_lost_a_copy") == [
        "1 group is smaller than nearly all others: a copy was probably missed, and its original is not tested on"
    ]
    assert messages(checked, "group_lost_a_copy") == [
        "2 files show this picture, where nearly all that have copies have 3: a copy was probably missed"
    ]
    assert not checked.eligible[30]
    assert checked.eligible[0]


def test_pairs_that_were_left_are_counted() -> None:
    manifest = make_manifest(PLAIN)
    facts = make_facts(manifest, compared=make_compared(left=7, barren=192))
    assert messages(audit(manifest, facts, DataSettings(lineage="full")), "less_similar_left") == [
        "7 less similar pairs were not laid over each other: no copy was among the last 192 that were"
    ]
    facts = make_facts(manifest, compared=make_compared())
    assert "less_similar_left" not in kinds(audit(manifest, facts, DataSettings(lineage="full")))


def test_links_that_lead_outside_are_told() -> None:
    _, checked = audited(PLAIN, outside=1)
    assert messages(checked, "links_outside") == ["1 image is a link to a file outside of the data folder"]
