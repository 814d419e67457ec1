"""How much worse a model becomes when one of its inputs is shuffled: permutation importance, at a bounded cost.

Not scikit-learn's, which asks the estimator once an input and repetition: five times as long for twenty inputs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelmill.declare.metrics import Metric
from modelmill.errors import sentence
from services.trainer.evaluation.answers import Answers, label_columns
from services.trainer.evaluation.figures import rounded
from services.trainer.evaluation.metrics import row_sums, score

SAMPLE_ROWS = (2000, 1000, 500, 250)
"""Held-out rows that are shuffled: the first of these with which `MIN_REPEATS` repetitions keep within the budget."""
MIN_REPEATS, MAX_REPEATS = 2, 5
"""Repetitions; more than the least are made as long as the budget lasts."""
MIN_BUDGET_SECONDS, BUDGET_SHARE_OF_FIT = 0.06, 0.03
"""What it may take, or that share of the time that the fit took, if that is more."""
MAX_TIMES_BUDGET = 5
"""Nothing is measured where that would take more than so many times the budget."""
BATCH_ROWS = 40_000
"""Rows that the estimator is asked about at a time."""


@dataclass(frozen=True)
class Fitted:
    """An estimator with the rows that it was asked about, and what it has cost so far."""

    estimator: Any
    rows: pd.DataFrame
    """[n, inputs] held out."""
    answers: Answers
    """What it says of them."""
    fit_seconds: float
    answer_seconds: float
    """What these answers took."""

    @property
    def row_seconds(self) -> float:
        """What one of them took, at most."""
        return max(self.answer_seconds / len(self.answers), 1e-9)


def importance(metric: Metric, fitted: Fitted, truth: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Input to how much `metric` falls when its values are shuffled, on a sample of the held-out rows.

    Args:
        truth: [n] or [n, outputs]

    Returns:
        `metric`, `rows`, `repeats`, `score` on those rows without shuffling, and `inputs`, the most important first:
        the mean fall and its standard deviation over the repetitions. Where that would take too long or the metric
        has no value, only `missing`, the reason.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(truth))
    try:
        return _permuted(metric, fitted, truth, order, random)
    except Exception as error:  # the metric may be the user's, the estimator anybody's; the model itself is good
        return {"metric": metric.name, "missing": sentence(error)}


def _permuted(
    metric: Metric, fitted: Fitted, truth: np.ndarray, order: np.ndarray, random: np.random.Generator
) -> dict[str, Any]:
    budget = max(MIN_BUDGET_SECONDS, BUDGET_SHARE_OF_FIT * fitted.fit_seconds)
    row_seconds = _row_seconds(fitted, order, MAX_TIMES_BUDGET * budget)
    costs = [
        (MIN_REPEATS * len(fitted.rows.columns) * min(rows, len(order)) * row_seconds, rows) for rows in SAMPLE_ROWS
    ]
    cost, rows = next((effort for effort in costs if effort[0] <= budget), costs[-1])
    if cost > MAX_TIMES_BUDGET * budget:
        return {"metric": metric.name, "missing": f"it would take {cost:.1f} s"}
    chosen = np.sort(order[:rows])
    sample, own = fitted.rows.iloc[chosen], truth[chosen]
    whole = _value(metric, fitted.answers.rows(chosen), own)
    begun = time.perf_counter()
    shuffled: list[np.ndarray] = []
    for repeats in range(MAX_REPEATS):
        spent = time.perf_counter() - begun
        if repeats and spent * (repeats + 1) / repeats > budget * (MAX_TIMES_BUDGET if repeats < MIN_REPEATS else 1):
            break
        shuffled.append(_shuffled(metric, fitted.estimator, sample, own, random))
    falls = whole - np.array(shuffled)
    means, spreads = falls.mean(axis=0), falls.std(axis=0, ddof=min(1, len(falls) - 1))
    return {
        "metric": metric.name,
        "rows": len(chosen),
        "repeats": len(falls),
        "score": whole,
        "inputs": {
            str(sample.columns[at]): dict(zip(("mean", "spread"), rounded((means[at], spreads[at])), strict=True))
            for at in np.argsort(-means, kind="stable")
        },
    }


def _row_seconds(fitted: Fitted, order: np.ndarray, budget: float) -> float:
    """What the answer to a row takes in a large call; of a small one, most is the call itself."""
    probed = int(min(SAMPLE_ROWS[0], budget / fitted.row_seconds))
    if probed <= len(order):
        return fitted.row_seconds
    begun = time.perf_counter()
    Answers.of(fitted.estimator, fitted.rows.iloc[np.resize(order, probed)])
    return (time.perf_counter() - begun) / probed


def _shuffled(
    metric: Metric, estimator: Any, sample: pd.DataFrame, truth: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """[inputs] values of the metric, each with one input shuffled; the estimator is asked in large batches."""
    count, inputs = sample.shape
    together = max(1, BATCH_ROWS // count)
    values = []
    for first in range(0, inputs, together):
        batch = range(first, min(first + together, inputs))
        places = {name: np.tile(np.arange(count), len(batch)) for name in range(inputs)}
        for number, column in enumerate(batch):
            places[column][number * count : (number + 1) * count] = random.permutation(count)
        shuffled = {  # with their own types: pandas would take text for another one
            name: pd.Series(sample[name].array.take(places[at]), dtype=sample[name].dtype)
            for at, name in enumerate(sample.columns)
        }
        answers = Answers.of(estimator, pd.DataFrame(shuffled))
        parts = (np.arange(number * count, (number + 1) * count) for number in range(len(batch)))
        values += [_value(metric, answers.rows(part), truth) for part in parts]
    return np.array(values)


def _value(metric: Metric, answers: Answers, truth: np.ndarray) -> float:
    """The metric's value, by its sums where it has them: a scorer takes ten times as long for so few rows."""
    found = []
    for output, own in zip(answers.outputs, label_columns(truth), strict=True):
        sums = row_sums(metric, output, own)
        if sums is None:
            return score(metric, answers, truth)
        found.append(sums.value(np.array([[statistic.sum() for statistic in sums.statistics]]))[0])
    value = float(np.mean(found))
    return value if math.isfinite(value) else score(metric, answers, truth)
