import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.calibration import TEMPERATURE_RANGE, apply_temperature, fit_temperature
from automl_vision.metrics import METRICS


def drawn(n=2000, classes=5, stretch=3.0, seed=0):
    """Labels drawn from softmax(logits), and the same logits stretched: over-confident by that factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 1.5
    chances = apply_temperature(logits, 1.0)
    labels = (rng.random(n)[:, None] > chances.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return logits * stretch, labels


@pytest.mark.parametrize("stretch", [0.5, 1.0, 3.0])
def test_finds_the_factor_that_was_put_in(stretch):
    logits, labels = drawn(stretch=stretch)
    assert fit_temperature(logits, labels) == pytest.approx(stretch, rel=0.1)


def test_calibration_error_and_loss_fall_on_other_images():
    logits, labels = drawn()
    fresh, truth = drawn(seed=1)
    temperature = fit_temperature(logits, labels)
    for name in ("ece", "log_loss"):
        before = METRICS[name].function(truth, apply_temperature(fresh, 1.0))
        after = METRICS[name].function(truth, apply_temperature(fresh, temperature))
        assert after < before / (2 if name == "ece" else 1)


def test_log_probabilities_serve_as_logits():
    logits, labels = drawn()
    with_logs = fit_temperature(np.log(apply_temperature(logits, 1.0)), labels)
    assert with_logs == pytest.approx(fit_temperature(logits, labels), rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int)),
        (np.ones((4, 1)), np.zeros(4, dtype=int)),
        (np.full((4, 3), 2.0), np.array([0, 1, 2, 0])),
        (np.eye(3), np.arange(3)),
    ],
    ids=["no rows", "one class", "nothing but ties", "all right"],
)
def test_nothing_to_learn_from_leaves_one(logits, labels):
    assert fit_temperature(logits, labels) == 1.0


def test_stays_within_its_range():
    rng = np.random.default_rng(0)
    logits, labels = 1e4 * rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    assert fit_temperature(logits, labels) <= TEMPERATURE_RANGE[1]


def test_minus_infinity_is_a_probability_of_zero():
    chances = apply_temperature(np.array([[0.0, -np.inf]]), 2.0)
    assert chances[0].tolist() == [1.0, pytest.approx(0.0)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_logits_are_refused(bad):
    with pytest.raises(ValueError, match="NaN"):
        fit_temperature(np.array([[bad, 0.0]]), np.array([0]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="positive"):
        apply_temperature(np.zeros((1, 2)), temperature)


@given(st.floats(0.05, 20.0), st.integers(0, 1000))
def test_the_order_of_the_classes_stays(temperature, seed):
    logits = np.random.default_rng(seed).normal(size=(6, 4))
    chances = apply_temperature(logits, temperature)
    assert chances.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
