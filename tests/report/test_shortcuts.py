"""Shortcuts: planted ones are found and named, and clean data raise no alarm."""

import numpy as np
import pandas as pd
import pytest

from automl_vision.report.shortcuts import (
    ALL,
    FAMILIES,
    FEWEST_ROWS,
    balanced_accuracy,
    error_of_chance,
    file_facts,
    find_shortcuts,
    pixel_facts,
    shortcut_warnings,
)

NAMES = ("cat", "dog", "eel")


def clean(n, rng):
    """Facts that have nothing to do with a class."""
    table = pd.DataFrame(
        {
            "format": rng.choice(["JPEG", "PNG"], n),
            "mode": rng.choice(["RGB", "L"], n),
            "frames": 1,
            "taken": np.where(rng.random(n) < 0.5, np.nan, 1e9),
            "exif_rotated": rng.random(n) < 0.2,
            "width": rng.integers(100, 800, n),
            "height": rng.integers(100, 800, n),
            "bytes": rng.integers(1e3, 1e5, n),
        }
    )
    pixels = {name: rng.uniform(0, 255, n) for name in (*FAMILIES["brightness"].columns, *FAMILIES["border"].columns)}
    return table, pd.DataFrame(pixels)


def found_in(table, pixels, labels, **given):
    facts = pd.concat([file_facts(table), pixels], axis=1)
    return find_shortcuts(facts, labels, given.get("groups", np.arange(len(labels))), NAMES, given.get("seed", 0))


def of(found, name):
    return next(each for each in found["families"] if each["name"] == name)


def plant(name, table, pixels, own):
    """Make a fact of the rows `own` what no other row has."""
    if name == "file_type":
        table["format"] = np.where(own, "PNG", "JPEG")
    elif name == "camera":
        table["taken"] = np.where(own, 1e9, np.nan)
    elif name == "dimensions":
        table["width"] = np.where(own, 900, table["width"])
    elif name == "file_size":
        table["bytes"] = np.where(own, 900 * table["width"] * table["height"], table["bytes"])
    elif name == "brightness":
        pixels["brightness"] = np.where(own, 250.0, 0.8 * pixels["brightness"])
    else:
        pixels["border_variation"] = np.where(own, 0.0, 1 + pixels["border_variation"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_planted_shortcut_is_found_named_and_described(name):
    rng = np.random.default_rng(3)
    table, pixels = clean(400, rng)
    labels = rng.integers(0, 2, 400)
    plant(name, table, pixels, labels == 0)
    found = found_in(table, pixels, labels)
    assert of(found, name)["alarm"]
    assert of(found, name)["balanced_accuracy"] > 0.95
    assert [each["name"] for each in found["families"] if each["alarm"]] == [name, "all"]
    assert found["alarms"] == 2
    (sentence,) = shortcut_warnings(found)
    assert FAMILIES[name].title in sentence
    assert "class cat: " in sentence


def test_it_says_what_the_classes_look_like():
    rng = np.random.default_rng(0)
    table, pixels = clean(400, rng)
    labels = np.arange(400) % 2
    table["format"] = np.where((labels == 0) & (np.arange(400) >= 20), "PNG", "JPEG")
    (sentence,) = shortcut_warnings(found_in(table, pixels, labels))
    assert "class cat: format PNG in 95 % of its files, in 0 % of the others" in sentence
    assert "(chance: 50.0 %)" in sentence


@pytest.mark.parametrize(("classes", "n"), [(2, 60), (3, 300), (2, 1000)])
def test_clean_data_raise_no_alarm(classes, n):
    alarms = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        found = found_in(*clean(n, rng), rng.integers(0, classes, n), seed=seed)
        alarms += found["alarms"]
    assert alarms == 0


def test_chance_is_what_shuffled_labels_reach():
    rng = np.random.default_rng(0)
    targets, predicted = np.arange(90) % 3, rng.choice(3, 90, p=[0.6, 0.3, 0.1])
    targets[:20] = 0
    shuffled = [balanced_accuracy(rng.permutation(targets), predicted, 3) for _ in range(4000)]
    assert np.mean(shuffled) == pytest.approx(1 / 3, abs=0.003)
    assert error_of_chance(targets, predicted, 3) == pytest.approx(np.std(shuffled), rel=0.05)


def test_copies_are_no_further_evidence():
    """Four pictures with a hundred copies each say nothing of two classes."""
    rng = np.random.default_rng(0)
    table, pixels = clean(400, rng)
    groups = np.arange(400) // 100
    labels = groups % 2
    table["width"] = 100 + groups
    found = found_in(table, pixels, labels, groups=groups)
    assert not found["measured"]
    assert "only 0 independent images" in found["reason"]


def test_what_is_the_same_in_all_files_says_nothing():
    rng = np.random.default_rng(0)
    table, pixels = clean(200, rng)
    table["format"], table["mode"] = "PNG", "RGB"
    each = of(found_in(table, pixels, rng.integers(0, 3, 200)), "file_type")
    assert each["balanced_accuracy"] == each["chance_high"] == pytest.approx(1 / 3)
    assert not each["beyond_chance"]


def test_small_classes_are_left_out_and_few_images_are_not_judged():
    rng = np.random.default_rng(0)
    table, pixels = clean(100, rng)
    labels = np.where(np.arange(100) < 3, 2, np.arange(100) % 2)
    assert found_in(table, pixels, labels)["classes"] == 2
    few = np.arange(FEWEST_ROWS - 1)
    assert not found_in(table.iloc[few], pixels.iloc[few], labels[few])["measured"]
    assert not found_in(table, pixels, np.zeros(100, dtype=np.int64))["measured"]


def test_it_stops_when_its_time_is_over():
    rng = np.random.default_rng(0)
    table, pixels = clean(100, rng)
    facts, labels = pd.concat([file_facts(table), pixels], axis=1), np.arange(100) % 2
    asked = iter([False, False, True])
    found = find_shortcuts(facts, labels, np.arange(100), NAMES, 0, lambda: next(asked))
    assert [each["name"] for each in found["families"]] == ["file_type", "camera"]
    assert found["left_out"] == len(FAMILIES) - 1
    assert not find_shortcuts(facts, labels, np.arange(100), NAMES, 0, lambda: True)["measured"]


def test_without_pixels_files_are_judged_alone():
    rng = np.random.default_rng(0)
    table, _ = clean(100, rng)
    found = find_shortcuts(file_facts(table), np.arange(100) % 2, np.arange(100), NAMES, 0)
    assert {each["name"] for each in found["families"]} == {"file_type", "camera", "dimensions", "file_size", "all"}


def test_all_together_speaks_only_where_no_family_does():
    family = {"alarm": True, "balanced_accuracy": 0.97, "told": ["class a: median brightness 1"], "title": ALL}
    found = {"measured": True, "chance": 0.5, "families": [{**family, "name": "all"}]}
    (sentence,) = shortcut_warnings(found)
    assert "from file type, size, brightness and border alone" in sentence
    found["families"].append({**family, "name": "border", "title": "border of the picture"})
    (sentence,) = shortcut_warnings(found)
    assert "from border of the picture alone" in sentence
    assert shortcut_warnings(None) == []
    assert shortcut_warnings({"measured": False, "reason": "x"}) == []


def test_pixels_are_read_as_they_are():
    square = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    square[0, :2] = square[0, -2:] = square[0, :, :2] = square[0, :, -2:] = (255, 0, 0)
    square[0, 2:-2, 2:-2] = 60
    facts = pixel_facts(square).iloc[0]
    assert (facts["border_red"], facts["border_green"], facts["border_blue"]) == (255, 0, 0)
    assert facts["border_variation"] == 0
    assert facts["brightness"] == pytest.approx((28 * 28 * 60 + (32 * 32 - 28 * 28) * 85) / 32**2)
