from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from histories import finetune

from automl_vision.search import trial_saver
from automl_vision.search.trial_files import TrialFiles
from automl_vision.search.trial_saver import TrialSaver


@dataclass
class Trained:
    """What a trainer says after so many epochs; its weights are their number."""

    best_epoch: int = 0

    @property
    def best_score(self) -> float:
        return self.best_epoch / 10

    @property
    def best_loss(self) -> float:
        return 1 / 3 - self.best_epoch / 30

    def best_weights(self) -> dict[str, torch.Tensor]:
        return {"w": torch.tensor(float(self.best_epoch))}

    def best_probabilities(self) -> Any:
        return np.full((4, 2), self.best_epoch / 10, np.float32)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.best_epoch}


@pytest.mark.parametrize("fenced", [False, True])
def test_weights_whose_record_a_kill_prevented_are_not_those_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    monkeypatch.setattr(trial_saver, "SAVING_SHARE", math.inf)
    files, trainer = TrialFiles(tmp_path, fenced=fenced), Trained(1)
    saver = TrialSaver(files, trainer)  # type: ignore[arg-type] # the part of a trainer that it asks
    first = saver.take(finetune(0, [0.5], state="running"))
    assert (first.score, first.loss) == (trainer.best_score, trainer.best_loss)
    result = files.load_result(0)
    assert result is not None
    assert float(result.weights["w"]) == 1.0

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    trainer.best_epoch = 2
    with monkeypatch.context() as patch:
        patch.setattr(TrialFiles, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            saver.take(finetune(0, [0.5, 0.6], state="running"))
    assert files.record(0) == first
    assert files.load_result(0) is None
    assert files.load_predicted(0) is None

    resumed = TrialSaver(TrialFiles(tmp_path), trainer)  # type: ignore[arg-type]
    second = resumed.take_over(files.claim(finetune(0, [0.5, 0.6], state="running", attempt=2)))
    result = files.load_result(0)
    assert result is not None
    assert (float(result.weights["w"]), second.score) == (2.0, trainer.best_score)
    assert files.load_predicted(0) is not None
