import numpy as np
import pytest
from inspected import inspected, write_folder, write_image, write_leaky, write_troubled

from automl_vision.report.findings import few_named, fold
from automl_vision.report.inspection import class_bars, class_rows, judge, quarantined, sizes


def verdict_of(seen):
    return judge(seen.prepared, seen.settings)


def test_the_summary_counts_what_there_is(tmp_path):
    summary = verdict_of(inspected(write_troubled(tmp_path), [("cat/2.png", "cat/3.png", True, 30.0)])).summary
    assert summary.startswith(
        "24 images in 2 classes: 18 originals, 2 copies, 2 that may be either, in 19 groups. "
        "2 files cannot be read and are in quarantine. "
    ), summary
    assert "The test set has 4 originals, and nothing of their groups is in another set." in summary
    assert summary.endswith("things to know before believing its number:")


def test_sound_data_are_called_so(tmp_path):
    verdict = verdict_of(inspected(write_folder(tmp_path, images=260), told=[]))
    assert "Nothing was taken out." in verdict.summary
    assert verdict.summary.endswith("As far as was checked, its number can be believed.")
    assert verdict.doubts == ()
    assert len(verdict.unchecked) == 1
    assert "--group-regex" in verdict.unchecked[0]


DOUBTS = {
    "The test set is small: on 4 images an accuracy is known to ± 35.0 points at worst.": [],
    "2 images show one picture under two labels": [],
    "In 1 group (2 images) the original is not known": [("cat/2.png", "cat/3.png", True, 30.0)],
    "1 pair may show one picture: 2 images only train.": [("cat/2.png", "cat/3.png", False, 5.0)],
    "2 of 2 classes have fewer than 10 test images": [],
    "8.3 % of the files cannot be read": [],
}


@pytest.mark.parametrize("sentence", DOUBTS)
def test_every_doubt_is_said_where_it_applies(tmp_path, sentence):
    said = verdict_of(inspected(write_troubled(tmp_path), DOUBTS[sentence])).doubts
    assert [each for each in said if each.startswith(sentence)], said


def test_a_leak_comes_first(tmp_path):
    verdict = verdict_of(inspected(write_leaky(tmp_path)))
    assert verdict.doubts[0].startswith("The split that came with the data leaks: 1 image is in the wrong set")
    assert "What is left of your test set has 7 originals" in verdict.summary


def test_data_that_cannot_be_trained_on_are_judged_all_the_same(tmp_path):
    seen = inspected(write_folder(tmp_path, images=2))
    verdict = verdict_of(seen)
    assert "No sets can be dealt from these data" in verdict.summary
    assert verdict.summary.endswith("One thing to know before training:")
    assert verdict.doubts[0].startswith("They cannot be trained on: classes with too few originals")
    assert "'cat' 2, 'dog' 2. Fix: add images" in verdict.doubts[0]
    assert class_rows(seen.prepared)[-1].originals == 4


def test_what_was_not_looked_for_is_not_vouched_for(tmp_path):
    summary = verdict_of(inspected(write_folder(tmp_path, images=260))).summary
    assert summary.endswith("As far as names and equal pixels tell, its number can be believed.")


def test_what_was_not_compared_is_said(tmp_path):
    folder = write_folder(tmp_path)
    assert "--lineage full compares them" in " ".join(verdict_of(inspected(folder)).unchecked)
    counted = {"unchecked": 1234, "tiny": 7, "plain": np.array([2]), "left": 5000, "barren": 192}
    said = " ".join(verdict_of(inspected(folder, [], **counted)).unchecked)
    assert "5,000 less similar pairs of pictures were not compared: no copy was among the last 192 that were." in said
    assert "About 1,234 pairs of similar pictures were not compared" in said
    assert "7 images are so tiny" in said
    assert "1 image is so plain" in said
    assert "--lineage full" not in said


def test_lone_images_that_may_be_missed_copies_are_a_doubt_of_their_own(tmp_path):
    folder = write_folder(tmp_path)
    told = [("cat/0.png", "cat/1.png", True, 30.0), ("cat/2.png", "cat/3.png", False, 5.0)]
    seen = inspected(folder, told, resembling=np.array([0, 7, 9, 10]))
    said = verdict_of(seen).doubts
    assert [each for each in said if each.startswith("3 images alone in their group may be copies that were missed")]
    assert [each for each in said if each.startswith("1 pair may show one picture: 2 images only train.")]
    assert "perhaps_missed_copy" not in {line.kind for line in fold(seen.prepared)}
    assert not [each for each in verdict_of(inspected(folder, told)).doubts if "missed" in each]


def test_the_table_adds_up_to_all_images(tmp_path):
    seen = inspected(write_troubled(tmp_path), [("cat/2.png", "cat/3.png", True, 30.0)])
    *classes, total = class_rows(seen.prepared)
    assert [row.name for row in classes] == ["cat", "dog"]
    figures = [(r.originals, r.copies, r.unsure, r.val, r.test, r.aside, r.quarantine) for r in (*classes, total)]
    assert [sum(each) for each in zip(*figures[:2], strict=True)] == list(figures[2])
    assert sum(figures[2]) == 24
    assert (total.unsure, total.test, total.quarantine) == (2, 4, 2)


def test_bars_begin_with_the_class_of_the_fewest_originals(tmp_path):
    write_folder(tmp_path, classes=("many",), images=20)
    write_folder(tmp_path, classes=("few",), images=5, seed=500)
    few, many = class_bars(inspected(tmp_path).prepared)
    assert (few.name, few.count, few.share, few.note) == ("few", 5, 0.25, "tiny")
    assert (many.name, many.count, many.share, many.note) == ("many", 20, 1.0, "")


def test_quarantine_says_why_and_what_to_do(tmp_path):
    cut, page = quarantined(inspected(write_troubled(tmp_path)).prepared)
    assert (cut.path, cut.label) == ("dog/cut.png", "dog")
    assert cut.reason.startswith("truncated: ")
    assert page.reason == "not an image: an HTML page: a download that failed"
    assert "copy it again" in cut.fix


def test_sizes_and_formats_are_counted(tmp_path):
    write_folder(tmp_path, images=6)
    write_image(tmp_path / "cat" / "wide.png", seed=77, size=(300, 40))
    told = sizes(inspected(tmp_path).prepared)
    facts = dict(told.facts)
    assert (facts["smallest image"], facts["largest image"]) == ("24 × 18", "300 × 40")
    assert facts["different sizes"] == "2"
    assert {bar.name: bar.count for bar in told.sides} == {"1 to 32 px": 12, "33 to 64 px": 1}
    assert [(bar.name, bar.count) for bar in told.formats] == [("PNG, RGB", 13)]


def test_many_tiny_classes_are_one_line_with_the_smallest_named(tmp_path):
    names = [f"class {n:02d}" for n in range(12)]
    for n, name in enumerate(names):
        write_folder(tmp_path, classes=(name,), images=9 - n % 6, seed=100 * n)
    (line,) = [line for line in fold(inspected(tmp_path).prepared) if line.kind == "tiny_class"]
    assert line.count == 12
    assert line.text == (
        "12 of 12 classes have fewer than 10 originals: class 05 (4), class 11 (4), class 04 (5), class 10 (5), "
        "class 03 (6) and 7 more"
    )


def test_findings_are_folded_and_errors_come_first(tmp_path):
    root = write_troubled(tmp_path)
    for n in range(3):
        (root / "cat" / f"empty{n}.png").touch()
    seen = inspected(root, [(f"cat/{n}.png", f"cat/{n + 1}.png", True, 30.0) for n in (2, 4, 6)])
    lines = fold(seen.prepared)
    places = ["error warning info".index(line.severity) for line in lines]
    assert places == sorted(places)
    assert len(set(places)) == 3
    by_kind = {line.kind: line for line in lines}
    assert by_kind["empty"].text == "3 × empty; the first: cat/empty0.png: 0 bytes"
    assert "same_picture" not in by_kind  # summed up in the other line
    assert by_kind["same_pictures"].count == 1


def test_a_few_of_many_names():
    assert few_named(["a", "b"]) == "a, b"
    assert few_named(list("abcdefg")) == "a, b, c, d, e and 2 more"
