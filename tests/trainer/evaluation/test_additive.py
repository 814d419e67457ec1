"""Metrics of sums: with each row once they are what scikit-learn's scorers say, with each row so often they still are."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import get_scorer

from modelmill.declare.metrics import Metric
from services.trainer.evaluation.additive import COUNTS, ROW_LOSSES, SUMS, additive
from services.trainer.evaluation.answers import Output
from services.trainer.evaluation.metrics import raw_score

RANDOM = np.random.default_rng(3)
REGRESSION = [
    "r2",
    "explained_variance",
    *(name for name in ROW_LOSSES if name not in ("neg_log_loss", "neg_brier_score")),
]
AVERAGES = [
    f"{name}_{average}" for name in COUNTS if name != "balanced_accuracy" for average in ("macro", "micro", "weighted")
]
LABELS = ["accuracy", "balanced_accuracy", "neg_log_loss", "neg_brier_score", *AVERAGES]


def classifier(classes: int, rows: int = 300) -> tuple[Output, np.ndarray]:
    scores = RANDOM.normal(size=(rows, classes))
    truth = (scores + RANDOM.normal(size=scores.shape)).argmax(axis=1)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Output(probabilities.argmax(axis=1), np.arange(classes), probabilities), truth


def regressor(rows: int = 300) -> tuple[Output, np.ndarray]:
    truth = RANDOM.gamma(2, size=rows)
    return Output(truth + np.abs(RANDOM.normal(size=rows)), np.empty(0)), truth


CASES = [
    *((name, 0) for name in REGRESSION),
    *((name, classes) for name in LABELS for classes in (2, 4)),
    *((name, 2) for name in ("roc_auc", "f1", "precision", "recall", "jaccard")),
]


@pytest.mark.parametrize("name, classes", CASES)
def test_on_all_rows_it_is_what_scikit_learn_says(name: str, classes: int) -> None:
    output, truth = classifier(classes) if classes else regressor()
    known = additive(Metric(name), output, truth)
    assert known is not None
    whole = known.value(known.sums(np.zeros(len(truth), int), 1))
    assert whole == pytest.approx(raw_score(Metric(name), output, truth))


@pytest.mark.parametrize("name, classes", [case for case in CASES if case[0] != "roc_auc"])
def test_on_drawn_rows_it_is_what_scikit_learn_says(name: str, classes: int) -> None:
    output, truth = classifier(classes, 60) if classes else regressor(60)
    drawn = RANDOM.integers(0, 60, 60)
    known = additive(Metric(name), output, truth)
    assert known is not None
    times = np.bincount(drawn, minlength=60)[None, :]
    value = known.value(times @ known.sums(np.arange(60), 60))
    assert value == pytest.approx(raw_score(Metric(name), output.rows(drawn), truth[drawn]))


def test_the_projected_area_under_the_curve_is_near_the_real_one_on_drawn_rows() -> None:
    output, truth = classifier(2, 2000)
    output = Output(output.predicted, output.classes, output.probabilities.round(2))  # many equal scores
    known = additive(Metric("roc_auc"), output, truth)
    assert known is not None
    for _ in range(5):
        drawn = RANDOM.integers(0, 2000, 2000)
        value = known.value(np.bincount(drawn, minlength=2000)[None, :] @ known.sums(np.arange(2000), 2000))
        assert value == pytest.approx(raw_score(Metric("roc_auc"), output.rows(drawn), truth[drawn]), abs=0.001)


def test_a_resample_of_one_class_has_no_area_under_the_curve() -> None:
    output, truth = classifier(2)
    known = additive(Metric("roc_auc"), output, truth)
    assert known is not None
    sums = known.sums(np.arange(300), 300)
    assert np.isnan(known.value(np.where(truth == 1, 1, 0)[None, :] @ sums)).all()


@pytest.mark.parametrize("metric", [Metric("average_precision"), Metric("roc_auc_ovr"), Metric("f1", lambda t, p: 0.0)])
def test_other_metrics_are_not_known_as_sums(metric: Metric) -> None:
    assert additive(metric, *classifier(2)) is None


def test_labels_of_text_have_no_positive_class() -> None:
    output = Output(np.array(["yes", "no"] * 10, object), np.array(["no", "yes"], object))
    assert additive(Metric("f1"), output, output.predicted) is None
    assert get_scorer("f1_macro")._score_func  # but averages over classes have no need of one
    assert additive(Metric("f1_macro"), output, output.predicted) is not None


def test_every_named_metric_is_a_scorer() -> None:
    for name in (*ROW_LOSSES, *SUMS, *COUNTS):
        get_scorer(name)
