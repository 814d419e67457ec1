"""The data of the figures, for each kind of answers."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from services.trainer.evaluation.answers import Answers, Output
from services.trainer.evaluation.figures import MOST_CLASSES, MOST_CURVES, OTHER, figures

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
    assert len(found["confusion"]["labels"]) == MOST_CLASSES
    assert found["confusion"]["labels"][-1] == OTHER
    assert sum(map(sum, found["confusion"]["counts"])) == 3000
    assert len(found["roc"]) == MOST_CURVES
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
