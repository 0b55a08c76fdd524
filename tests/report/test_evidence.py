from inspected import inspected, write_folder, write_leaky, write_troubled

from automl_vision.data.lineage.lineage import Link
from automl_vision.report.evidence import EVIDENCE_COLUMNS, Shown, doubt_order, evidence_table, gather_pictures

TOLD = [
    ("cat/2.png", "cat/3.png", True, 30.0),
    ("cat/4.png", "cat/5.png", True, 9.0),
    ("dog/2.png", "dog/3.png", False, 5.0),
]


def test_the_table_has_every_merge_and_every_unsure_pair(tmp_path):
    seen = inspected(write_troubled(tmp_path), TOLD)
    table = evidence_table(seen.prepared)
    assert tuple(table.columns) == EVIDENCE_COLUMNS
    rows = {(row.first, row.second): (row.evidence, row.score, row.effect) for row in table.itertuples()}
    assert rows == {
        ("cat/0.png", "cat/0_hflip.png"): ("names", 1.0, "joined"),
        ("cat/1.png", "dog/twin.png"): ("pixels_equal", 1.0, "joined"),
        ("cat/2.png", "cat/3.png"): ("pixels_registered", 30.0, "joined"),
        ("cat/4.png", "cat/5.png"): ("pixels_registered", 9.0, "joined"),
        ("dog/2.png", "dog/3.png"): ("pixels_registered", 5.0, "barred"),
    }
    group = seen.prepared.audit.lineage.group
    for (first, second), (*_, effect) in rows.items():
        assert (group[seen.row(first)] == group[seen.row(second)]) == (effect == "joined")


def test_the_table_of_data_without_copies_is_empty(tmp_path):
    table = evidence_table(inspected(write_folder(tmp_path)).prepared)
    assert table.to_csv(index=False) == ",".join(EVIDENCE_COLUMNS) + "\n"


def test_the_weakest_evidence_comes_first():
    links = [
        Link(0, 1, "columns", ""),
        Link(0, 2, "pixels_registered", "", 50.0),
        Link(0, 3, "names", ""),
        Link(0, 4, "pixels_registered", "", 8.5),
        Link(0, 5, "of tomorrow", "", 9.9),
    ]
    assert [links[place].second for place in doubt_order(links)] == [5, 4, 2, 3, 1]


def test_strips_begin_with_the_original_and_say_why(tmp_path):
    seen = inspected(write_troubled(tmp_path), TOLD)
    strips = {strip.members[0].path: strip for strip in gather_pictures(seen.prepared).strips.rows}
    named = strips["cat/0.png"]
    assert [(m.number, m.path, m.role) for m in named.members] == [
        (1, "cat/0.png", "original"),
        (2, "cat/0_hflip.png", "copy"),
    ]
    (merge,) = named.merges
    assert (merge.first, merge.second, merge.evidence, merge.score) == ("1", "2", "names", "")
    drawn = strips["cat/4.png"]
    assert [member.role for member in drawn.members] == ["unsure", "unsure"]
    assert drawn.merges[0].score == "9.0"
    assert list(drawn.reasons.values()) == [[1, 2]]
    assert strips["cat/1.png"].labels == ("cat", "dog")


def test_caps_are_kept_and_counted(tmp_path):
    chain = [(f"cat/{n}.png", f"cat/{n + 1}.png", True, 10.0 + n) for n in range(20)]
    pairs = [(f"dog/{n}.png", f"dog/{n + 1}.png", True, 50.0 - n) for n in range(0, 20, 2)]
    seen = inspected(write_folder(tmp_path, images=30), chain + pairs)
    shown = gather_pictures(seen.prepared, Shown(groups=3, files=5, merges=2)).strips
    assert (len(shown.rows), shown.total, shown.left_out) == (3, 11, 8)
    biggest = shown.rows[0]
    assert (biggest.size, len(biggest.members), biggest.merge_count) == (21, 5, 20)
    assert [merge.score for merge in biggest.merges] == ["10.0", "11.0"]


def test_after_the_biggest_come_the_weakest(tmp_path):
    pairs = [(f"dog/{n}.png", f"dog/{n + 1}.png", True, 50.0 - n) for n in range(0, 20, 2)]
    seen = inspected(write_folder(tmp_path, images=30), pairs)
    shown = gather_pictures(seen.prepared, Shown(groups=6)).strips.rows
    assert [strip.merges[0].score for strip in shown[-2:]] == ["32.0", "34.0"]


def test_the_likeliest_of_unsure_pairs_come_first(tmp_path):
    told = [("dog/2.png", "dog/3.png", False, 4.0), ("dog/4.png", "dog/5.png", False, 7.0)]
    unsure = gather_pictures(inspected(write_folder(tmp_path, images=10), told).prepared).unsure
    assert [[member.path for member in pair.members] for pair in unsure.rows] == [
        ["dog/4.png", "dog/5.png"],
        ["dog/2.png", "dog/3.png"],
    ]
    assert {member.set_name for pair in unsure.rows for member in pair.members} == {"train"}


def test_pictures_under_two_labels_say_what_becomes_of_them(tmp_path):
    told = [("cat/2.png", "dog/3.png", True, 30.0)]
    conflicts = gather_pictures(inspected(write_troubled(tmp_path), told).prepared).conflicts
    notes = {tuple(member.path for member in pair.members): pair.note for pair in conflicts.rows}
    assert notes == {
        ("cat/1.png", "dog/twin.png"): "none of them is used until one is removed",
        ("cat/2.png", "dog/3.png"): "they only train",
    }


def test_a_leak_is_beside_what_it_leaks_from(tmp_path):
    told = [("train/dog/1.png", "test/dog/1.png", True, 44.0)]
    leaks = gather_pictures(inspected(write_leaky(tmp_path), told).prepared).leaks
    shown = {tuple(member.path for member in pair.members): pair for pair in leaks.rows}
    assert set(shown) == {("train/cat/0.png", "test/cat/same.png"), ("test/dog/1.png", "train/dog/1.png")}
    by_pixels = shown["test/dog/1.png", "train/dog/1.png"]
    assert by_pixels.merge.score == "44.0"
    assert by_pixels.note == "in test, but its group is elsewhere too"
    assert [(member.given, member.set_name) for member in by_pixels.members] == [("test", "aside"), ("train", "train")]


def test_a_leak_without_a_counterpart_stands_alone(tmp_path):
    root = write_leaky(tmp_path)
    (root / "train" / "cat" / "0.png").unlink()
    (root / "test" / "cat" / "same.png").rename(root / "test" / "cat" / "0_hflip.png")
    (pair,) = gather_pictures(inspected(root).prepared).leaks.rows
    assert [member.path for member in pair.members] == ["test/cat/0_hflip.png"]
    assert pair.note == "copy in test"


def test_every_row_shown_is_asked_for_once(tmp_path):
    rows = gather_pictures(inspected(write_troubled(tmp_path), TOLD).prepared).rows()
    assert len(rows) == len(set(rows)) == 10
