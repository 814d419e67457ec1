"""The data of the figures: of each kind of answers, curves equal to scikit-learn's in few points, and of trained rows."""

from __future__ import annotations

import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve, roc_auc_score, roc_curve

from services.trainer.evaluation.answers import Answers, Output
from services.trainer.evaluation.figures import (
    MAX_CONFUSED_CLASSES,
    MAX_CURVE_POINTS,
    MAX_CURVES,
    MAX_SAMPLED_ROWS,
    OTHER,
    calibration,
    feature_statistics,
    figures,
    ranking,
)

RANDOM = np.random.default_rng(5)


def classifier(classes: list[object], truth: np.ndarray) -> Answers:
    """Answers that are often right."""
    probabilities = RANDOM.random((len(truth), len(classes))) + (truth[:, None] == np.array(classes, truth.dtype))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    known = np.array(classes, truth.dtype)
    return Answers("classification", (Output(known[probabilities.argmax(axis=1)], known, probabilities),))


def test_two_classes_have_the_curves_of_the_second() -> None:
    truth = RANDOM.integers(0, 2, 400)
    answers = classifier([0, 1], truth)
    found = figures(["late"], answers, truth)["late"]
    assert list(found) == ["confusion", "roc", "precision_recall", "calibration"]
    assert found["confusion"]["labels"] == ["0", "1"]
    assert found["confusion"]["counts"] == confusion_matrix(truth, answers.predicted).tolist()
    assert list(found["roc"]) == ["1"]
    area = roc_auc_score(truth, answers.outputs[0].probabilities[:, 1])
    assert found["roc"]["1"]["area"] == pytest.approx(area)


def test_several_classes_have_curves_one_against_the_others() -> None:
    truth = RANDOM.choice(np.array(["a", "b", "c"], object), 300)
    found = figures(["kind"], classifier(["a", "b", "c"], truth), truth)["kind"]
    assert list(found["roc"]) == list(found["calibration"]) == ["a", "b", "c"]


def test_of_many_classes_the_rare_ones_are_together() -> None:
    truth = RANDOM.integers(0, 20, 3000) * RANDOM.integers(0, 2, 3000)
    found = figures(["kind"], classifier(list(range(20)), truth), truth)["kind"]
    assert len(found["confusion"]["labels"]) == MAX_CONFUSED_CLASSES
    assert found["confusion"]["labels"][-1] == OTHER
    assert sum(map(sum, found["confusion"]["counts"])) == 3000
    assert len(found["roc"]) == MAX_CURVES
    assert "0" in found["roc"]


def test_a_class_that_the_model_does_not_know_has_a_row() -> None:
    truth = np.array(["a", "b", "new"] * 10, object)
    answers = Answers("classification", (Output(np.array(["a"] * 30, object), np.array(["a", "b"], object)),))
    found = figures(["kind"], answers, truth)["kind"]
    assert found == {"confusion": {"labels": ["a", "b", "new"], "counts": [[10, 0, 0], [10, 0, 0], [10, 0, 0]]}}


def test_decision_values_are_ranked_but_are_no_probabilities() -> None:
    truth = RANDOM.integers(0, 2, 200)
    output = Output(truth, np.array([0, 1]), decisions=truth + RANDOM.normal(size=200))
    assert list(figures(["y"], Answers("classification", (output,)), truth)["y"]) == [
        "confusion", "roc", "precision_recall",
    ]  # fmt: skip


def test_a_regression_has_residuals() -> None:
    truth = RANDOM.normal(size=1000)
    answers = Answers("regression", (Output(truth - 1, np.empty(0)),))
    found = figures(["price"], answers, truth)["price"]["residuals"]
    assert len(found["predicted"]) == len(found["true"]) == 200
    assert found["bands"]["middle"] == pytest.approx([1.0] * 10)
    assert sum(found["bands"]["rows"]) == 1000
    assert sum(found["histogram"]["counts"]) == 1000


def test_each_label_has_its_own() -> None:
    truth = RANDOM.normal(size=(50, 2))
    answers = Answers("regression", (Output(truth[:, 0], np.empty(0)), Output(truth[:, 1] + np.inf, np.empty(0))))
    found = figures(["a", "b"], answers, truth)
    assert list(found["a"]) == ["residuals"]
    assert found["b"] == {}  # no prediction is finite


def test_all_of_it_is_json() -> None:
    truth = RANDOM.integers(0, 2, 100_000)
    text = orjson.dumps(figures(["y"], classifier([0, 1], truth), truth))
    assert len(text) < 20_000


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
    assert len(roc["x"]) == len(roc["y"]) <= MAX_CURVE_POINTS
    assert len(precision_recall["x"]) <= MAX_CURVE_POINTS
    assert (roc["x"][0], roc["y"][0], roc["x"][-1], roc["y"][-1]) == (0, 0, 1, 1)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert farthest(roc, false, true) < 1e-5
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert farthest(precision_recall, recall, precision) < 1e-5


def test_rows_of_one_class_have_no_curves() -> None:
    assert ranking(np.array([0.1, 0.9]), np.array([True, True])) == {}
    assert ranking(np.array([0.1, 0.9]), np.array([False, False])) == {}


def test_scores_may_be_infinite_but_not_unknown() -> None:
    positive = np.array([False, True, True])
    assert ranking(np.array([-np.inf, 0.0, np.inf]), positive)["roc"]["area"] == 1
    assert ranking(np.array([np.nan, 0.0, 1.0]), positive) == {}


def test_calibration_compares_what_was_said_with_what_came_true() -> None:
    said = np.repeat([0.2, 0.8], 50)
    true = np.concatenate([np.arange(50) < 10, np.arange(50) < 30])
    found = calibration(said, true)
    assert sum(found["rows"]) == 100
    assert found["predicted"][0] == 0.2
    assert found["predicted"][-1] == 0.8
    whole = np.average(found["observed"], weights=found["rows"])
    assert whole == pytest.approx(true.mean())


def test_calibration_of_three_rows_is_in_three_groups() -> None:
    assert calibration(np.array([0.1, 0.5, 0.9]), np.array([False, True, True]))["rows"] == [1, 1, 1]


def test_a_number_has_range_quantiles_and_a_histogram() -> None:
    found = feature_statistics(pd.DataFrame({"x": [*np.arange(101.0), np.nan, np.nan, np.nan]}))["x"]
    assert found["missing"] == pytest.approx(3 / 104)
    assert (found["mean"], found["min"], found["max"]) == (50, 0, 100)
    assert [found[name] for name in ("q05", "q25", "median", "q75", "q95")] == [5, 25, 50, 75, 95]
    assert sum(found["histogram"]["counts"]) == 99  # those between the 1st and the 99th percentile


def test_a_text_has_its_most_frequent_values() -> None:
    found = feature_statistics(pd.DataFrame({"x": np.array(["a", "a", "", "b", *"cdef"], object)}))["x"]
    assert found["missing"] == 1 / 8
    assert found["different"] == 6
    assert len(found["values"]) == 5
    assert next(iter(found["values"].items())) == ("a", 0.25)


def test_a_column_without_values_has_nothing_but_that() -> None:
    assert feature_statistics(pd.DataFrame({"x": [np.nan, np.nan]})) == {"x": {"missing": 1.0}}


def test_a_constant_has_a_histogram_too() -> None:
    assert sum(feature_statistics(pd.DataFrame({"x": [2.0] * 9}))["x"]["histogram"]["counts"]) == 9


def test_many_rows_are_sampled_but_for_means_and_ranges() -> None:
    found = feature_statistics(pd.DataFrame({"x": np.arange(MAX_SAMPLED_ROWS * 5.0)}))["x"]
    assert found["max"] == MAX_SAMPLED_ROWS * 5 - 1
    assert found["median"] == pytest.approx(MAX_SAMPLED_ROWS * 2.5, rel=1e-3)
