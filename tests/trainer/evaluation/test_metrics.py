"""Scores by scikit-learn's scorers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier

from modelmill.errors import InvalidRequest
from services.trainer.evaluation.metrics import evaluate, task_of

ROWS = pd.DataFrame({"a": np.linspace(-1, 1, 40), "b": np.cos(np.arange(40))})
LABEL = (ROWS["a"] > 0).to_numpy().astype(int)


def test_a_classifier_gets_its_metric_and_the_usual_ones() -> None:
    scores = evaluate(LogisticRegression().fit(ROWS, LABEL), ROWS, LABEL, "f1")
    assert list(scores) == ["f1", "accuracy", "roc_auc", "neg_log_loss"]
    assert scores["accuracy"] > 0.9


def test_a_classifier_without_probabilities_gets_those_that_apply() -> None:
    assert list(evaluate(RidgeClassifier().fit(ROWS, LABEL), ROWS, LABEL, "accuracy")) == ["accuracy", "roc_auc"]


def test_several_classes_have_no_plain_roc_auc() -> None:
    label = np.arange(40) % 3
    scores = evaluate(LogisticRegression().fit(ROWS, label), ROWS, label, "accuracy")
    assert list(scores) == ["accuracy", "neg_log_loss"]


def test_a_regressor_gets_errors_of_which_greater_is_better() -> None:
    number = ROWS["a"].to_numpy() * 3
    scores = evaluate(LinearRegression().fit(ROWS, number), ROWS, number + 1, "r2")
    assert scores["neg_mean_absolute_error"] == pytest.approx(-1)
    assert scores["neg_root_mean_squared_error"] == pytest.approx(-1)


def test_an_unknown_metric_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'accuracy'"):
        evaluate(LogisticRegression().fit(ROWS, LABEL), ROWS, LABEL, "acuracy")


def test_a_metric_that_is_undefined_on_these_rows_is_refused() -> None:
    model = LogisticRegression().fit(ROWS, LABEL)
    with pytest.raises(InvalidRequest, match="20 held-out rows with 1 different labels"):
        evaluate(model, ROWS[:20], LABEL[:20], "roc_auc")


def test_a_metric_that_the_estimator_cannot_give_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="predict_proba"):
        evaluate(RidgeClassifier().fit(ROWS, LABEL), ROWS, LABEL, "neg_log_loss")


def test_what_is_no_classifier_and_no_regressor_has_no_task() -> None:
    assert task_of(DummyClassifier()) == "classification"
    with pytest.raises(InvalidRequest, match="neither a classifier nor a regressor"):
        task_of(BaseEstimator())
