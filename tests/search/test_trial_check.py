"""What an earlier session left is used as it was written, or set aside and named: damage, and sound files of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from histories import finetune

from automl_vision import tensor_file
from automl_vision.errors import RunError
from automl_vision.models.classifier import build_classifier
from automl_vision.search.trial import Trial
from automl_vision.search.trial_check import Expected, set_aside_unsound, told_as_damage
from automl_vision.search.trial_files import HeldOut, TrialFiles
from automl_vision.tensor_file import load_tensors, save_tensors

BACKBONE = "test_efficientnet"  # half a megabyte
EXPECTED = Expected(images=20, val_images=5, classes=3)
KINDS = ("000000/best.pt", "000000/predicted.pt", "000000/checkpoint.pt", "held_out.pt", "refit.pt")
Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return dict(build_classifier(BACKBONE, 3, resolution=32).state_dict())


@pytest.fixture
def trial() -> Trial:
    made = finetune(0, scores=[0.5])
    recipe = made.recipe.__class__.from_dict({**made.recipe.to_dict(), "backbone": BACKBONE, "resolution": 32})
    return made.replace(recipe=recipe, state="paused")


@pytest.fixture
def files(tmp_path: Path, trial: Trial, weights: dict[str, torch.Tensor]) -> TrialFiles:
    """All kinds of files, as a search leaves them."""
    made = TrialFiles(tmp_path / "trials")
    made.commit(trial)
    even = np.full((5, 3), 1 / 3, dtype=np.float32)
    made.save_result(0, weights, even)
    made.save_checkpoint(0, {"trial": trial.to_dict(), "trainer": {"epoch": 1}})
    made.keep_held_out(HeldOut(0, 0.5, np.arange(7), np.full((7, 3), 1 / 3, dtype=np.float32)))
    made.save_retrained({"trial": 0, "rows": "ab", "loss": 0.5, "trainer": {}})
    return made


def test_what_a_search_left_stays(files: TrialFiles, trial: Trial) -> None:
    before = sorted(files.folder.rglob("*"))
    assert set_aside_unsound(files, [trial], EXPECTED) == []
    assert sorted(files.folder.rglob("*")) == before
    assert {each.relative_to(files.folder).as_posix() for each in before if each.suffix == ".pt"} == set(KINDS)


@pytest.mark.parametrize("short", ["before", "amid"])
def test_what_memory_is_too_short_for_stays(
    files: TrialFiles, trial: Trial, short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it does not fit says nothing about a file."""

    def dry(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    before = sorted(files.folder.rglob("*"))
    if short == "before":
        monkeypatch.setattr(tensor_file, "available_memory", lambda: 1)
    else:
        monkeypatch.setattr(torch, "load", dry)
    assert set_aside_unsound(files, [trial], EXPECTED) == []
    assert sorted(files.folder.rglob("*")) == before


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "flipped"])
def test_damage_is_set_aside_and_named(files: TrialFiles, trial: Trial, name: str, damage: str) -> None:
    file = files.folder / name
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(
        {
            "empty": b"",
            "cut": content[:half],
            "zeros": bytes(len(content)),
            "flipped": (np.frombuffer(content, np.uint8) ^ (np.arange(len(content)) % 64 == 0))
            .astype(np.uint8)
            .tobytes(),
        }[damage]
    )
    told = set_aside_unsound(files, [trial], EXPECTED)
    assert [each.split(" (")[0] for each in told] == [name]
    assert not file.exists()
    assert file.with_name(f"{file.name}.corrupt").is_file()
    assert set_aside_unsound(files, [trial], EXPECTED) == [], "once is enough"


def of(**changes: Any) -> Change:
    return lambda content: {**content, **changes}


def in_weights(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda content: {**content, "weights": {**content["weights"], name: change(content["weights"][name])}}


CRAFTED: dict[str, tuple[str, Change]] = {
    "no weights": ("000000/best.pt", of(weights=3)),
    "weights of something else": ("000000/best.pt", of(weights={"a": torch.zeros(3)})),
    "another shape": ("000000/best.pt", in_weights("head.weight", lambda tensor: tensor[:, :7].clone())),
    "another number of classes": ("000000/best.pt", in_weights("head.weight", lambda tensor: tensor[:2].clone())),
    "no finite weights": ("000000/best.pt", in_weights("head.weight", lambda tensor: tensor * torch.inf)),
    "other images": ("000000/best.pt", of(probabilities=torch.full((4, 3), 1 / 3))),
    "other classes": ("000000/best.pt", of(probabilities=torch.full((5, 2), 1 / 2))),
    "no probabilities": ("000000/best.pt", of(probabilities=torch.full((5, 3), 7.0))),
    "no finite probabilities": ("000000/best.pt", of(probabilities=torch.full((5, 3), torch.nan))),
    "classes that are not there": ("000000/predicted.pt", of(predicted=torch.tensor([0, 1, 2, 3, 0]))),
    "negative classes": ("000000/predicted.pt", of(predicted=torch.tensor([0, 1, 2, -1, 0]))),
    "too few classes": ("000000/predicted.pt", of(predicted=torch.tensor([0, 1]))),
    "no trial": ("000000/checkpoint.pt", of(trial=5)),
    "no trainer": ("000000/checkpoint.pt", of(trainer=5)),
    "nothing": ("000000/checkpoint.pt", lambda _: {}),
    "images that are not there": ("held_out.pt", of(rows=torch.arange(14, 21))),
    "no shares": ("held_out.pt", of(probabilities=torch.zeros((7, 3)))),
    "no rows": ("held_out.pt", of(rows="all")),
    "text for a loss": ("refit.pt", of(loss="low")),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_sound_file_of_other_values_is_set_aside_and_named(files: TrialFiles, trial: Trial, case: str) -> None:
    name, change = CRAFTED[case]
    save_tensors(files.folder / name, change(load_tensors(files.folder / name)))
    (told,) = set_aside_unsound(files, [trial], EXPECTED)
    assert told.startswith(f"{name} (")
    assert not (files.folder / name).exists()


def test_the_checkpoint_of_another_trial_is_set_aside(files: TrialFiles, trial: Trial) -> None:
    other = {"trial": trial.replace(number=4).to_dict(), "trainer": {}}
    save_tensors(files.folder / "000000/checkpoint.pt", other)
    assert len(set_aside_unsound(files, [trial], EXPECTED)) == 1


def test_files_of_a_trial_whose_record_was_lost_and_files_of_others_stay(files: TrialFiles) -> None:
    save_tensors(files.folder / "mine.pt", {"a": 1})
    assert set_aside_unsound(files, [], EXPECTED) == []


def test_what_values_of_others_raise_is_damage_and_too_little_memory_is_not(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"checkpoint\.pt \(KeyError: 'trainer'\)") as caught,
        told_as_damage(tmp_path / "checkpoint.pt"),
    ):
        _ = {}["trainer"]
    assert caught.value.fix
    with pytest.raises(RuntimeError, match="memory"), told_as_damage(tmp_path / "checkpoint.pt"):
        raise torch.OutOfMemoryError("out of memory")
