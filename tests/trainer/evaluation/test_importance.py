"""Permutation importance: the right order, repeatable, and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from threadpoolctl import threadpool_limits

from modelmill.declare.metrics import Metric
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.importance import MAX_REPEATS, Fitted, importance

RANDOM = np.random.default_rng(11)
ROWS = pd.DataFrame(RANDOM.normal(size=(3000, 3)), columns=["much", "little", "nothing"])
NUMBERS = ROWS.to_numpy() @ [3.0, 1.0, 0.0]
LABELS = (NUMBERS + RANDOM.normal(size=len(ROWS)) > 0).astype(int)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def fitted(
    estimator: Any, truth: np.ndarray, *, rows: pd.DataFrame = ROWS, fit: float = 1e3, seconds: float = 1e-6
) -> Fitted:
    """An estimator that had so much time to be fitted that all may be measured."""
    estimator.fit(rows, truth)
    return Fitted(estimator, rows, Answers.of(estimator, rows), fit, seconds)


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "average_precision"])
def test_what_a_model_goes_by_comes_first(metric: str) -> None:
    found = importance(Metric(metric), fitted(LogisticRegression(), LABELS), LABELS)
    assert (found["metric"], found["rows"], found["repeats"]) == (metric, 2000, MAX_REPEATS)
    assert list(found["inputs"])[:2] == ["much", "little"]
    assert found["inputs"]["much"]["mean"] > 5 * found["inputs"]["little"]["mean"] / 2
    assert abs(found["inputs"]["nothing"]["mean"]) < 0.01
    assert found["inputs"]["much"]["spread"] > 0


def test_the_same_seed_shuffles_alike() -> None:
    model = fitted(LinearRegression(), NUMBERS)
    first, second, other = (importance(Metric("r2"), model, NUMBERS, seed) for seed in (0, 0, 1))
    assert first == second != other


def test_several_labels_are_measured_together() -> None:
    truth = np.column_stack([NUMBERS, ROWS["little"]])
    found = importance(Metric("r2"), fitted(LinearRegression(), truth), truth)
    assert found["inputs"]["little"]["mean"] > 0.5


class Lengths(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the length of a text."""

    def fit(self, rows: pd.DataFrame, truth: np.ndarray) -> Lengths:
        return self

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        assert rows["text"].dtype == object
        return rows["text"].str.len().to_numpy(np.float64)


def test_text_is_shuffled_too() -> None:
    texts = pd.Series(["a" * n for n in range(50)], dtype=object)
    rows = pd.DataFrame({"text": texts, "number": np.arange(50.0)})
    found = importance(Metric("r2"), fitted(Lengths(), np.arange(50.0), rows=rows), np.arange(50.0))
    assert (found["score"], found["rows"]) == (1.0, 50)
    assert found["inputs"]["text"]["mean"] > 0.5
    assert found["inputs"]["number"]["mean"] == 0


def test_a_short_fit_is_worth_fewer_rows() -> None:
    slow = fitted(LogisticRegression(), LABELS, fit=0.0, seconds=1.9e-5 * len(ROWS))
    assert importance(Metric("accuracy"), slow, LABELS)["rows"] == 500


def test_a_model_that_is_too_slow_is_not_measured() -> None:
    slow = fitted(LogisticRegression(), LABELS, fit=0.0, seconds=len(ROWS))
    assert importance(Metric("accuracy"), slow, LABELS) == {"metric": "accuracy", "missing": "it would take 1500.0 s"}


def test_a_function_that_fails_costs_only_the_importance() -> None:
    def picky(truth: np.ndarray, predicted: np.ndarray) -> float:
        raise ZeroDivisionError("no rows")

    found = importance(Metric("picky", picky), fitted(LinearRegression(), NUMBERS), NUMBERS)
    assert found == {"metric": "picky", "missing": "ZeroDivisionError: no rows"}
