"""How good answers are, by metrics of which greater is always better, and how far chance may have moved them.

Where a model has several labels, a metric is the mean of its values for each of them.

Intervals are those of the bootstrap with a fixed seed; rows are taken as independent of each other. Where a metric is a
function of sums over rows (`SUMS`), not rows but up to `BLOCKS` blocks of rows, put together at random, are drawn with
replacement: the spread is the same, and the work does not grow with the resamples; with scorers alone, an evaluation of
100,000 rows in seven segments took 50 times as long. Any other metric is computed again for `FEW_RESAMPLES` of at most
`MAX_RESAMPLED_ROWS` rows, and its spread scaled to that of all rows by the root of their numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest, did_you_mean, first_line, printable
from services.trainer.evaluation.answers import Answers, Output, StoredAnswers, Task, label_columns

TASK_METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "roc_auc", "neg_log_loss"),
    "regression": ("r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"),
}
"""Scorers that a model of a task gets beside its own metrics, as far as they apply."""
RESAMPLES = 1000
BLOCKS = 500
FEW_RESAMPLES = 100
MAX_RESAMPLED_ROWS = 2000
MAX_COUNTED_CLASSES = 30
"""Classes up to which counts of each are summed."""
PERCENTILES = (2.5, 97.5)
"""Between which 95 % of the resamples are."""


def require_metrics(metrics: Sequence[Metric]) -> None:
    """Refuse a metric without a function that no scorer of scikit-learn is named.

    Raises:
        InvalidRequest: with the nearest names.
    """
    for metric in metrics:
        if metric.function is None and metric.name not in get_scorer_names():
            near = did_you_mean(metric.name, get_scorer_names())
            raise InvalidRequest(f"metric {metric.name!r} is not a scorer of scikit-learn{near}", metric=metric.name)


def scores(metrics: Sequence[Metric], answers: Answers, truth: np.ndarray) -> dict[str, float]:
    """Metric to its value: `metrics` first, then those of the task that apply.

    Args:
        truth: [n] or [n, outputs]

    Raises:
        InvalidRequest: where one of `metrics` cannot be computed for these answers.
    """
    found = {metric.name: score(metric, answers, truth) for metric in metrics}
    for also in TASK_METRICS[answers.task]:
        if also not in found:
            try:
                found[also] = score(Metric(also), answers, truth)
            except InvalidRequest:
                continue
    return found


def score(metric: Metric, answers: Answers, truth: np.ndarray) -> float:
    """The value of one metric; an error of the user's function comes as it is, with its traceback.

    Raises:
        InvalidRequest: where it cannot be computed for these answers.
    """
    return float(np.mean([_score(metric, *pair) for pair in zip(answers.outputs, label_columns(truth), strict=True)]))


def _score(metric: Metric, output: Output, truth: np.ndarray) -> float:
    try:
        value = raw_score(metric, output, truth)
    except (ValueError, AttributeError, TypeError) as error:
        if metric.function is not None:
            raise
        raise _cannot(metric, truth, first_line(error) or type(error).__name__) from None
    if not math.isfinite(value):
        raise _cannot(metric, truth, f"it is {value}")
    return value


def raw_score(metric: Metric, output: Output, truth: np.ndarray) -> float:
    """The value for one label as its scorer or function gives it, which may be NaN, or any error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a scorer that does not apply says so by NaN or an error
        if metric.function is not None and not hasattr(metric.function, "_score_func"):
            value = metric.function(truth, output.predicted)
        else:
            scorer = metric.function or get_scorer(metric.name)
            value = scorer(StoredAnswers(output), np.arange(len(truth)), truth)
    return _number(metric, value)


def _number(metric: Metric, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        returned = printable(value, 200, repr)
        raise InvalidRequest(f"metric {metric.name!r} returned {returned}; expected a number", metric=metric.name)
    return float(value)


def _cannot(metric: Metric, truth: np.ndarray, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"metric {metric.name!r} cannot be computed on {len(truth)} rows with {len(np.unique(truth))} different"
        f" labels: {reason}",
        metric=metric.name,
    )


@dataclass(frozen=True)
class Interval:
    """Where the value of a metric lies with a confidence of 95 %, as far as the choice of held-out rows goes."""

    lo: float
    hi: float
    method: str
    """Such as `1000 resamples of 500 blocks of 150 rows`."""

    def __str__(self) -> str:
        return f"{self.lo:.6g} {self.hi:.6g}"


@dataclass(frozen=True)
class Paired:
    """By how much a challenger is better than a champion, both on the same resamples of the same rows."""

    estimate: float
    """Challenger minus champion on all rows; greater is better."""
    lo: float
    """The lower end of the difference's 95 % interval; NaN where the metric has no value on most resamples."""
    hi: float
    differences: np.ndarray = field(repr=False)
    """[resamples] challenger minus champion; empty where there is no interval."""
    method: str
    """As that of an interval."""

    def share_above(self, margin: float) -> float:
        """Share of the resamples in which the challenger is better by more than `margin`; 0 where there are none."""
        return float((self.differences > margin).mean()) if len(self.differences) else 0.0


def interval(metric: Metric, answers: Answers, truth: np.ndarray, *, seed: int = 0) -> Interval | None:
    """The 95 % interval of `metric`, or None where it has no value on most resamples.

    Args:
        truth: [n] or [n, outputs]
    """
    values, method = _resampled(metric, [answers], truth, seed)
    if not values.size:
        return None
    lo, hi = np.percentile(values[0], PERCENTILES)
    return Interval(float(lo), float(hi), method)


def paired(
    metric: Metric,
    challenger: Answers,
    champion: Answers,
    truth: np.ndarray,
    *,
    seed: int = 0,
    known: tuple[float, float] | None = None,
) -> Paired:
    """Compare two models on the same rows.

    Args:
        truth: [n] or [n, outputs]
        known: the metric of both on all rows, where it has been computed before.

    Raises:
        InvalidRequest: where the metric cannot be computed for one of them.
    """
    own, other = known or (score(metric, challenger, truth), score(metric, champion, truth))
    values, method = _resampled(metric, [challenger, champion], truth, seed)
    differences = values[0] - values[1]
    lo, hi = np.percentile(differences, PERCENTILES) if len(differences) else (math.nan, math.nan)
    return Paired(own - other, float(lo), float(hi), differences, method)


def _resampled(metric: Metric, models: Sequence[Answers], truth: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """[models, resamples] the metric of all `models` on the same resamples of their rows, and how they were made.

    Resamples on which it has no value are left out, and all of them where that is half of them or more.
    """
    pairs = [list(zip(answers.outputs, label_columns(truth), strict=True)) for answers in models]
    sums = [[row_sums(metric, *pair) for pair in of_model] for of_model in pairs]
    if all(one is not None for of_model in sums for one in of_model):
        blocks, weights = _blocks(len(truth), seed), _weights(min(len(truth), BLOCKS), seed)
        count = weights.shape[1]
        values = np.array(
            [np.mean([s.value(weights @ s.sums(blocks, count)) for s in of_model if s], axis=0) for of_model in sums]
        )
        method = f"{RESAMPLES} resamples of {_block_sizes(len(truth))}"
    else:
        values, method = _resampled_rows(metric, pairs, len(truth), seed)
    complete = np.isfinite(values).all(axis=0)
    return values[:, complete if complete.mean() > 0.5 else np.zeros_like(complete)], method


def _resampled_rows(
    metric: Metric, pairs: Sequence[Sequence[tuple[Output, np.ndarray]]], count: int, seed: int
) -> tuple[np.ndarray, str]:
    random = np.random.default_rng(seed)
    some = random.permutation(count)[:MAX_RESAMPLED_ROWS]
    draws = [np.arange(len(some)), *random.integers(0, len(some), (FEW_RESAMPLES, len(some)))]
    values = []
    for of_model in pairs:
        kept = [(output.rows(some), truth[some]) for output, truth in of_model]
        base, *drawn = (_score_or_nan(metric, kept, rows) for rows in draws)
        whole = base if count == len(some) else _score_or_nan(metric, of_model, np.arange(count))
        values.append(whole + (np.array(drawn) - base) * np.sqrt(len(some) / count))
    scaled = f" of {len(some)} of {count} rows, scaled" if count > len(some) else f" of {count} rows"
    return np.array(values), f"{FEW_RESAMPLES} resamples{scaled}"


def _score_or_nan(metric: Metric, pairs: Sequence[tuple[Output, np.ndarray]], rows: np.ndarray) -> float:
    try:
        return float(np.mean([raw_score(metric, output.rows(rows), truth[rows]) for output, truth in pairs]))
    except Exception:  # the function is the user's; on the whole rows it gave a value
        return math.nan


def _block_sizes(count: int) -> str:
    if count <= BLOCKS:
        return f"{count} rows"
    return f"{BLOCKS} blocks of {count // BLOCKS}{f' or {count // BLOCKS + 1}' if count % BLOCKS else ''} rows"


@lru_cache(maxsize=8)
def _blocks(count: int, seed: int) -> np.ndarray:
    """[count] the block of each row; for few rows each is a block of its own."""
    if count <= BLOCKS:
        return np.arange(count)
    return np.random.default_rng(seed).permutation(count) % BLOCKS


@lru_cache(maxsize=8)
def _weights(count: int, seed: int) -> np.ndarray:
    """[resamples, count] how often each block is in each resample."""
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    flat = np.bincount((drawn + np.arange(RESAMPLES)[:, None] * count).ravel(), minlength=RESAMPLES * count)
    return flat.reshape(RESAMPLES, count).astype(np.float64)


@dataclass(frozen=True)
class RowSums:
    """A metric of n rows as a function of sums over them, ready to be computed for any weights of the rows."""

    statistics: Sequence[np.ndarray]
    """k statistics of the rows, each [n]."""
    value: Callable[[np.ndarray], np.ndarray]
    """[resamples, k] weighted sums of them -> [resamples] values, NaN where there is none."""

    def sums(self, blocks: np.ndarray, count: int) -> np.ndarray:
        """[count, k] sums of the statistics over the blocks that the n rows are in."""
        return np.column_stack([np.bincount(blocks, statistic, count) for statistic in self.statistics])


def row_sums(metric: Metric, output: Output, truth: np.ndarray) -> RowSums | None:
    """`metric` of these answers as a function of sums, or None where it is not known as one.

    Args:
        truth: [n]
    """
    make = SUMS.get(metric.name) if metric.function is None else None
    return make(output, truth) if make else None


MakeSums = Callable[[Output, np.ndarray], RowSums | None]


def _mean(row_values: Callable[[Output, np.ndarray], np.ndarray], *, sign: int = -1, root: bool = False) -> MakeSums:
    """Of values that each row has; the negative mean where they are losses."""

    def value(sums: np.ndarray) -> np.ndarray:
        mean: np.ndarray = sums[:, 1] / sums[:, 0]
        return sign * (np.sqrt(mean) if root else mean)

    return lambda output, truth: RowSums([np.ones(len(truth)), row_values(output, truth)], value)


def _log_loss(output: Output, truth: np.ndarray) -> np.ndarray:
    assert output.probabilities is not None
    given = output.probabilities[np.arange(len(truth)), np.searchsorted(output.classes, truth)]
    least = np.finfo(given.dtype).eps
    losses: np.ndarray = -np.log(np.clip(given, least, 1 - least))
    return losses


def _brier(output: Output, truth: np.ndarray) -> np.ndarray:
    assert output.probabilities is not None
    total: np.ndarray = ((output.probabilities - (truth[:, None] == output.classes)) ** 2).sum(axis=1)
    return total / 2 if len(output.classes) == 2 else total


def _squared_error(output: Output, truth: np.ndarray) -> np.ndarray:
    squared: np.ndarray = (output.predicted - truth) ** 2
    return squared


def _squared_log_error(output: Output, truth: np.ndarray) -> np.ndarray:
    squared: np.ndarray = (np.log1p(output.predicted) - np.log1p(truth)) ** 2
    return squared


def _explained(*, bias_counts: bool) -> MakeSums:
    """The share of the labels' variance that is not left in the errors, of which R² counts the mean too."""

    def value(sums: np.ndarray) -> np.ndarray:
        rows, error, squared, label, label_squared = sums.T
        total = label_squared - label**2 / rows
        unexplained = squared if bias_counts else squared - error**2 / rows
        return np.where(total > 0, 1 - unexplained / np.where(total > 0, total, 1), np.nan)

    def make(output: Output, truth: np.ndarray) -> RowSums:
        error, label = output.predicted - truth, truth - truth.mean()
        return RowSums([np.ones(len(truth)), error, error**2, label, label**2], value)

    return make


def _roc_auc(output: Output, truth: np.ndarray) -> RowSums | None:
    """By the share of the other class that each row is on the right side of; half of those at its own score.

    The area itself is no function of sums; its projection on rows (DeLong, DeLong and Clarke-Pearson 1988) has the
    same value on all rows, and the same variance but for terms that vanish with their number.
    """
    if len(output.classes) != 2:
        return None
    ranked = output.decisions if output.probabilities is None else output.probabilities[:, 1]
    positive = truth == output.classes[1]
    if ranked is None or not 0 < positive.sum() < len(positive):
        return None
    values, at = np.unique(ranked, return_inverse=True)
    positives, negatives = (np.bincount(at[rows], minlength=len(values)) for rows in (positive, ~positive))
    below = (np.cumsum(negatives) - negatives / 2) / negatives.sum()
    above = 1 - (np.cumsum(positives) - positives / 2) / positives.sum()
    share = np.where(positive, below[at], above[at])
    area = share[positive].mean()

    def value(sums: np.ndarray) -> np.ndarray:
        both = (sums[:, 0] > 0) & (sums[:, 1] > 0)
        projected = sums[:, 2] / np.maximum(sums[:, 0], 1) + sums[:, 3] / np.maximum(sums[:, 1], 1) - area
        return np.where(both, np.clip(projected, 0, 1), np.nan)

    return RowSums([positive * 1.0, ~positive * 1.0, positive * share, ~positive * share], value)


OfClass = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
OF_CLASS: dict[str, OfClass] = {
    "precision": lambda hits, predicted, true: (hits, predicted),
    "recall": lambda hits, predicted, true: (hits, true),
    "f1": lambda hits, predicted, true: (2 * hits, predicted + true),
    "jaccard": lambda hits, predicted, true: (hits, predicted + true - hits),
}
"""Scorer to the fraction that it is for a class that was right, predicted and true so often; each [..., classes]."""


def _of_counts(of_class: OfClass, average: str) -> MakeSums:
    """The mean of the classes' values: over all classes, those that are `true`, or only class 1 (`binary`)."""

    def make(output: Output, truth: np.ndarray) -> RowSums | None:
        labels = np.unique(np.concatenate([truth, output.predicted.astype(truth.dtype)]))
        if len(labels) > MAX_COUNTED_CLASSES or (average == "binary" and 1 not in labels.tolist()):
            return None
        is_true, is_predicted = truth == labels[:, None], output.predicted == labels[:, None]

        def value(sums: np.ndarray) -> np.ndarray:
            hits, predicted, true = np.split(sums, 3, axis=1)
            if average == "micro":
                return _ratio(*of_class(hits.sum(axis=1), predicted.sum(axis=1), true.sum(axis=1)))
            values = _ratio(*of_class(hits, predicted, true))
            if average == "binary":
                return values[:, labels.tolist().index(1)]
            weights = {"macro": predicted + true > 0, "true": true > 0, "weighted": true}[average]
            mean: np.ndarray = (values * weights).sum(axis=1) / weights.sum(axis=1)
            return mean

        return RowSums([*np.vstack([is_true & is_predicted, is_predicted, is_true]).astype(np.float64)], value)

    return make


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by, as scikit-learn has it."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0)


SUMS: dict[str, MakeSums] = {
    "accuracy": _mean(lambda answer, truth: answer.predicted == truth, sign=1),
    "balanced_accuracy": _of_counts(OF_CLASS["recall"], "true"),
    "neg_log_loss": _mean(_log_loss),
    "neg_brier_score": _mean(_brier),
    "roc_auc": _roc_auc,
    "r2": _explained(bias_counts=True),
    "explained_variance": _explained(bias_counts=False),
    "neg_mean_absolute_error": _mean(lambda answer, truth: np.abs(answer.predicted - truth)),
    "neg_mean_absolute_percentage_error": _mean(
        lambda answer, truth: np.abs(answer.predicted - truth) / np.maximum(np.abs(truth), np.finfo(np.float64).eps)
    ),
    "neg_mean_squared_error": _mean(_squared_error),
    "neg_root_mean_squared_error": _mean(_squared_error, root=True),
    "neg_mean_squared_log_error": _mean(_squared_log_error),
    "neg_root_mean_squared_log_error": _mean(_squared_log_error, root=True),
    **{name: _of_counts(of_class, "binary") for name, of_class in OF_CLASS.items()},
    **{
        f"{name}_{average}": _of_counts(of_class, average)
        for name, of_class in OF_CLASS.items()
        for average in ("macro", "micro", "weighted")
    },
}
"""Scorer to what makes sums of it."""
