"""Data that trials run on here and in workers, and whether both come to the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_vision.config import Settings, load_settings
from automl_vision.data.preparation import Prepared
from automl_vision.executors import Report, Slot, Workplace
from automl_vision.executors.workers import WorkersExecutor
from automl_vision.models.backbones import backbone
from automl_vision.models.weights import find_weights
from automl_vision.runtime import make_runtime
from automl_vision.search.run_trial import Assignment, TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.stages.trial_site import OPENING, Machine, write_site
from automl_vision.training.loop import TrainingData
from automl_vision.training.recipe import Recipe

NAME = "efficientnet_lite0"
PROBE = Recipe("probe", NAME, 32, augment="none", head_from_probe=False)
FIRST = Recipe("finetune", NAME, 32, epochs=4, batch_size=8, freeze_stages=2)
SECOND = dataclasses.replace(FIRST, learning_rate=2e-3, augment="trivial", mix="mixup", seed=3)


@dataclass(frozen=True)
class Scene:
    """Data that are prepared once, and what makes runners on them."""

    prepared: Prepared
    cache: Path

    def runner(self, trials: Path) -> TrialRunner:
        train, val = self.prepared.split.rows("train"), self.prepared.split.rows("val")
        weights = find_weights(backbone(NAME), offline=True)
        assert weights is not None
        return TrialRunner(
            data=TrainingData(
                source=self.prepared.store,
                train_rows=torch.from_numpy(train),
                train_labels=torch.from_numpy(self.prepared.labels(train)),
                val_rows=torch.from_numpy(val),
                val_labels=torch.from_numpy(self.prepared.labels(val)),
                num_classes=len(self.prepared.manifest.class_names),
                blocks=self._blocks(),
            ),
            train_groups=self.prepared.groups(train),
            objective="accuracy",
            runtime=make_runtime("cpu", "float32", 1),
            files=TrialFiles(trials),
            weights={NAME: weights},
            seconds_left=lambda: math.inf,
            tests_symmetries=True,
            decode_side=self.prepared.store.decode_side,
            resize=self.prepared.store.resize,
        )

    def _blocks(self) -> torch.Tensor | None:
        sharded = self.prepared.manifest.sharded
        if sharded is None or not self.prepared.store.is_on_demand:
            return None
        return torch.from_numpy(sharded.shard.astype(np.int64))

    def machine(self) -> Machine:
        return Machine("cpu", "float32", 1, 0.5, "off", self.cache, None, offline=True)


PROBED = Trial(0, PROBE, {}, "probe")
TUNED = [Trial(number, recipe, {}, "portfolio") for number, recipe in enumerate((FIRST, SECOND), start=1)]
HEADS = ((NAME, "linear", 0),)


def settings_of(cache: Path, **others: Any) -> Settings:
    return load_settings(
        overrides={
            "data.lineage": "names",
            "machine.cache_dir": str(cache),
            "machine.threads": 1,
            "search.backbones": [NAME],
            "search.resolutions": [32],
            "search.offline": True,
            **{name.replace("__", "."): value for name, value in others.items()},
        }
    )


@dataclass
class Elsewhere:
    """Workers with a site of their own, and their trial files."""

    executor: WorkersExecutor[Assignment, Trial]
    files: TrialFiles
    waiting: list[Report[Trial]]

    def submit(self, trial: Trial, until: int, heads: tuple[tuple[str, str, int], ...] = ()) -> Trial:
        claimed = self.files.claim(trial)
        self.executor.submit(claimed.number, claimed.attempt, Assignment(claimed, until, heads))
        return claimed

    def next(self) -> Report[Trial]:
        self.waiting.extend([] if self.waiting else self.executor.poll())
        return self.waiting.pop(0)

    def until_ended(self, jobs: int) -> list[Report[Trial]]:
        reports = []
        while jobs:
            reports.append(self.next())
            jobs -= reports[-1].ended
        return reports


@contextmanager
def elsewhere_of(scene: Scene, tmp_path: Path) -> Iterator[Callable[..., Elsewhere]]:
    """Makes workers on a scene, any number of times, and closes them."""
    made: list[Elsewhere] = []

    def make(slots: int = 1) -> Elsewhere:
        files = TrialFiles(tmp_path / "trials", fenced=True)
        folder = tmp_path / f"workers-{len(made)}"
        write_site(folder, scene.prepared, scene.runner(tmp_path / "trials"), scene.machine())
        workplace = Workplace(
            opening=OPENING,
            folder=str(folder),
            encode=Assignment.to_dict,
            decode=Trial.from_dict,
            slots=(Slot({"OMP_NUM_THREADS": "1"}),) * slots,
            logs=folder,
        )
        made.append(Elsewhere(WorkersExecutor(workplace), files, []))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.executor.close()


def here(scene: Scene, folder: Path, *trials: tuple[Trial, int]) -> TrialFiles:
    """The same trials in this process."""
    runner = scene.runner(folder)
    for trial, until in trials:
        *_, _ = runner(Assignment(trial, until))
    return runner.files


def same(ours: TrialFiles, theirs: TrialFiles, number: int) -> None:
    """To the last bit: score, loss, every epoch, every weight, every probability."""
    records = [ours.record(number), theirs.record(number)]
    assert None not in records
    seen = [
        (each.state, each.score, each.loss, [(e.score, e.val_loss, e.train_loss, e.learning_rate) for e in each.epochs])
        for each in records
        if each is not None
    ]
    assert seen[0] == seen[1]
    results = [ours.load_result(number), theirs.load_result(number)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].weights.keys() == results[1].weights.keys()
    assert all(torch.equal(tensor, results[1].weights[name]) for name, tensor in results[0].weights.items())
    np.testing.assert_array_equal(results[0].probabilities, results[1].probabilities)
