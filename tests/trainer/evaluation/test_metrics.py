"""Scores by scikit-learn's scorers and by the user's functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import fbeta_score, make_scorer

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.metrics import require_metrics, score, scores

ROWS = pd.DataFrame({"a": np.linspace(-1, 1, 40), "b": np.cos(np.arange(40))})
LABEL = (ROWS["a"] > 0).to_numpy().astype(int)


def scored(estimator: Any, label: np.ndarray, *metrics: Any) -> dict[str, float]:
    return scores([Metric.of(metric) for metric in metrics], Answers.of(estimator, ROWS), label)


def test_a_classifier_gets_its_metrics_and_the_usual_ones() -> None:
    found = scored(LogisticRegression().fit(ROWS, LABEL), LABEL, "f1", "recall")
    assert list(found) == ["f1", "recall", "accuracy", "roc_auc", "neg_log_loss"]
    assert found["accuracy"] > 0.9


def test_a_classifier_without_probabilities_gets_those_that_apply() -> None:
    assert list(scored(RidgeClassifier().fit(ROWS, LABEL), LABEL, "accuracy")) == ["accuracy", "roc_auc"]


def test_several_classes_have_no_plain_roc_auc() -> None:
    label = np.arange(40) % 3
    assert list(scored(LogisticRegression().fit(ROWS, label), label, "accuracy")) == ["accuracy", "neg_log_loss"]


def test_averages_over_several_classes_are_scikit_learns() -> None:
    label = np.arange(40) % 3
    found = scored(LogisticRegression().fit(ROWS, label), label, "f1_macro", "roc_auc_ovr")
    assert list(found)[:2] == ["f1_macro", "roc_auc_ovr"]


def test_a_regressor_gets_errors_of_which_greater_is_better() -> None:
    number = ROWS["a"].to_numpy() * 3
    found = scored(LinearRegression().fit(ROWS, number), number + 1, "r2")
    assert found["neg_mean_absolute_error"] == pytest.approx(-1)
    assert found["neg_root_mean_squared_error"] == pytest.approx(-1)


def test_a_function_is_a_metric() -> None:
    def cost(truth: np.ndarray, predicted: np.ndarray) -> float:
        return -float(np.abs(truth - predicted).sum())

    estimator = LinearRegression().fit(ROWS, LABEL)
    assert scored(estimator, LABEL, cost)["cost"] == -np.abs(LABEL - estimator.predict(ROWS)).sum()


def test_a_scorer_object_is_a_metric() -> None:
    found = scored(LogisticRegression().fit(ROWS, LABEL), LABEL, make_scorer(fbeta_score, beta=2))
    assert next(iter(found)) == "fbeta_score"


def test_an_error_of_the_users_function_keeps_the_line_that_raised_it() -> None:
    def broken(truth: np.ndarray, predicted: np.ndarray) -> float:
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck") as caught:
        scored(LogisticRegression().fit(ROWS, LABEL), LABEL, broken)
    assert caught.traceback[-1].name == "broken"


@pytest.mark.parametrize("value", [None, "0.5", np.ones(2), True])
def test_a_function_that_returns_no_number_is_refused(value: Any) -> None:
    def odd(truth: np.ndarray, predicted: np.ndarray) -> Any:
        return value

    with pytest.raises(InvalidRequest, match=r"metric 'odd' returned .*expected a number"):
        scored(LogisticRegression().fit(ROWS, LABEL), LABEL, odd)


def test_a_metric_of_several_labels_is_the_mean_of_its_values() -> None:
    both = np.column_stack([ROWS["a"], ROWS["b"] + 1])
    answers = Answers.of(LinearRegression().fit(ROWS, both), ROWS)
    assert score(Metric("neg_mean_absolute_error"), answers, both + np.array([1, 3])) == pytest.approx(-2)


def test_an_unknown_metric_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'accuracy'"):
        require_metrics([Metric("f1"), Metric("acuracy")])


def test_a_metric_that_is_undefined_on_these_rows_is_refused() -> None:
    answers = Answers.of(LogisticRegression().fit(ROWS, LABEL), ROWS[:20])
    with pytest.raises(InvalidRequest, match="20 rows with 1 different labels"):
        score(Metric("roc_auc"), answers, LABEL[:20])


def test_a_metric_that_the_estimator_cannot_give_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="predict_proba"):
        scored(RidgeClassifier().fit(ROWS, LABEL), LABEL, "neg_log_loss")
