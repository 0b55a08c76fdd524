"""Labels that look wrong: the definition of confident learning, and planted errors that it must find."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.models.probe import fit_probe
from automl_vision.report.label_errors import (
    COLUMNS,
    LISTED,
    Checked,
    find_suspects,
    one_of_each_group,
    suspect_rows,
    suspects_csv,
)


def checked_of(labels, probabilities, groups=None, names=("a", "b", "c"), paths=None):
    n = len(labels)
    return Checked(
        paths=paths or [f"{i}.jpg" for i in range(n)],
        sets=["train"] * n,
        roles=["original"] * n,
        labels=np.asarray(labels),
        groups=np.arange(n) if groups is None else np.asarray(groups),
        probabilities=np.asarray(probabilities, dtype=np.float64),
        class_names=names,
    )


def test_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Class 0 is believed from (.9 + .8 + .1) / 3 = .6 on, class 1 from (.9 + .5 + .35) / 3 on.
    first = np.array([0.9, 0.8, 0.1, 0.1, 0.5, 0.65])
    found = find_suspects(labels, np.stack([first, 1 - first], axis=1))
    np.testing.assert_allclose(found.thresholds, [0.6, 1.75 / 3])
    assert found.rows.tolist() == [2, 5]  # the surest first; row 4 is believed to be neither
    assert found.suggested.tolist() == [1, 0]
    np.testing.assert_allclose(found.margin, [-0.8, -0.3])


def test_a_class_that_no_label_names_is_never_suggested():
    probabilities = np.tile([0.1, 0.1, 0.8], (6, 1))
    found = find_suspects(np.array([0, 1] * 3), probabilities)
    assert np.isnan(found.thresholds[2])
    assert 2 not in found.suggested


def test_nothing_is_wrong_where_every_label_is_believed():
    labels = np.arange(30) % 3
    assert len(find_suspects(labels, np.eye(3)[labels])) == 0
    assert len(find_suspects(np.zeros(0, dtype=np.int64), np.zeros((0, 3)))) == 0


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.full((4, 2), np.nan), np.zeros(4)])
def test_what_cannot_be_ranked_is_refused(bad):
    with pytest.raises(ValueError, match=r"disagree|finite"):
        find_suspects(np.zeros(4, dtype=np.int64), bad)


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_suspects_contradict_their_label_and_come_in_order(seed, classes, n):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)
    found = find_suspects(labels, probabilities)
    assert (found.suggested != labels[found.rows]).all()
    assert (np.diff(found.margin) >= 0).all()
    assert len(set(found.rows.tolist())) == len(found)
    suggested = probabilities[found.rows, found.suggested]
    assert (suggested >= found.thresholds[found.suggested]).all()
    order = rng.permutation(n)  # the order of the images changes nothing
    again = find_suspects(labels[order], probabilities[order])
    assert set(order[again.rows].tolist()) == set(found.rows.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_are_among_the_first(seed):
    """5 % of 800 labels of four overlapping clouds are wrong: of the first 40 suspects at least 32 are planted."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 800)
    features = (2.2 * np.eye(4)[truth] @ rng.normal(size=(4, 12)) + rng.normal(size=(800, 12))).astype(np.float32)
    wrong = rng.choice(800, 40, replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, 4, 40)) % 4
    probe = fit_probe(features, labels, np.arange(800) // 2, 4, seed=seed)
    found = find_suspects(labels, probe.out_of_fold.astype(np.float64))
    hits = np.isin(found.rows[:40], wrong)
    assert hits.sum() >= 32
    right = found.suggested[:40][hits] == truth[found.rows[:40][hits]]
    assert right.mean() > 0.9


def test_a_copy_beside_it_would_hide_a_wrong_label():
    """Why groups are held out whole: a probe that saw a copy with the same wrong label believes it."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 2, 60), 4)
    centres = np.repeat(rng.normal(size=(60, 40)), 4, axis=0)
    features = (centres + 0.05 * rng.normal(size=centres.shape)).astype(np.float32)
    features[:, 0] += 8 * truth
    labels, groups = truth.copy(), np.repeat(np.arange(60), 4)
    labels[groups < 4] = 1 - labels[groups < 4]
    whole, single = (
        find_suspects(labels, fit_probe(features, labels, each, 2, strengths=(0.01,)).out_of_fold.astype(np.float64))
        for each in (groups, np.arange(240))
    )
    wrong = np.flatnonzero(groups < 4)
    assert np.isin(wrong, whole.rows).sum() >= np.isin(wrong, single.rows).sum() + 4


def test_rows_say_what_was_found_and_groups_are_shown_once():
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    first = np.array([0.05, 0.1, 0.95, 0.9, 0.1, 0.1, 0.05, 0.9])
    checked = checked_of(labels, np.stack([first, 1 - first, 0 * first], axis=1), [7, 7, 1, 2, 3, 4, 5, 6])
    rows = suspect_rows(checked, find_suspects(checked.labels, checked.probabilities))
    assert [row["path"] for row in rows] == ["0.jpg", "1.jpg", "7.jpg"]
    assert rows[0] | {"margin": None} == {
        "row": 0,
        "path": "0.jpg",
        "label": "a",
        "suggested": "b",
        "probability": 0.95,
        "probability_of_label": 0.05,
        "margin": None,
        "set": "train",
        "group": 7,
        "role": "original",
    }
    shown = one_of_each_group(rows)
    assert [(row["path"], row["alike"]) for row in shown] == [("0.jpg", 1), ("7.jpg", 0)]
    apart = one_of_each_group([rows[0], rows[2], rows[1]])  # what is ranked first stays first
    assert [(row["path"], row["alike"]) for row in apart] == [("0.jpg", 1), ("7.jpg", 0)]


def test_the_list_is_bounded():
    n = LISTED + 500
    probabilities = np.tile([0.9, 0.1], (n, 1))
    labels = np.ones(n, dtype=np.int64)
    labels[0] = 0
    probabilities[1] = [0.0, 1.0]
    checked = checked_of(labels, probabilities, names=("a", "b"))
    found = find_suspects(labels, probabilities)
    assert len(found) > LISTED
    assert len(suspect_rows(checked, found)) == LISTED


def test_the_table_runs_no_formula():
    labels, first = [0, 0, 1, 1], np.array([0.1, 0.9, 0.1, 0.1])
    probabilities = np.stack([first, 1 - first], axis=1)
    checked = checked_of(labels, probabilities, names=("=cmd()", "b\r\nc"), paths=["@x", "y", "z", "w"])
    text = suspects_csv(suspect_rows(checked, find_suspects(checked.labels, checked.probabilities)))
    header, row = csv.reader(io.StringIO(text, newline=""))
    assert tuple(header) == COLUMNS
    assert row[:3] == ["'@x", "'=cmd()", "b\r\nc"]
