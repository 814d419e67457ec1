"""Curves of one class: equal to scikit-learn's, in few points."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from services.trainer.evaluation.curves import MOST_POINTS, calibration, ranking


def scored(rows: int = 5000, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tell something of the truth."""
    random = np.random.default_rng(3)
    positive = random.random(rows) < 0.3
    scores = random.random(rows) + positive * 0.5
    return (scores.round(1) if ties else scores), positive


def farthest(curve: dict[str, list[float]], x: np.ndarray, y: np.ndarray) -> float:
    """How far any point of the curve is from the nearest of these."""
    off = np.abs(np.array(curve["x"])[:, None] - x) + np.abs(np.array(curve["y"])[:, None] - y)
    return float(off.min(axis=1).max())


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_those_of_scikit_learn(ties: bool) -> None:
    scores, positive = scored(ties=ties)
    found = ranking(scores, positive)
    assert found["roc"]["area"] == pytest.approx(roc_auc_score(positive, scores))
    assert found["precision_recall"]["area"] == pytest.approx(average_precision_score(positive, scores))
    assert found["precision_recall"]["share"] == positive.mean()


def test_curves_are_those_of_scikit_learn_in_few_points() -> None:
    scores, positive = scored()
    found = ranking(scores, positive)
    roc, precision_recall = found["roc"], found["precision_recall"]
    assert len(roc["x"]) == len(roc["y"]) <= MOST_POINTS
    assert len(precision_recall["x"]) <= MOST_POINTS
    assert (roc["x"][0], roc["y"][0], roc["x"][-1], roc["y"][-1]) == (0, 0, 1, 1)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert farthest(roc, false, true) < 1e-5
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert farthest(precision_recall, recall, precision) < 1e-5


def test_rows_of_one_class_have_no_curves() -> None:
    assert ranking(np.array([0.1, 0.9]), np.array([True, True])) == {}
    assert ranking(np.array([0.1, 0.9]), np.array([False, False])) == {}


def test_calibration_compares_what_was_said_with_what_came_true() -> None:
    said = np.repeat([0.2, 0.8], 50)
    true = np.concatenate([np.arange(50) < 10, np.arange(50) < 30])
    found = calibration(said, true)
    assert sum(found["rows"]) == 100
    assert found["said"][0] == 0.2
    assert found["said"][-1] == 0.8
    whole = np.average(found["true"], weights=found["rows"])
    assert whole == pytest.approx(true.mean())


def test_calibration_of_three_rows_is_in_three_groups() -> None:
    assert calibration(np.array([0.1, 0.5, 0.9]), np.array([False, True, True]))["rows"] == [1, 1, 1]
