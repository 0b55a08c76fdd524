"""Which trial is the model: ties and small gains change nothing, and few images choose among few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from histories import finetune, probe
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.search.choice import IMAGES_PER_TRIAL, MARGIN, Chooser, choose
from automl_vision.search.judge import Judge
from automl_vision.search.trial import Trial, best_trial, is_frozen
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.recipe import Recipe

N = 200
JUDGE = Judge(np.zeros(N, np.int64), np.arange(N), 2, "accuracy")


def said(wrong: range | list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """What a candidate says that is wrong on these images."""
    predicted = np.zeros(N, np.int64)
    predicted[list(wrong)] = 1
    return predicted


def told(trial: Trial, wrong: range | list[int]) -> tuple[Trial, np.ndarray[Any, np.dtype[np.int64]]]:
    return trial.replace(score=1 - len(wrong) / N), said(wrong)


def chosen(*told: tuple[Trial, np.ndarray[Any, np.dtype[np.int64]]]) -> Any:
    choice = choose([trial for trial, _ in told], {trial.number: predicted for trial, predicted in told}, JUDGE)
    assert choice is not None
    return choice


def tuned(number: int, **fields: Any) -> Trial:
    return finetune(number, [0.5] * 12, **fields)


def test_without_a_score_there_is_no_choice() -> None:
    assert choose([], {}, JUDGE) is None
    assert choose([finetune(0, state="failed")], {}, JUDGE) is None
    assert choose([probe(0, 0.5)], {}, JUDGE) is None  # its predictions cannot be read


def cut(number: int, **fields: Any) -> Trial:
    """A default recipe that the deadline ended: it has to show that it is better."""
    return finetune(number, [0.5] * 6, state="stopped", **fields)


def test_a_fine_tune_that_was_cut_does_not_replace_the_probe_because_of_a_tie() -> None:
    tie = chosen(told(probe(0).replace(loss=9.0), range(20)), told(cut(1), range(10, 30)))
    assert tie.trial.number == 0
    assert "the model on frozen features (trial 0) is kept" in tie.reason


def test_a_fine_tune_that_was_cut_replaces_the_probe_where_it_is_better_by_more_than_half_an_error() -> None:
    assert chosen(told(probe(0), range(20)), told(cut(1), range(19))).trial.number == 1
    # 12 images won and 10 lost: a gain of 0.01, with a standard error of 0.023.
    assert chosen(told(probe(0), range(20)), told(cut(1), range(12, 30))).trial.number == 0


def test_a_whole_default_recipe_is_kept_unless_the_probe_is_better_by_more_than_half_an_error() -> None:
    kept = chosen(told(probe(0), range(10, 28)), told(tuned(1), range(20)))  # 10 won, 8 lost
    assert kept.trial.number == 1
    assert "the default recipe (trial 1) is kept" in kept.reason
    assert chosen(told(probe(0), range(19)), told(tuned(1), range(20))).trial.number == 0


def test_a_default_recipe_of_a_few_steps_or_from_random_weights_is_not_kept_against_the_probe() -> None:
    first = told(probe(0), range(10, 28))
    assert chosen(first, told(tuned(1, notes={"steps": 19}), range(20))).trial.number == 0
    assert chosen(first, told(tuned(1, notes={"steps": 20}), range(20))).trial.number == 1
    assert chosen(first, told(finetune(1, [0.5] * 2, horizon=2), range(20))).trial.number == 0
    scratch = tuned(1, recipe=Recipe("finetune", "net_a", 96, epochs=12, pretrained=False))
    assert chosen(first, told(scratch, range(20))).trial.number == 0


def test_the_default_recipe_is_kept_where_a_later_one_is_hardly_better() -> None:
    first, default = told(probe(0), range(60)), told(tuned(1), range(20))
    lucky = told(tuned(2, origin="tpe"), range(11, 30))
    choice = chosen(first, default, lucky)
    assert best_trial([trial for trial, _ in (first, default, lucky)]) == lucky[0]
    assert choice.trial.number == 1
    assert "the default recipe (trial 1) is kept" in chosen(default, lucky).reason
    better = told(tuned(3, origin="tpe"), range(5))
    assert chosen(first, default, lucky, better).trial.number == 3


def test_the_default_is_the_first_of_the_portfolio_that_was_validated() -> None:
    failed = finetune(1, state="failed")
    lucky = told(tuned(3), range(11, 30))
    pairs = [told(probe(0), range(60)), (failed, said(range(N))), told(tuned(2), range(20)), lucky]
    assert chosen(*pairs).trial.number == 2


def test_groups_count_once() -> None:
    """Four images won in one group are one piece of evidence: no more than one standard error."""
    judge = Judge(np.zeros(N, np.int64), np.arange(N) // 20, 2, "accuracy")
    trials = [told(probe(0), range(40, 60)), told(cut(1), [*range(60, 64), *range(80, 95)])]
    choice = choose([t for t, _ in trials], {t.number: p for t, p in trials}, judge)
    assert choice is not None
    assert choice.trial.number == 0


def test_few_images_choose_among_few_trials_and_the_luckiest_of_many_has_no_chance() -> None:
    judge = Judge(np.zeros(40, np.int64), np.arange(40), 2, "accuracy")
    trials = [told(probe(0), range(20)), told(probe(1), range(20)), *(told(tuned(n), range(10)) for n in range(2, 30))]
    trials[-1] = trials[-1][0].replace(score=1.0), said([])
    choice = choose([t for t, _ in trials], {t.number: p[:40] for t, p in trials}, judge)
    assert choice is not None
    assert [trial.number for trial in choice.entered] == [0, 1, 2, 3]
    assert choice.left_out == 26
    assert choice.trial.number != 29


def test_whole_trials_take_part_before_those_that_were_cut() -> None:
    judge = Judge(np.zeros(40, np.int64), np.arange(40), 2, "accuracy")
    trials = [probe(0), *(finetune(n, [0.5], state="stopped") for n in range(1, 9)), tuned(9), tuned(10)]
    choice = choose(trials, {trial.number: said(range(10))[:40] for trial in trials}, judge)
    assert choice is not None
    assert [trial.number for trial in choice.entered] == [0, 1, 9, 10]


@given(
    scores=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    frozen=st.lists(st.booleans(), min_size=12, max_size=12),
    order=st.randoms(use_true_random=False),
    images=st.integers(2, 60),
)
def test_whatever_is_chosen_was_beaten_by_little_and_the_order_does_not_matter(
    scores: list[int], frozen: list[bool], order: Any, images: int
) -> None:
    judge = Judge(np.zeros(images, np.int64), np.arange(images), 2, "accuracy")
    trials, predicted = [], {}
    for number, wrong in enumerate(scores):
        predicted[number] = said(range(min(wrong, images)))[:images]
        trial = probe(number) if frozen[number] else tuned(number)
        trials.append(trial.replace(score=judge.score(predicted[number])))
    choice = choose(trials, predicted, judge)
    assert choice is not None
    assert choice.trial in choice.entered
    assert len(choice.entered) <= max(2, images // IMAGES_PER_TRIAL)
    assert len(choice.entered) + choice.left_out == len(trials)
    best = best_trial(choice.entered)
    assert best is not None
    if choice.trial != best:  # here candidates are right on nested sets, so that any other is a tie
        assert not judge.gain(predicted[best.number], predicted[choice.trial.number]).exceeds(2 * MARGIN)
    if is_frozen(best) and all(is_frozen(trial) for trial in choice.entered):
        assert choice.trial == best
    shuffled = trials.copy()
    order.shuffle(shuffled)
    assert choose(shuffled, predicted, judge) == choice


def test_files_are_read_once_and_again_where_a_trial_got_better(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    chooser = Chooser(files, Judge(np.zeros(4, np.int64), np.arange(4), 2, "accuracy"))
    first = finetune(0, [0.5] * 3).replace(score=0.5)
    files.save_result(0, {"w": torch.ones(1)}, np.array([[0.9, 0.1]] * 2 + [[0.1, 0.9]] * 2, np.float32))
    assert chooser.predicted([first])[0].tolist() == [0, 0, 1, 1]
    files.save_result(0, {"w": torch.ones(1)}, np.array([[0.9, 0.1]] * 4, np.float32))
    assert chooser.predicted([first])[0].tolist() == [0, 0, 1, 1]
    assert chooser.predicted([first.replace(score=1.0)])[0].tolist() == [0, 0, 0, 0]


def test_a_file_of_another_validation_set_or_none_takes_no_part(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    chooser = Chooser(files, Judge(np.zeros(4, np.int64), np.arange(4), 2, "accuracy"))
    files.save_result(0, {"w": torch.ones(1)}, np.full((3, 2), 0.5, np.float32))
    assert chooser.choose([probe(0), probe(1)]) is None


def test_predictions_stay_when_weights_are_given_up_and_older_files_have_them_in_their_result(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    files.save_result(0, {"w": torch.ones(1)}, np.array([[0.1, 0.9]], np.float32))
    (tmp_path / "000000" / "best.pt").unlink()
    predicted = files.load_predicted(0)
    assert predicted is not None
    assert predicted.tolist() == [1]
    files.save_result(1, {"w": torch.ones(1)}, np.array([[0.1, 0.9]], np.float32))
    (tmp_path / "000001" / "predicted.pt").unlink()
    predicted = files.load_predicted(1)
    assert predicted is not None
    assert predicted.tolist() == [1]
    assert files.load_predicted(2) is None
