import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.errors import DataError
from automl_vision.report.predictions import Predictions

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nasty = st.sampled_from(
    [
        "",
        "a,b",
        'say "hi"',
        "two\nlines",
        "cr\rlf\r\n",
        "=1+1",
        "+1",
        "-1",
        "@x",
        "'=x",
        "''-x",
        "'tis",
        "日本 🐱",
        "\tx",
        "p:",
    ]
)


def made(names, n=5, seed=0, paths=None):
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.ones(len(names)), size=n)
    return Predictions(
        paths=tuple(paths) if paths else tuple(f"{i}.jpg" for i in range(n)),
        labels=rng.integers(0, len(names), n),
        groups=rng.integers(0, 3, n),
        probabilities=chances,
        class_names=tuple(names),
    )


def same(first, second):
    return (
        first.paths == second.paths
        and first.class_names == second.class_names
        and np.array_equal(first.labels, second.labels)
        and np.array_equal(first.groups, second.groups)
        and first.probabilities.tobytes() == second.probabilities.tobytes()
    )


@given(
    names=st.lists(text | nasty, min_size=1, max_size=5, unique=True),
    paths=st.lists(text | nasty, max_size=6),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_comes_back_to_the_last_bit(tmp_path_factory, names, paths, seed):
    file = tmp_path_factory.mktemp("predictions") / "p.csv"
    before = made(names, n=len(paths), seed=seed, paths=paths)
    before.to_csv(file)
    assert same(before, Predictions.from_csv(file))


def test_extreme_probabilities_come_back(tmp_path):
    chances = np.array([[1.0, 0.0], [5e-324, 1.0], [0.1 + 0.2, 1 / 3]])
    before = Predictions(("a", "b", "c"), np.array([0, 1, 0]), np.arange(3), chances, ("x", "y"))
    before.to_csv(tmp_path / "p.csv")
    assert same(before, Predictions.from_csv(tmp_path / "p.csv"))


def test_bytes_of_a_file_name_that_are_no_utf8_come_back(tmp_path):
    before = made(["a", "b"], n=1, paths=[b"caf\xe9.jpg".decode("utf-8", "surrogateescape")])
    before.to_csv(tmp_path / "p.csv")
    assert same(before, Predictions.from_csv(tmp_path / "p.csv"))


def test_columns_say_what_they_hold(tmp_path):
    made(["cat", "dog"]).to_csv(tmp_path / "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table) == ["path", "label", "predicted", "correct", "probability", "group", "p:cat", "p:dog"]
    assert (table["correct"] == (table["label"] == table["predicted"])).all()
    assert (table["probability"] == table[["p:cat", "p:dog"]].max(axis=1)).all()


def test_no_cell_starts_a_formula(tmp_path):
    made(["=cmd|' /C calc'!A0", "@b"], paths=["=1", "+1", "-1", "@1", "\t1"]).to_csv(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r")]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "p.csv"
    made(["a", "b"]).to_csv(file)
    old = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        made(["a", "b"], seed=1).to_csv(file)
    assert file.read_bytes() == old
    assert [each.name for each in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no file of predictions"),
        ("a,b\n1,2\n", "no file of predictions"),
        ("path,label,predicted,correct,probability,group,p:a\nx,b,a,1,1.0,0,1.0\n", "row 1.*no class"),
        ("path,label,predicted,correct,probability,group,p:a\nx,a,a,1,1.0,0,much\n", "row 1"),
        ("path,label,predicted,correct,probability,group,p:a\nx,a,a,1,1.0,0,nan\n", "not finite"),
        ("path,label,predicted,correct,probability,group,p:a\nx,a,a,1,1.0,0,1.0,0.0\n", "2 probabilities"),
        ("path,label,predicted,correct,probability,group,p:a\nx,a\n", "row 1"),
        (
            f"path,label,predicted,correct,probability,group,p:a\nx,a,a,1,1.0,{'9' * 25},1.0\n",
            "row 1.*no number of a group",
        ),
    ],
)
def test_a_foreign_file_is_named_and_refused(tmp_path, content, said):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        Predictions.from_csv(tmp_path / "p.csv")


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        Predictions.from_csv(tmp_path / "nowhere.csv")


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match="disagree"):
        Predictions(("a",), np.array([0]), np.array([0]), np.ones((1, 3)), ("x", "y"))


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_outside_the_classes_is_refused(label):
    with pytest.raises(ValueError, match="labels"):
        Predictions(("a",), np.array([label]), np.array([0]), np.ones((1, 2)), ("x", "y"))


def test_the_file_is_utf8_whatever_names_are(tmp_path):
    """Bytes of a file name that are no text, and half a pair of surrogates, which a crafted model file may name."""
    names = ["a", "\ud800", "b;=1"]
    before = made(names, n=2, paths=[b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "x;=1.jpg"])
    before.to_csv(tmp_path / "p.csv")
    assert list(pd.read_csv(tmp_path / "p.csv")["path"]) == ["caf\\udce9.jpg", "x;'=1.jpg"]
    after = Predictions.from_csv(tmp_path / "p.csv")
    assert (after.paths, after.class_names) == (before.paths, before.class_names)
    assert (after.probabilities == before.probabilities).all()


BYTE = b"\xe9".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "names",
    [
        (r"\udce9", BYTE),
        (r"\u005cudce9", r"\udce9", r"\\udce9", "\\" + BYTE),
        (r"=\udce9", "=" + BYTE, r"\uDCE9", r"\u005c"),
    ],
)
def test_letters_like_an_escape_come_back_as_letters(tmp_path, names):
    before = made(list(names), n=len(names), paths=[f"{name}/x.png" for name in names])
    before.to_csv(tmp_path / "p.csv")
    (tmp_path / "p.csv").read_text(encoding="utf-8")
    after = Predictions.from_csv(tmp_path / "p.csv")
    assert (after.paths, after.class_names) == (before.paths, before.class_names)
    assert (after.labels == before.labels).all()


odd = st.text(st.sampled_from(["\\", "u", "d", "c", "e", "9", "0", "5", BYTE, "=", ";"]), max_size=14)


@settings(max_examples=200, deadline=None)
@given(st.lists(odd, min_size=2, max_size=4, unique=True))
def test_odd_names_come_back_whatever_they_are(tmp_path_factory, names):
    file = tmp_path_factory.mktemp("odd") / "p.csv"
    before = made(names, n=len(names), paths=names)
    before.to_csv(file)
    after = Predictions.from_csv(file)
    assert (after.paths, after.class_names) == (before.paths, before.class_names)
