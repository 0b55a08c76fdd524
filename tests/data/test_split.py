from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from lineage_cases import digest, make_compared, make_facts, make_manifest

from automl_vision.config import DataSettings, SplitSettings
from automl_vision.data.audit import Audit, audit
from automl_vision.data.deal import quota
from automl_vision.data.facts import Facts
from automl_vision.data.manifest import Manifest
from automl_vision.data.split import SPLIT_COLUMNS, Split, drop_small_classes, split, split_table
from automl_vision.errors import DataError

NAMES = DataSettings(lineage="names")
SHARES = SplitSettings()
HEX = "0123456789abcdef" * 2


@dataclass(frozen=True)
class World:
    """A data set whose truth is known: `source` of each row (N), and whether the row is a copy."""

    manifest: Manifest
    facts: Facts
    source: tuple[str, ...]
    is_copy: tuple[bool, ...]

    def reordered(self, order: list[int]) -> World:
        m, take = self.manifest, lambda column: column and tuple(column[i] for i in order)
        manifest = replace(
            m,
            paths=take(m.paths),
            labels=m.labels[order],
            split=take(m.split),
            group=take(m.group),
            is_augmented=take(m.is_augmented),
        )
        table = self.facts.table.iloc[order].reset_index(drop=True)
        return World(manifest, Facts(table), take(self.source), take(self.is_copy))


# What becomes of one source: how many files are made from it, under which names.
KINDS = {
    "alone": ["{s}.jpg"],
    "copies": ["{s}.jpg", "{s}_flip.jpg", "{s}_aug_1.png"],
    "folder": ["{s}.jpg", "augmented/{s}_2.jpg"],
    "equal": ["{s}.jpg", "again {s}.jpg"],
    "unsure": ["{s}_jpg.rf." + HEX + ".jpg", "{s}_jpg.rf.f" + HEX[1:] + ".jpg"],
    "orphan": ["aug_{n}_7{n}31.jpg"],
    "broken": ["{s}.jpg"],
    "broken_original": ["{s}.jpg", "{s}_blur.jpg"],
    "conflict": ["{s}.jpg", "{s}_crop.jpg", "../{other}/twin of {s}.jpg"],
}
BROKEN = {"broken": 0, "broken_original": 0}


@st.composite
def worlds(draw: st.DrawFn, user_split: bool = False, columns: bool = False) -> World:
    classes = ["ant", "bee", "cat"][: draw(st.integers(2, 3))]
    rows: list[dict[str, Any]] = []
    for c in classes:
        odd = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=6))
        kinds = ["alone"] * draw(st.integers(3, 12)) + odd
        other = classes[classes.index(c) - 1]
        for n, kind in enumerate(kinds):
            rows += rows_of(kind, c, other, n)
    if columns:
        for number, row in enumerate(rows):
            row["path"] = f"{row['label']}/{digest(number)}.jpg"
    sets = [draw(st.sampled_from(["train", "train", "test", "val"])) for _ in rows] if user_split else None
    manifest = make_manifest(
        [row["path"] for row in rows],
        [row["label"] for row in rows],
        split=tuple(sets) if sets else None,
        group=tuple(row["source"] for row in rows) if columns else None,
        is_augmented=tuple(row["copy"] for row in rows) if columns else None,
    )
    facts = make_facts(manifest, [row["pixels"] for row in rows], range(len(rows)), [row["fault"] for row in rows])
    return World(manifest, facts, tuple(r["source"] for r in rows), tuple(bool(r["copy"]) for r in rows))


def rows_of(kind: str, label: str, other: str, n: int) -> list[dict[str, Any]]:
    source = f"{label}{n}"
    made = []
    for i, pattern in enumerate(KINDS[kind]):
        name = pattern.format(s=source, n=n, other=other)
        twin = name.startswith("../")
        equal = kind == "equal" or (kind == "conflict" and i != 1)
        made.append(
            {
                "path": name[3:] if twin else f"{label}/{name}",
                "label": other if twin else label,
                "source": source,
                "copy": (i > 0 and kind not in ("equal", "unsure", "conflict")) or kind == "orphan",
                "pixels": source if equal else f"{source}/{i}",
                "fault": "truncated" if BROKEN.get(kind) == i else "",
            }
        )
    return made


def divided(world: World, seed: int = 0, shares: SplitSettings = SHARES) -> tuple[Audit, Split]:
    checked = audit(world.manifest, world.facts, NAMES)
    return checked, split(world.manifest, world.facts, checked, shares, seed=seed)


def assert_honest(world: World, checked: Audit, result: Split) -> None:
    """What must hold for every split of every data set."""
    name, role = result.name, checked.lineage.role
    sets = np.isin(name, ("train", "val", "test"))
    held_out = np.isin(name, ("val", "test"))
    for keys in (world.source, checked.lineage.group.tolist()):
        homes: dict[Any, set[str]] = {}
        for key, home in zip(np.array(keys)[sets].tolist(), name[sets].tolist(), strict=True):
            homes.setdefault(key, set()).add(home)
        assert all(len(home) == 1 for home in homes.values())
    assert (role[held_out] == "original").all()
    assert not np.array(world.is_copy)[held_out].any()
    assert result.eligible[held_out].all()
    assert not (checked.label_conflict & sets).any()
    assert not (checked.lineage.orphan & sets).any()
    assert ((name == "quarantine") == ~world.facts.usable).all()
    pixels = world.facts.pixel_digests[held_out]
    if world.manifest.is_augmented is None:  # a column may call both of two equal pictures originals
        assert len(set(pixels.tolist())) == len(pixels), "no picture is counted twice"
    val_groups = set(checked.lineage.group[name == "val"].tolist())
    for row in result.augmented_val.tolist():
        assert name[row] == "aside"
        assert role[row] == "copy"
        assert checked.lineage.group[row] in val_groups
    assert all(name[row] in ("aside", "quarantine") for row, _ in result.leaks)


def by_content(world: World, result: Split) -> Counter[tuple[Any, ...]]:
    table = world.facts.table
    return Counter(zip(table["pixel_digest"], world.manifest.labels.tolist(), result.name.tolist(), strict=True))


slow_ok = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@slow_ok
@given(worlds(), st.integers(0, 3))
def test_a_dealt_split_is_honest_whole_and_near_its_quotas(world: World, seed: int) -> None:
    checked, result = divided(world, seed)
    assert_honest(world, checked, result)
    assert result.leaks == ()
    assert result.seed == seed
    assert set(result.dealt) == {"test", "val"}
    for c in range(len(world.manifest.class_names)):
        mine = world.manifest.labels == c
        originals = int((checked.eligible & mine).sum())
        for held in ("test", "val"):
            assert ((result.name == held) & mine).sum() == quota(originals, 0.2)
        assert ((result.name == "train") & mine).any()
    lost = (result.name == "aside") & np.isin(checked.lineage.role, ("original", "unsure"))
    assert not (lost & ~checked.label_conflict).any(), "only copies and contradictions are set aside"


@slow_ok
@given(worlds(columns=True), st.integers(0, 3))
def test_columns_alone_make_it_honest(world: World, seed: int) -> None:
    assert_honest(world, *divided(world, seed))


@slow_ok
@given(worlds(user_split=True))
def test_a_users_split_becomes_honest(world: World) -> None:
    try:
        checked, result = divided(world)
    except DataError as error:
        event("refused")
        assert error.fix
        assert error.value
        return
    event("split")
    assert_honest(world, checked, result)
    given_sets = np.array(world.manifest.split)
    kept = np.isin(result.name, ("train", "val", "test"))
    dealt = {"test", "val"} - set(given_sets)
    moved = kept & (result.name != given_sets)
    assert set(result.name[moved]) <= dealt, "rows only ever move into a set that was missing"
    assert (result.seed is None) == (not dealt)
    assert set(result.dealt) == dealt


@slow_ok
@given(worlds(), st.data())
def test_the_order_of_the_rows_changes_nothing(world: World, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(world.manifest))))
    _, plain = divided(world)
    _, mixed = divided(world.reordered(order))
    assert (mixed.name == plain.name[order]).all()
    assert (mixed.eligible == plain.eligible[order]).all()


@slow_ok
@given(worlds(columns=True), st.text("abcxyz_0", min_size=1, max_size=5))
def test_renaming_files_that_columns_describe_changes_nothing(world: World, word: str) -> None:
    paths = tuple(f"{word}/{digest(word + path)}.png" for path in world.manifest.paths)
    renamed = replace(world, manifest=replace(world.manifest, paths=paths))
    assert by_content(world, divided(world)[1]) == by_content(renamed, divided(renamed)[1])


@slow_ok
@given(worlds())
def test_renaming_stems_consistently_changes_nothing(world: World) -> None:
    def renamed_path(path: str) -> str:
        folder, _, file = path.rpartition("/")
        for label in world.manifest.class_names:
            file = file.replace(label, f"zz-{label}-")
        return f"{folder}/{file}"

    paths = tuple(renamed_path(path) for path in world.manifest.paths)
    renamed = replace(world, manifest=replace(world.manifest, paths=paths))
    assert by_content(world, divided(world)[1]) == by_content(renamed, divided(renamed)[1])


def plain_world(per_class: int = 20, classes: str = "abc", **columns: Any) -> World:
    paths = [f"{c}/{c}x{i}.jpg" for c in classes for i in range(per_class)]
    manifest = make_manifest(paths, **columns)
    return World(manifest, make_facts(manifest), tuple(paths), (False,) * len(paths))


def test_the_seed_decides() -> None:
    world = plain_world()
    assert (divided(world, 1)[1].name == divided(world, 1)[1].name).all()
    assert len({tuple(divided(world, seed)[1].name) for seed in range(5)}) == 5


def test_patients_with_several_labels_stay_together() -> None:
    paths = [f"{c}/{c}p{p}.jpg" for c in "ab" for p in range(12)]
    world = plain_world(12, "ab", group=tuple(f"p{i}" for i in range(12)) * 2)
    checked, result = divided(world)
    assert len(paths) == len(result.name)
    assert_honest(replace(world, source=tuple(str(g) for g in checked.lineage.group)), checked, result)
    assert Counter(result.name.tolist())["test"] == 4


def test_one_usable_class_is_refused_with_numbers() -> None:
    manifest = make_manifest(["a/1.jpg", "a/2.jpg", "b/3.jpg"])
    facts = make_facts(manifest, faults=["", "", "empty"])
    with pytest.raises(DataError, match="two classes") as caught:
        split(manifest, facts, audit(manifest, facts, NAMES), SHARES, seed=0)
    assert "'a' 2, 'b' 0" in str(caught.value)


def small_world() -> World:
    paths = [f"{c}/{c}x{i}.jpg" for c, n in {"a": 5, "b": 2, "c": 4, "d": 1}.items() for i in range(n)]
    manifest = make_manifest(paths)
    return World(manifest, make_facts(manifest), tuple(paths), (False,) * len(paths))


def test_small_classes_are_all_named() -> None:
    with pytest.raises(DataError, match="--drop-small-classes") as caught:
        divided(small_world())
    assert caught.value.value == "'b' 2, 'd' 1"


def test_small_classes_can_be_dropped() -> None:
    world = small_world()
    checked = audit(world.manifest, world.facts, NAMES)
    manifest, facts = drop_small_classes(world.manifest, world.facts, checked)
    assert manifest.class_names == ("a", "c")
    assert [manifest.class_names[label] for label in manifest.labels] == [p[0] for p in manifest.paths]
    assert facts.table["file_digest"].tolist() == [digest(("file", path)) for path in manifest.paths]
    assert sum(manifest.ignored.values()) == 3
    checked, result = divided(World(manifest, facts, manifest.paths, (False,) * 9))
    assert {"train", "val", "test"} <= set(result.name)
    assert drop_small_classes(manifest, facts, checked) == (manifest, facts)


def test_copies_do_not_make_a_class_large_enough() -> None:
    paths = [f"{c}/{c}x{i}{end}.jpg" for c in "ab" for i in range(2) for end in ("", "_flip", "_rot90")]
    manifest = make_manifest(paths)
    world = World(manifest, make_facts(manifest), tuple(paths), (False,) * len(paths))
    with pytest.raises(DataError, match="'a' 2, 'b' 2"):
        divided(world)


def users_split(rows: dict[str, str | None], **columns: Any) -> tuple[Manifest, Split]:
    manifest = make_manifest(list(rows), split=tuple(rows.values()), **columns)
    facts = make_facts(manifest)
    return manifest, split(manifest, facts, audit(manifest, facts, NAMES), SHARES, seed=0)


FULL: dict[str, str | None] = {
    f"{c}/{c}{s}{i}.jpg": s for c in "ab" for s in ("train", "val", "test") for i in range(3)
}


def test_a_clean_split_is_kept_as_it_is() -> None:
    manifest, result = users_split(FULL)
    assert result.name.tolist() == list(manifest.split or ())
    assert result.leaks == ()
    assert result.seed is None


@pytest.mark.parametrize(
    ("extra", "expected", "reason"),
    [
        ({"a/atest0_flip.jpg": "train"}, "aside", "in train, but its group is in test"),
        ({"a/atest0_flip.jpg": "val"}, "aside", "copy in val"),
        ({"a/atest0_flip.jpg": "test"}, "aside", "copy in test"),
        ({"a/atrain0_flip.jpg": "test"}, "aside", "copy in test"),
        ({"a/atrain0_flip.jpg": "val"}, "aside", "copy in val"),
        ({"a/aval0_flip.jpg": "train"}, "aside", "in train, but its group is in val"),
        ({"a/aval0_flip.jpg": "val"}, "aside", ""),
        ({"a/atrain0_flip.jpg": "train"}, "train", ""),
        ({"a/aug_1_2345.jpg": "test"}, "aside", "copy in test"),
        ({"a/aug_1_2345.jpg": "train"}, "aside", ""),
        ({"a/new.jpg": None}, "train", ""),
    ],
)
def test_leaks_across_a_users_split(extra: dict[str, str | None], expected: str, reason: str) -> None:
    manifest, result = users_split({**FULL, **extra})
    row = manifest.paths.index(next(iter(extra)))
    assert result.name[row] == expected
    assert result.leaks == (((row, reason),) if reason else ())
    assert (np.delete(result.name, row) == np.delete(np.array(manifest.split), row)).all()
    beside_val = "aval0_flip" in manifest.paths[row]
    assert result.augmented_val.tolist() == ([row] if beside_val else [])


def test_files_of_one_source_across_sets_only_train() -> None:
    pair = {f"a/s_jpg.rf.{HEX}.jpg": "train", f"a/s_jpg.rf.f{HEX[1:]}.jpg": "test"}
    manifest, result = users_split({**FULL, **pair})
    sets = {path: str(each) for path, each in zip(manifest.paths, result.name, strict=True)}
    assert [sets[path] for path in pair] == ["train", "aside"]
    assert [manifest.paths[row] for row, _ in result.leaks] == [list(pair)[1]]


def test_one_picture_with_two_labels_across_sets_is_a_leak() -> None:
    rows = {**FULL, "a/one.jpg": "train", "b/two.jpg": "test"}
    manifest = make_manifest(list(rows), split=tuple(rows.values()))
    facts = make_facts(manifest, ["same" if p in ("a/one.jpg", "b/two.jpg") else p for p in rows])
    result = split(manifest, facts, audit(manifest, facts, NAMES), SHARES, seed=0)
    assert result.name[-2:].tolist() == ["aside", "aside"]
    assert [row for row, _ in result.leaks if rows[manifest.paths[row]] == "train"] == [len(rows) - 2]


@pytest.mark.parametrize("missing", ["test", "val"])
def test_a_missing_set_is_dealt_from_train_and_no_other(missing: str) -> None:
    rows = {path: "train" if each == missing else each for path, each in FULL.items()}
    manifest, result = users_split(rows)
    given_sets = np.array(manifest.split)
    assert set(given_sets[result.name == missing]) == {"train"}
    assert Counter(manifest.labels[result.name == missing].tolist()) == {0: 1, 1: 1}
    assert (result.name[given_sets != "train"] == given_sets[given_sets != "train"]).all()
    assert result.seed == 0


def test_a_class_to_judge_must_be_trained() -> None:
    rows = {**FULL, "c/only.jpg": "test"}
    with pytest.raises(DataError, match="'c' 0"):
        users_split(rows)


def test_a_test_set_of_copies_is_refused() -> None:
    rows = {path: each for path, each in FULL.items() if each != "test"}
    rows |= {f"{c}/{c}train{i}_flip.jpg": "test" for c in "ab" for i in range(3)}
    with pytest.raises(DataError, match="no image of the given test set") as raised:
        users_split(rows)
    assert "--lineage" not in str(raised.value)


ALIKE = "where pictures that look alike are no copies of each other, give --lineage names"


@pytest.mark.parametrize(
    ("readable", "found", "said"),
    [
        pytest.param(3, (0, 1, True), True, id="joined"),
        pytest.param(3, (0, 1, False), True, id="perhaps one"),
        pytest.param(2, (4, 5, True), False, id="joined in the other class"),
        pytest.param(2, (4, 5, False), False, id="perhaps one in the other class"),
    ],
)
def test_where_likeness_leaves_a_class_too_few_originals_the_way_out_is_told(
    readable: int, found: tuple[int, int, bool], said: bool
) -> None:
    manifest = make_manifest([*(f"a/{i}.jpg" for i in range(4)), *(f"b/{i}.jpg" for i in range(12))])
    faults = [""] * readable + ["truncated"] * (4 - readable) + [""] * 12
    facts = make_facts(manifest, faults=faults, compared=make_compared(found))
    with pytest.raises(DataError, match="too few originals") as raised:
        split(manifest, facts, audit(manifest, facts, DataSettings()), SHARES, seed=0)
    assert "'b'" not in str(raised.value)
    assert (ALIKE in str(raised.value)) is said


def test_a_test_set_that_looks_like_train_is_refused_with_the_way_out() -> None:
    manifest = make_manifest(list(FULL), split=tuple(FULL.values()))
    tested = [row for row, each in enumerate(FULL.values()) if each == "test"]
    trained = [row for row, each in enumerate(FULL.values()) if each == "train"]
    pairs = [(*sorted(pair), True) for pair in zip(tested, trained, strict=False)]
    facts = make_facts(manifest, compared=make_compared(*pairs))
    with pytest.raises(DataError, match="no image of the given test set") as raised:
        split(manifest, facts, audit(manifest, facts, DataSettings()), SHARES, seed=0)
    assert ALIKE in str(raised.value)


def test_the_table_is_the_contract() -> None:
    paths = [
        "a/augmented/lost.jpg",
        "a/x.jpg",
        "a/x_flip.jpg",
        *(f"{c}/{c}{i}.jpg" for c in "ab" for i in range(5)),
    ]
    manifest = make_manifest(paths)
    facts = make_facts(manifest, faults=[""] * (len(paths) - 1) + ["empty"])
    checked = audit(manifest, facts, NAMES)
    table = split_table(manifest, facts, checked, split(manifest, facts, checked, SHARES, seed=3))
    assert tuple(table.columns) == SPLIT_COLUMNS
    assert table["path"].tolist() == paths
    assert set(table["split"]) <= {"train", "val", "test", "aside", "quarantine"}
    assert set(table["eligible"]) == {0, 1}
    assert table["group"].dtype == np.int64
    assert table.iloc[-1][["label", "split", "role", "eligible"]].tolist() == ["b", "quarantine", "unsure", 0]
    assert table.iloc[0][["split", "role", "eligible"]].tolist() == ["aside", "copy", 0]
    assert (table.loc[table["split"] == "test", "eligible"] == 1).all()


def test_hundreds_of_small_classes_do_not_fill_the_screen() -> None:
    paths = [f"{number:03}/{number:03}x{i}.jpg" for number in range(300) for i in range(2)]
    manifest = make_manifest(paths)
    with pytest.raises(DataError, match="--max-samples") as caught:
        divided(World(manifest, make_facts(manifest), tuple(paths), (False,) * len(paths)))
    assert str(caught.value.value).endswith("and 280 more classes")
