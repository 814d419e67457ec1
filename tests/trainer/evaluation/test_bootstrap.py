"""Intervals are as wide as a plain bootstrap of rows makes them, and differences are those of the same rows."""

from __future__ import annotations

import time

import numpy as np
import pytest

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest
from services.trainer.evaluation.answers import Answers, Output
from services.trainer.evaluation.bootstrap import MOST_ROWS, interval, paired
from services.trainer.evaluation.metrics import raw_score, score

AREA = 0.8465
"""Under the ROC curve of `answered(..., 0.5)`, were there rows without end."""


def answered(rows: int, noise: float, *, seed: int = 0) -> tuple[Answers, np.ndarray]:
    """Answers of a classifier that is wrong more often with more noise, and what was true."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=rows)
    truth = (signal + 0.7 * random.normal(size=rows) > 0).astype(int)
    likely = 1 / (1 + np.exp(-2 * (signal + noise * random.normal(size=rows))))
    return classifier(likely), truth


def classifier(likely: np.ndarray) -> Answers:
    output = Output((likely > 0.5).astype(int), np.array([0, 1]), np.column_stack([1 - likely, likely]))
    return Answers("classification", (output,))


def plainly(name: str, answers: Answers, truth: np.ndarray, resamples: int = 250) -> np.ndarray:
    """Values of a metric on resampled rows, computed one after the other."""
    random = np.random.default_rng(1)
    draws = random.integers(0, len(truth), (resamples, len(truth)))
    return np.array([raw_score(Metric(name), answers.outputs[0].rows(rows), truth[rows]) for rows in draws])


@pytest.mark.parametrize("rows", [200, 1500])
@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "neg_log_loss", "f1", "average_precision"])
def test_an_interval_is_that_of_a_plain_bootstrap(name: str, rows: int) -> None:
    answers, truth = answered(rows, 0.5)
    found = interval(Metric(name), answers, truth)
    assert found is not None
    lo, hi = np.percentile(plainly(name, answers, truth), [2.5, 97.5])
    assert (found.lo, found.hi) == pytest.approx((lo, hi), abs=0.3 * (hi - lo))
    assert found.hi - found.lo == pytest.approx(hi - lo, rel=0.3)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(200):
        answers, truth = answered(300, 0.5, seed=seed)
        found = interval(Metric("roc_auc"), answers, truth, seed=seed)
        assert found is not None
        covered += found.lo <= AREA <= found.hi
    assert 180 <= covered <= 199


def test_the_population_value_of_that_test_is_right() -> None:
    answers, truth = answered(400_000, 0.5, seed=99)
    assert score(Metric("roc_auc"), answers, truth) == pytest.approx(AREA, abs=0.003)


def test_the_same_seed_gives_the_same_interval_and_says_how() -> None:
    answers, truth = answered(1234, 0.5)
    first, second = (interval(Metric("accuracy"), answers, truth, seed=4) for _ in range(2))
    assert first == second
    assert first is not None
    assert first.how == "1000 resamples of 500 blocks of 2 or 3 rows"
    assert interval(Metric("accuracy"), answers, truth, seed=5) != first


def test_a_metric_that_is_no_sum_is_computed_on_fewer_rows_and_says_so() -> None:
    answers, truth = answered(4 * MOST_ROWS, 0.5)
    found = interval(Metric("average_precision"), answers, truth)
    assert found is not None
    assert found.how == "100 resamples of 2000 of 8000 rows, scaled"
    assert found.lo < score(Metric("average_precision"), answers, truth) < found.hi


def test_a_metric_without_a_value_on_most_resamples_has_no_interval() -> None:
    truth = np.zeros(300, int)
    truth[7] = 1

    def fragile(truth: np.ndarray, predicted: np.ndarray) -> float:
        if truth.sum() != 1:
            raise ValueError("expected one")
        return 1.0

    assert interval(Metric.of(fragile), classifier(np.linspace(0, 1, 300)), truth) is None


def test_the_better_of_two_is_better_on_most_resamples() -> None:
    good, truth = answered(2000, 0.2)
    poor, _ = answered(2000, 2.0)
    found = paired(Metric("roc_auc"), good, poor, truth)
    assert found.estimate == pytest.approx(found.challenger - found.champion)
    assert 0 < found.lo < found.estimate < found.hi
    assert found.better == 1
    turned = paired(Metric("roc_auc"), poor, good, truth)
    assert (turned.better, turned.lo, turned.hi) == (0, -found.hi, -found.lo)


def test_the_same_answers_are_never_better() -> None:
    answers, truth = answered(500, 0.5)
    found = paired(Metric("neg_log_loss"), answers, answers, truth)
    assert (found.estimate, found.lo, found.hi, found.better) == (0, 0, 0, 0)


def test_a_difference_on_the_same_rows_is_narrower_than_its_ends_are_each() -> None:
    answers, truth = answered(2000, 0.5)
    likely = answers.outputs[0].probabilities[:, 1]  # type: ignore[index]
    nearly = classifier(np.clip(likely + 0.02 * np.sin(np.arange(2000)), 0.001, 0.999))
    both = paired(Metric("roc_auc"), nearly, answers, truth)
    alone = interval(Metric("roc_auc"), answers, truth)
    assert alone is not None
    assert both.hi - both.lo < 0.2 * (alone.hi - alone.lo)


def test_how_much_better_is_a_question_of_the_resamples_too() -> None:
    good, truth = answered(2000, 0.2)
    poor, _ = answered(2000, 1.0)
    found = paired(Metric("accuracy"), good, poor, truth)
    assert 1 >= found.share_above(0) >= found.share_above(found.estimate) >= found.share_above(1) == 0
    assert found.share_above(found.estimate) == pytest.approx(0.5, abs=0.1)


def test_a_metric_that_one_of_them_cannot_give_is_refused() -> None:
    answers, truth = answered(100, 0.5)
    labels = Answers("classification", (Output(truth, np.array([0, 1])),))
    with pytest.raises(InvalidRequest, match="neg_log_loss"):
        paired(Metric("neg_log_loss"), answers, labels, truth)


def test_several_labels_are_resampled_together() -> None:
    first, truth = answered(600, 0.5)
    both = Answers("classification", (*first.outputs, *first.outputs))
    twice = interval(Metric("accuracy"), both, np.column_stack([truth, truth]))
    assert twice == interval(Metric("accuracy"), first, truth)


def test_a_large_evaluation_takes_a_moment() -> None:
    answers, truth = answered(75_000, 0.5)
    begun = time.process_time()
    for name in ("accuracy", "roc_auc", "neg_log_loss"):
        assert interval(Metric(name), answers, truth)
    assert time.process_time() - begun < 0.5  # 0.03 s where nothing else runs
