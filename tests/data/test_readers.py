"""The same images written in each form give the same manifest, and what cannot be used says so."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import picture

from automl_vision.config import DataSettings
from automl_vision.data.manifest import Manifest
from automl_vision.data.readers import READERS, read
from automl_vision.data.readers.reader import check_class_names
from automl_vision.errors import DataError
from trust.other_users import as_other_users

PLAIN = DataSettings()

# (set, label, name, seed): what every form writes.
IMAGES = [
    (name, label, f"{label[0]}{number}.png", seed)
    for seed, (name, label, number) in enumerate(
        (name, label, number)
        for name in ("train", "val", "test")
        for label in ("cat", "dog é", "10")
        for number in range(2)
    )
]


def write_rows(file: Path, rows: Iterable[Iterable[object]], delimiter: str = ",", bom: str = "") -> Path:
    with file.open("w", encoding="utf-8", newline="") as handle:
        handle.write(bom)
        csv.writer(handle, delimiter=delimiter).writerows(rows)
    return file


def as_class_folders(root: Path) -> Path:
    for name, label, file, seed in IMAGES:
        picture(root / label / name / "deep" / file.replace(".png", ".PnG"), seed)
    return root


def as_set_folders(root: Path) -> Path:
    spelling = {"train": "Train", "val": "valid", "test": "test"}
    for name, label, file, seed in IMAGES:
        picture(root / spelling[name] / label / file, seed)
    return root


def table_rows(root: Path) -> list[tuple[str, str, str]]:
    for name, _, file, seed in IMAGES:
        picture(root / "files" / f"{name} {file}", seed)
    return [(f"files/{name} {file}", label, name) for name, label, file, _ in IMAGES]


def as_csv(root: Path) -> Path:
    return write_rows(root / "t.csv", [("image", "label", "split"), *table_rows(root)])


def as_semicolon_csv(root: Path) -> Path:
    rows = [("File Path", "species", "split"), *table_rows(root)]
    return write_rows(root / "t.CSV", rows, delimiter=";", bom="\ufeff")


def as_tsv(root: Path) -> Path:
    rows = [("id", "filename", "class"), *((i, r[0], r[1]) for i, r in enumerate(table_rows(root)))]
    return write_rows(root / "t.tsv", rows, delimiter="\t")


def as_parquet(root: Path) -> Path:
    frame = pd.DataFrame(table_rows(root), columns=["path", "category", "split"])
    frame.to_parquet(root / "t.parquet")
    return root / "t.parquet"


FORMS: dict[str, tuple[str, Callable[[Path], Path], bool]] = {
    "class folders": ("class_folders", as_class_folders, False),
    "set folders": ("set_folders", as_set_folders, True),
    "csv": ("table", as_csv, True),
    "semicolons, byte order mark": ("table", as_semicolon_csv, True),
    "tsv": ("table", as_tsv, False),
    "parquet": ("table", as_parquet, True),
}


def content(manifest: Manifest, *, with_split: bool) -> set[tuple[str, bytes, str | None]]:
    """What a manifest says, whatever its files are called."""
    split = manifest.split if with_split and manifest.split else (None,) * len(manifest)
    return {
        (manifest.class_names[label], manifest.file(row).read_bytes(), split[row])
        for row, label in enumerate(manifest.labels)
    }


def test_every_reader_is_under_contract() -> None:
    assert {reader for reader, _, _ in FORMS.values()} == set(READERS)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_each_form_are_the_same_manifest(form: str, tmp_path: Path) -> None:
    reader, write, with_split = FORMS[form]
    for name in ("reference", "data"):
        (tmp_path / name).mkdir()
    reference = read(as_csv(tmp_path / "reference"), PLAIN)
    data = write(tmp_path / "data")
    assert next(name for name, each in READERS.items() if each.accepts(data)) == reader
    manifest = read(data, PLAIN)
    assert len(manifest) == len(IMAGES)
    assert manifest.class_names == reference.class_names == ("10", "cat", "dog é")
    assert manifest.labels.dtype == np.int64
    assert content(manifest, with_split=with_split) == content(reference, with_split=with_split)
    assert (manifest.split is not None) == with_split
    assert list(manifest.paths) == sorted(manifest.paths)
    assert manifest.root.is_absolute()
    assert not any(Path(path).is_absolute() for path in manifest.paths)


def refusal(data: Path, settings: DataSettings = PLAIN) -> str:
    with pytest.raises(DataError) as caught:
        read(data, settings)
    assert caught.value.fix
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ folders


def test_litter_is_ignored_and_counted(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.JPG")
    picture(tmp_path / "dog" / "sub" / "b.jpeg")
    litter = {
        "__MACOSX/cat/x.jpg": "__MACOSX",
        ".hidden/x.jpg": "hidden",
        "cat/.secret.jpg": "hidden",
        "cat/._a.JPG": "AppleDouble (._*)",
        "cat/Thumbs.db": "Thumbs.db",
        "dog/desktop.ini": "desktop.ini",
        "dog/.DS_Store": ".DS_Store",
        "dog/.ipynb_checkpoints/b.jpg": ".ipynb_checkpoints",
        "dog/notes.txt": "not an image: .txt",
        "dog/README": "not an image: no ending",
        "cover.png": "image outside the class folders",
    }
    for name in litter:
        picture(tmp_path / name)
    manifest = read(tmp_path, PLAIN)
    assert manifest.paths == ("cat/a.JPG", "dog/sub/b.jpeg")
    assert manifest.class_names == ("cat", "dog")
    assert sum(manifest.ignored.values()) == len(litter)
    assert set(manifest.ignored) == set(litter.values())


def test_class_folders_without_images_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    assert read(tmp_path, PLAIN).empty_classes == ("empty", "texts")


def test_a_class_that_is_empty_in_one_set_is_not_empty(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cat" / "a.png")
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "dog").mkdir(parents=True)
    manifest = read(tmp_path, PLAIN)
    assert manifest.empty_classes == ("dog",)
    assert manifest.split == ("train",) or manifest.split is None


def test_train_alone_is_no_split(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cat" / "a.png")
    picture(tmp_path / "train" / "dog" / "a.png")
    manifest = read(tmp_path, PLAIN)
    assert manifest.split is None
    assert manifest.class_names == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train/steam/a.png", "plane/jet/b.png", "car/c.png"):
        picture(tmp_path / name)
    manifest = read(tmp_path, PLAIN)
    assert manifest.class_names == ("car", "plane", "train")
    assert manifest.split is None


def test_other_folders_beside_sets_are_counted(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "test/cat/b.png", "docs/figure.png", "train/loose.png"):
        picture(tmp_path / name)
    manifest = read(tmp_path, PLAIN)
    assert manifest.split == ("test", "train")
    assert manifest.ignored == {"folder beside the set folders": 1, "image outside the class folders": 1}


def test_links_are_entered_once_and_never_lead_outside(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "cat" / "a.png")
    picture(root / "dog" / "b.png")
    picture(root / ".store" / "owls" / "o.png")
    picture(tmp_path / "elsewhere" / "c.png")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "cat" / "loop").symlink_to("loop")
    (root / "dog" / "here").symlink_to(".")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    (root / "owl").symlink_to(root / ".store" / "owls")
    (root / "dog" / "link.png").symlink_to(root / "dog" / "b.png")
    manifest = read(root, PLAIN)
    assert manifest.paths == ("cat/a.png", "dog/b.png", "dog/link.png", "owl/o.png")
    assert manifest.ignored["link to a folder outside"] == 1
    assert manifest.ignored["link to a folder that is read already"] == 3
    assert "fox/c.png" in read(root, DataSettings(allow_outside=True)).paths


def test_set_folders_that_are_links(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "cat" / "a.png")
    picture(tmp_path / "data" / "train" / "cat" / "b.png")
    (tmp_path / "data" / "test").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "val").symlink_to("train")
    manifest = read(tmp_path / "data", PLAIN)
    assert manifest.paths == ("train/cat/b.png",)
    open_to_all = read(tmp_path / "data", DataSettings(allow_outside=True))
    assert open_to_all.paths == ("test/cat/a.png", "train/cat/b.png")
    assert open_to_all.split == ("test", "train")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/c\xff\n"
    Path(os.fsdecode(folder)).mkdir()
    for name in (b"a\xfe.png", b"tab\t.png", "emoji \U0001f431.png".encode(), b"x" * 251 + b".png"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"bytes")
    manifest = read(tmp_path, PLAIN)
    assert manifest.class_names == ("c\\xff\n",)
    assert [manifest.file(row).read_bytes() for row in range(len(manifest))] == [b"bytes"] * 4
    assert manifest.fingerprint


@pytest.mark.parametrize(("first", "second"), [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")])
def test_class_names_that_look_alike_are_refused(first: str, second: str, tmp_path: Path) -> None:
    picture(tmp_path / first / "a.png")
    picture(tmp_path / second / "b.png")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system holds the two names for one")
    message = refusal(tmp_path)
    assert ascii(first) in message
    assert ascii(second) in message
    assert len(read(tmp_path, DataSettings(label_map="merges.csv")).class_names) == 2


@pytest.mark.parametrize(("classes", "length"), [(50_001, 5), (4_200, 1_000)])
def test_more_class_names_than_a_model_file_holds_are_refused(tmp_path: Path, classes: int, length: int) -> None:
    names = [f"{number:0{length}d}" for number in range(classes)]
    with pytest.raises(DataError, match=f"{classes:,} names of {classes * length:,} bytes"):
        check_class_names(names)
    check_class_names(names[: -100_000 // length])


def test_a_missing_path(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")
    assert "absent" in refusal(tmp_path / "absent")


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "empty" in refusal(tmp_path)
    (tmp_path / "cat").mkdir()
    assert "empty" in refusal(tmp_path)


def test_a_folder_of_texts_says_what_was_found(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.txt").write_text("text")
    assert "12 .txt" in refusal(tmp_path)


def test_images_without_class_folders_say_what_is_expected(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert "class folders" in refusal(tmp_path)
    assert "cat/1.jpg" in refusal(tmp_path)
    write_rows(tmp_path / "labels.csv", [("image", "label"), ("a.png", "cat")])
    assert "labels.csv" in refusal(tmp_path)


def test_one_class_is_left_to_the_split(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    assert read(tmp_path, PLAIN).class_names == ("cat",)


@pytest.mark.parametrize(("name", "hint"), [("x.zip", "unpack"), ("x.png", "folder"), ("x.docx", ".csv")])
def test_other_files_are_refused_with_a_hint(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"bytes")
    assert hint in refusal(tmp_path / name)


# ------------------------------------------------------------------------------------------------- tables


def test_all_problems_of_a_table_come_at_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    rows = [
        ("image", "label", "split", "is_augmented"),
        ("a.png", "cat", "train", "no"),
        ("gone.png", "cat", "train", ""),
        ("b.png", "", "train", "1"),
        ("a.png", "dog", "train", "no"),
        ("c.png", "dog", "trian", "maybe"),
        ("../outside.png", "dog", "", ""),
        ("/etc/passwd", "dog", "", ""),
        ("https://x.org/a.png", "dog", "", ""),
        ("b.png", "dog", "test", "", "more"),
        ("", "dog", "", ""),
        ("gone2.png", "cat", "", ""),
    ]
    message = refusal(write_rows(tmp_path / "t.csv", rows))
    expected = {
        3: "missing file 'gone.png'",
        4: "empty label",
        5: "'cat' in line 2",
        6: "'trian'",
        7: "leads out",
        8: "leads out",
        9: "download",
        10: "5 fields under 4 columns",
        11: "no image path",
    }
    for line, what in expected.items():
        assert f"line {line}: " in message
        assert what in message
    assert "'maybe'" in message
    assert "11 problems" in message
    assert "and 1 more" in message


def test_line_numbers_count_lines_within_quotes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text('image,label,note\na.png,cat,"two\nlines"\n\ngone.png,cat,\n')
    assert "line 5: missing" in refusal(tmp_path / "t.csv")


def test_skip_bad_rows_keeps_missing_files_and_counts_the_rest(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [
        ("image", "label"),
        ("a.png", "cat"),
        ("gone.png", "dog"),
        ("b.png", ""),
        ("", "x"),
        ("a.png", "cat"),
    ]
    manifest = read(write_rows(tmp_path / "t.csv", rows), DataSettings(skip_bad_rows=True))
    assert manifest.paths == ("a.png", "gone.png")
    assert manifest.class_names == ("cat", "dog")
    counted = {"row without a label": 1, "row without an image path": 1, "repeated row": 1}
    assert manifest.ignored == counted


def test_a_table_of_which_no_file_is_there_is_refused_all_the_same(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [("image", "label"), ("x/a.png", "cat"), ("x/b.png", "dog")])
    assert str(tmp_path) in refusal(table, DataSettings(skip_bad_rows=True))


def test_the_users_own_columns(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    rows = [
        ("pic", "what", "part", "patient", "copy", "label"),
        ("./d.png", " dog ", "Testing", "p2", "0", "x"),
        ("c.png", "cat", "", "", "", "x"),
        ("sub/../b.png", "cat", "DEV", "p1", "TRUE", "x"),
        ("a.png", "cat", "training", "p1", "no", "x"),
    ]
    names = {"image": "pic", "label": "what", "split": "part", "group": "patient", "augmented": "copy"}
    settings = DataSettings(**{f"{key}_column": value for key, value in names.items()})
    manifest = read(write_rows(tmp_path / "t.csv", rows), settings)
    assert manifest.paths == ("a.png", "b.png", "c.png", "d.png")
    assert manifest.class_names == ("cat", "dog")
    assert manifest.split == ("train", "val", None, "test")
    assert manifest.group == ("p1", "p1", None, "p2")
    assert manifest.is_augmented == (False, True, None, False)


def test_empty_columns_are_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [("image", "label", "split", "group", "augmented"), ("a.png", "cat", "", "", "")]
    manifest = read(write_rows(tmp_path / "t.csv", rows), PLAIN)
    assert (manifest.split, manifest.group, manifest.is_augmented) == (None, None, None)


def test_paths_outside_need_leave(tmp_path: Path) -> None:
    outside = picture(tmp_path / "elsewhere" / "a.png")
    inside = picture(tmp_path / "data" / "b.png")
    rows = [("image", "label"), ("../elsewhere/a.png", "cat"), (str(inside), "dog")]
    table = write_rows(tmp_path / "data" / "t.csv", rows)
    assert "--allow-outside" in refusal(table)
    manifest = read(table, DataSettings(allow_outside=True))
    assert set(manifest.paths) == {str(outside), "b.png"}
    assert all(manifest.file(row).is_file() for row in range(2))


def test_backslashes_are_folders_where_no_such_file_is(tmp_path: Path) -> None:
    picture(tmp_path / "sub" / "a.png")
    table = write_rows(tmp_path / "t.csv", [("image", "label"), ("sub\\a.png", "cat")])
    assert read(table, PLAIN).paths == ("sub/a.png",)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    no_header = write_rows(tmp_path / "a.csv", [("a.png", "cat"), ("a.png", "cat")])
    assert "the first line looks like data" in refusal(no_header)
    odd = write_rows(tmp_path / "b.csv", [("pict", "labl"), ("a.png", "cat")])
    message = refusal(odd)
    assert "--image-column" in message
    assert "--label-column" in message
    assert "did you mean 'labl'" in refusal(odd, DataSettings(label_column="label", image_column="pict"))
    twice = write_rows(tmp_path / "c.csv", [("image", "tag", "tag"), ("a.png", "cat", "cat")])
    assert "2 columns 'tag'" in refusal(twice, DataSettings(label_column="tag"))


def test_tables_with_nothing_in_them(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("\n \n")
    assert "empty" in refusal(tmp_path / "empty.csv")
    assert refusal(write_rows(tmp_path / "header.csv", [("image", "label")]))
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    assert "no text" in refusal(tmp_path / "binary.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no parquet")
    assert "cannot read" in refusal(tmp_path / "bad.parquet")


def test_numbers_are_labels_too(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    frame = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "label": [3.0, 12.0, 3.0], "group": [1, 2, 1]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame["label"] = frame["label"].astype(int)
    frame.to_csv(tmp_path / "t.csv", index=False)
    wide, text = read(tmp_path / "t.parquet", PLAIN), read(tmp_path / "t.csv", PLAIN)
    assert wide.fingerprint == text.fingerprint
    assert wide.class_names == ("12", "3")


def test_names_that_no_file_can_have_are_missing_files(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [("image", "label"), ("x" * 5000 + ".png", "cat")])
    assert "missing file" in refusal(table)


@given(
    header=st.lists(st.sampled_from(["image", "label", "split", "group", "augmented", ""]), max_size=6),
    rows=st.lists(
        st.lists(st.one_of(st.sampled_from(["a.png", "cat", "train", "1", ""]), st.text(max_size=8)), max_size=6),
        max_size=6,
    ),
    skip=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_a_manifest_or_one_error(
    header: list[str], rows: list[list[str]], skip: bool, tmp_path: Path
) -> None:
    picture(tmp_path / "a.png", seed=0)
    with (tmp_path / "t.csv").open("w", encoding="utf-8", errors="surrogatepass", newline="") as handle:
        csv.writer(handle).writerows([header, *rows])
    try:
        manifest = read(tmp_path / "t.csv", DataSettings(skip_bad_rows=skip))
    except DataError as error:
        assert error.fix
    else:
        assert len(manifest) == len(manifest.labels) > 0
        assert set(manifest.labels) == set(range(len(manifest.class_names)))


def test_tables_of_excel_in_utf16(tmp_path: Path) -> None:
    picture(tmp_path / "é.png")
    (tmp_path / "t.csv").write_text("image\tlabel\né.png\tcat\n", encoding="utf-16")
    assert read(tmp_path / "t.csv", PLAIN).paths == ("é.png",)


def test_reasons_that_passed_nothing_over_are_not_counted(tmp_path: Path) -> None:
    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read(tmp_path, DataSettings()).ignored == {}


#: What an ordinary user sees: the images that are listed, what is passed over, and what is wrong with each file.
AS_OTHERS_SEE_IT = """
import json, sys
from pathlib import Path
from automl_vision.config import DataSettings
from automl_vision.data.files import read_bytes
from automl_vision.data.readers import read
from automl_vision.errors import DataError, ImageReadError

def fault(path):
    try:
        return bool(read_bytes(path)) and ""
    except ImageReadError as error:
        return error.kind

manifest = read(Path(sys.argv[1]), DataSettings())
told = {"faults": {path: fault(manifest.root / path) for path in manifest.paths}, "ignored": dict(manifest.ignored)}
try:
    read(Path(sys.argv[2]), DataSettings())
except DataError as error:
    told["refused"] = error.what
print(json.dumps(told))
"""


def test_files_and_folders_that_may_not_be_read_are_counted(tmp_path: Path) -> None:
    before = as_other_users()
    if before is None:
        pytest.skip("the first user reads everything, and nothing takes that away here")
    for name in ("cat/1.png", "cat/2.png", "cat/closed/3.png", "dog/1.png", "shut/cat/1.png"):
        picture(tmp_path / ("" if name.startswith("shut") else "data") / name)
    closed = [tmp_path / "data/cat/2.png", tmp_path / "data/cat/closed", tmp_path / "shut"]
    for path in closed:
        path.chmod(0)
    line = [*before, sys.executable, "-c", AS_OTHERS_SEE_IT, str(tmp_path / "data"), str(tmp_path / "shut")]
    try:
        ended = subprocess.run(line, capture_output=True, text=True, check=True)
    finally:
        for path in closed:
            path.chmod(0o700)
    told = json.loads(ended.stdout)
    assert told["faults"] == {"cat/1.png": "", "cat/2.png": "unreadable", "dog/1.png": ""}
    assert told["ignored"] == {"folder that cannot be opened": 1}
    assert told["refused"] == "the folder cannot be opened"


TEN = ["image,label", *(f"{letter}.png,{'cat' if letter < 'e' else 'dog'}" for letter in "abcdefgh")]


@pytest.fixture
def ten(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """A table of eight images in which one text is replaced by another."""
    for line in TEN[1:]:
        picture(tmp_path / line.partition(",")[0])

    def written(old: str, new: bytes) -> Path:
        file = tmp_path / "table.csv"
        file.write_bytes("\n".join(TEN).encode().replace(old.encode(), new))
        return file

    return written


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("d.png,cat", b'd.png,"cat', "the table is damaged"),
        ("d.png,cat\ne.png,dog", b'd.png,"cat\ne.png,dog"', "goes over several lines: is a quote missing?"),
        ("d.png,cat\ne.png,dog", b'd.png,"cat\ne".png,dog', "the table is damaged"),
        ("d.png,cat", "d.png,thé".encode("latin-1"), "is not UTF-8: save the table as CSV in UTF-8"),
        ("image,label", b"image,label," + b"x" * 200_000, "the table is damaged"),
        ("d.png,cat", b"d.png," + b"c" * 1_001, "a class name has over 1,000 characters"),
    ],
    ids=["quote to the end", "quote to the next", "quote amid a line", "Latin-1", "endless header", "long class"],
)
def test_a_table_that_is_none_is_refused_and_nothing_of_it_is_lost(
    ten: Callable[[str, bytes], Path], old: str, new: bytes, said: str
) -> None:
    assert sum(read(ten("", b""), PLAIN).labels) == 4
    message = refusal(ten(old, new))
    assert said in message
    assert len(message) < 1_000


def test_a_table_that_holds_the_images_themselves_says_so_in_few_words(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    images = [{"bytes": bytes(300_000), "path": f"{number}.png"} for number in range(8)]
    pd.DataFrame({"image": images, "label": [0, 1] * 4}).to_parquet(file)
    message = refusal(file)
    assert "the images lie inside of the table" in message
    assert "--data hf:NAME" in message
    assert len(message) < 1_000


def test_columns_of_no_text_beside_the_paths_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    columns = {"path": ["a.png", "b.png"], "label": ["x", "y"], "thumbnail": [bytes(99), bytes(99)], "box": [[1], [2]]}
    pd.DataFrame(columns).to_parquet(tmp_path / "table.parquet")
    assert read(tmp_path / "table.parquet", PLAIN).class_names == ("x", "y")


def test_links_to_files_are_read_wherever_they_lead_and_counted(tmp_path: Path) -> None:
    """Class folders of links into a pool are common; but a folder of somebody else's may have links of his."""
    root, pool = tmp_path / "data", tmp_path / "pool"
    for name in ("a", "b", "c"):
        picture(pool / f"{name}.png")
    picture(root / "cat" / "own.png")
    picture(root / "dog" / "own.png")
    (root / "cat" / "a.png").symlink_to(pool / "a.png")
    (root / "dog" / "b.png").symlink_to("../../pool/b.png")
    (root / "dog" / "inside.png").symlink_to(root / "cat" / "own.png")
    (root / "dog" / "notes.txt").symlink_to(pool / "a.png")
    manifest = read(root, PLAIN)
    assert manifest.paths == ("cat/a.png", "cat/own.png", "dog/b.png", "dog/inside.png", "dog/own.png")
    assert manifest.outside == 2 and manifest.subset(np.arange(2)).outside == 2
    (root / "far").symlink_to(pool)
    table = root / "table.csv"
    lines = ["cat/a.png,cat", "cat/own.png,cat", "dog/inside.png,dog", "far/c.png,dog", "dog/own.png,dog"]
    table.write_text("image,label\n" + "\n".join(lines))
    assert read(table, PLAIN).outside == 2


def test_half_a_pair_of_surrogates_is_no_class_name() -> None:
    """As the JSON of a data set may have it."""
    with pytest.raises(DataError, match="not UTF-8"):
        check_class_names(["\ud800", "b"])


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ('a.png,cat,\n"b.png,dog,\nc.png,cat,\nd.png,dog",,', "line 5: the image path"),
        ('a.png,cat,\nb.png,dog,"train\nc.png,cat,\nd.png,dog,"', "line 5: the set"),
        ('a.png,cat,\n,"dog\nc.png,cat,\nd.png,dog",', "line 5: the label"),
    ],
)
def test_a_stray_quote_swallows_no_rows_in_silence(tmp_path: Path, rows: str, what: str, skip: bool) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    table = tmp_path / "t.csv"
    table.write_text(f"image,label,split\n{rows}\n")
    with pytest.raises(DataError) as caught:
        read(table, DataSettings(skip_bad_rows=skip))
    assert what in str(caught.value) and "goes over several lines: is a quote missing?" in str(caught.value)


def test_lines_inside_of_a_comment_are_counted(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    table = tmp_path / "t.csv"
    table.write_text('image,label,comment\na.png,cat,"big\nb.png,dog,\nc.png,cat,small"\nd.png,dog,\n')
    manifest = read(table, DataSettings())
    assert (len(manifest), manifest.ignored) == (2, {"line inside of a cell of another column": 2})
