"""Scores by scikit-learn's scorers and the user's functions, the same as sums over rows, and intervals around them.

Intervals are as wide as a plain bootstrap of rows makes them, and differences are those of the same rows.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import fbeta_score, get_scorer, make_scorer

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest
from services.trainer.evaluation.answers import Answers, Output
from services.trainer.evaluation.metrics import (
    MAX_RESAMPLED_ROWS,
    OF_CLASS,
    SUMS,
    interval,
    paired,
    raw_score,
    require_metrics,
    row_sums,
    score,
    scores,
)

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


RANDOM = np.random.default_rng(3)
REGRESSION = [
    "r2",
    "explained_variance",
    *(name for name in SUMS if name.startswith("neg_") and name.endswith("_error")),
]
AVERAGES = [f"{name}_{average}" for name in OF_CLASS for average in ("macro", "micro", "weighted")]
LABELS = ["accuracy", "balanced_accuracy", "neg_log_loss", "neg_brier_score", *AVERAGES]


def random_classifier(classes: int, rows: int = 300) -> tuple[Output, np.ndarray]:
    scores = RANDOM.normal(size=(rows, classes))
    truth = (scores + RANDOM.normal(size=scores.shape)).argmax(axis=1)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Output(probabilities.argmax(axis=1), np.arange(classes), probabilities), truth


def random_regressor(rows: int = 300) -> tuple[Output, np.ndarray]:
    truth = RANDOM.gamma(2, size=rows)
    return Output(truth + np.abs(RANDOM.normal(size=rows)), np.empty(0)), truth


CASES = [
    *((name, 0) for name in REGRESSION),
    *((name, classes) for name in LABELS for classes in (2, 4)),
    *((name, 2) for name in ("roc_auc", "f1", "precision", "recall", "jaccard")),
]


@pytest.mark.parametrize("name, classes", CASES)
def test_on_all_rows_it_is_what_scikit_learn_says(name: str, classes: int) -> None:
    output, truth = random_classifier(classes) if classes else random_regressor()
    known = row_sums(Metric(name), output, truth)
    assert known is not None
    whole = known.value(known.sums(np.zeros(len(truth), int), 1))
    assert whole == pytest.approx(raw_score(Metric(name), output, truth))


@pytest.mark.parametrize("name, classes", [case for case in CASES if case[0] != "roc_auc"])
def test_on_drawn_rows_it_is_what_scikit_learn_says(name: str, classes: int) -> None:
    output, truth = random_classifier(classes, 60) if classes else random_regressor(60)
    drawn = RANDOM.integers(0, 60, 60)
    known = row_sums(Metric(name), output, truth)
    assert known is not None
    times = np.bincount(drawn, minlength=60)[None, :]
    value = known.value(times @ known.sums(np.arange(60), 60))
    assert value == pytest.approx(raw_score(Metric(name), output.rows(drawn), truth[drawn]))


def test_the_projected_area_under_the_curve_is_near_the_real_one_on_drawn_rows() -> None:
    output, truth = random_classifier(2, 2000)
    output = Output(output.predicted, output.classes, output.probabilities.round(2))  # many equal scores
    known = row_sums(Metric("roc_auc"), output, truth)
    assert known is not None
    for _ in range(5):
        drawn = RANDOM.integers(0, 2000, 2000)
        value = known.value(np.bincount(drawn, minlength=2000)[None, :] @ known.sums(np.arange(2000), 2000))
        assert value == pytest.approx(raw_score(Metric("roc_auc"), output.rows(drawn), truth[drawn]), abs=0.001)


def test_a_resample_of_one_class_has_no_area_under_the_curve() -> None:
    output, truth = random_classifier(2)
    known = row_sums(Metric("roc_auc"), output, truth)
    assert known is not None
    sums = known.sums(np.arange(300), 300)
    assert np.isnan(known.value(np.where(truth == 1, 1, 0)[None, :] @ sums)).all()


@pytest.mark.parametrize("metric", [Metric("average_precision"), Metric("roc_auc_ovr"), Metric("f1", lambda t, p: 0.0)])
def test_other_metrics_are_not_known_as_sums(metric: Metric) -> None:
    assert row_sums(metric, *random_classifier(2)) is None


def test_labels_of_text_have_no_positive_class() -> None:
    output = Output(np.array(["yes", "no"] * 10, object), np.array(["no", "yes"], object))
    assert row_sums(Metric("f1"), output, output.predicted) is None
    assert get_scorer("f1_macro")._score_func  # but averages over classes have no need of one
    assert row_sums(Metric("f1_macro"), output, output.predicted) is not None


def test_every_named_metric_is_a_scorer() -> None:
    for name in SUMS:
        get_scorer(name)


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
    assert first.method == "1000 resamples of 500 blocks of 2 or 3 rows"
    assert interval(Metric("accuracy"), answers, truth, seed=5) != first


def test_a_metric_that_is_no_sum_is_computed_on_fewer_rows_and_says_so() -> None:
    answers, truth = answered(4 * MAX_RESAMPLED_ROWS, 0.5)
    found = interval(Metric("average_precision"), answers, truth)
    assert found is not None
    assert found.method == "100 resamples of 2000 of 8000 rows, scaled"
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
    assert found.estimate == pytest.approx(
        score(Metric("roc_auc"), good, truth) - score(Metric("roc_auc"), poor, truth)
    )
    assert 0 < found.lo < found.estimate < found.hi
    assert found.share_above(0) == 1
    turned = paired(Metric("roc_auc"), poor, good, truth)
    assert (turned.share_above(0), turned.lo, turned.hi) == (0, -found.hi, -found.lo)


def test_the_same_answers_are_never_better() -> None:
    answers, truth = answered(500, 0.5)
    found = paired(Metric("neg_log_loss"), answers, answers, truth)
    assert (found.estimate, found.lo, found.hi, found.share_above(0)) == (0, 0, 0, 0)


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
