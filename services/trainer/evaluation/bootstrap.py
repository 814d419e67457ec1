"""How far a metric could be off because other rows might have been held out: the bootstrap, with a fixed seed.

Rows are taken as independent of each other. Where a metric is a function of sums over rows (`additive`), not rows but
up to `BLOCKS` blocks of rows, put together at random, are drawn with replacement: the spread is the same, and the work
does not grow with the resamples. Any other metric is computed again for `FEW` resamples of at most `MOST_ROWS` rows,
and its spread scaled to that of all rows by the root of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from modelmill.declare.metrics import Metric
from services.trainer.evaluation.additive import Additive, additive
from services.trainer.evaluation.answers import Answers, Output, truths
from services.trainer.evaluation.evaluation import Interval
from services.trainer.evaluation.metrics import raw_score, score

RESAMPLES = 1000
BLOCKS = 500
FEW = 100
MOST_ROWS = 2000
EDGES = (2.5, 97.5)
"""Percentiles between which 95 % of the resamples are."""


@dataclass(frozen=True)
class Resampled:
    """Values of a metric on the same resamples for several models."""

    values: np.ndarray
    """[models, resamples] without those that had no value; no resamples at all where half of them had none."""
    how: str


@dataclass(frozen=True)
class Paired:
    """By how much a challenger is better than a champion, both on the same resamples of the same rows."""

    metric: str
    rows: int
    challenger: float
    champion: float
    differences: np.ndarray = field(repr=False)
    """[resamples] challenger minus champion; empty where the metric has no value on most resamples."""
    how: str

    @property
    def estimate(self) -> float:
        """Challenger minus champion on all rows; greater is better."""
        return self.challenger - self.champion

    @property
    def lo(self) -> float:
        """The lower end of the difference's 95 % interval; NaN where there is none."""
        return self._percentile(EDGES[0])

    @property
    def hi(self) -> float:
        """Its upper end."""
        return self._percentile(EDGES[1])

    @property
    def better(self) -> float:
        """Share of the resamples in which the challenger is better; an equal one is not better."""
        return self.share_above(0)

    def share_above(self, margin: float) -> float:
        """Share of the resamples in which the challenger is better by more than `margin`; 0 where there are none."""
        return float((self.differences > margin).mean()) if len(self.differences) else 0.0

    def _percentile(self, edge: float) -> float:
        return float(np.percentile(self.differences, edge)) if len(self.differences) else float("nan")


def interval(metric: Metric, answers: Answers, truth: np.ndarray, *, seed: int = 0) -> Interval | None:
    """The 95 % interval of `metric`, or None where it has no value on most resamples.

    Args:
        truth: [n] or [n, outputs]
    """
    found = resampled(metric, [answers], truth, seed=seed)
    if not found.values.size:
        return None
    lo, hi = np.percentile(found.values[0], EDGES)
    return Interval(float(lo), float(hi), found.how)


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
    found = resampled(metric, [challenger, champion], truth, seed=seed)
    return Paired(metric.name, len(truth), own, other, found.values[0] - found.values[1], found.how)


def resampled(metric: Metric, models: Sequence[Answers], truth: np.ndarray, *, seed: int) -> Resampled:
    """The metric of all `models` on the same resamples of their rows."""
    pairs = [list(zip(answers.outputs, truths(truth), strict=True)) for answers in models]
    sums = [[additive(metric, *pair) for pair in of_model] for of_model in pairs]
    if all(one is not None for of_model in sums for one in of_model):
        blocks, weights = _blocks(len(truth), seed), _weights(min(len(truth), BLOCKS), seed)
        values = [_by_weights([one for one in of_model if one], blocks, weights) for of_model in sums]
        how = f"{RESAMPLES} resamples of {_described(len(truth))}"
    else:
        values, how = _by_rows(metric, pairs, len(truth), seed)
    found = np.array(values)
    complete = np.isfinite(found).all(axis=0)
    return Resampled(found[:, complete if complete.mean() > 0.5 else np.zeros_like(complete)], how)


def _by_weights(sums: Sequence[Additive], blocks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[resamples] values of one model, the mean over its outputs."""
    values = [one.value(weights @ one.sums(blocks, weights.shape[1])) for one in sums]
    found: np.ndarray = np.mean(values, axis=0)
    return found


def _by_rows(
    metric: Metric, pairs: Sequence[Sequence[tuple[Output, np.ndarray]]], count: int, seed: int
) -> tuple[list[np.ndarray], str]:
    """[resamples] values of each model, and how they came about."""
    random = np.random.default_rng(seed)
    some = random.permutation(count)[:MOST_ROWS]
    draws = [np.arange(len(some)), *random.integers(0, len(some), (FEW, len(some)))]
    values = []
    for of_model in pairs:
        kept = [(output.rows(some), truth[some]) for output, truth in of_model]
        base, *drawn = (_mean_score(metric, kept, rows) for rows in draws)
        whole = base if count == len(some) else _mean_score(metric, of_model, np.arange(count))
        values.append(whole + (np.array(drawn) - base) * np.sqrt(len(some) / count))
    scaled = f" of {len(some)} of {count} rows, scaled" if count > len(some) else f" of {count} rows"
    return values, f"{FEW} resamples{scaled}"


def _mean_score(metric: Metric, pairs: Sequence[tuple[Output, np.ndarray]], rows: np.ndarray) -> float:
    """The metric on some rows, NaN where it has no value."""
    try:
        return float(np.mean([raw_score(metric, output.rows(rows), truth[rows]) for output, truth in pairs]))
    except Exception:  # the function is the user's; on the whole rows it gave a value
        return float("nan")


def _described(count: int) -> str:
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
