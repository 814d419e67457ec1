"""All that is said about how good a model is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from modelmill.declare.metrics import Metric
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluate import Question, brief, evaluate
from services.trainer.evaluation.evaluation import Evaluation, Segment
from services.trainer.evaluation.segments import parts

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(400, 2)), columns=["a", "b"])
SHOP = pd.Series(["north"] * 200 + ["south"] * 190 + ["tiny"] * 10, dtype=object)
NOISE = np.where(SHOP == "south", 2.0, 0.2) * RANDOM.normal(size=400)
LABEL = (ROWS["a"] + NOISE > 0).to_numpy().astype(int)


def question(label: np.ndarray = LABEL, **changes: Any) -> Question:
    base = Question((Metric("roc_auc"),), label, ("y",), {"shop": parts(SHOP)}, "at random")
    return replace(base, **changes)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(question(), Answers.of(LogisticRegression().fit(ROWS, LABEL), ROWS), LABEL)


def test_every_metric_has_an_interval_around_it(found: Evaluation) -> None:
    assert list(found.metrics) == ["roc_auc", "accuracy", "neg_log_loss"] == list(found.intervals)
    for name, value in found.metrics.items():
        assert found.intervals[name].lo < value < found.intervals[name].hi


def test_beside_it_stands_what_the_labels_alone_would_say(found: Evaluation) -> None:
    assert found.baseline["roc_auc"] == 0.5
    assert found.baseline["accuracy"] == pytest.approx(max(LABEL.mean(), 1 - LABEL.mean()))


def test_a_segment_has_metrics_and_intervals_of_its_own(found: Evaluation) -> None:
    shops = found.segments["shop"]
    assert {name: one.rows for name, one in shops.items()} == {"north": 200, "south": 190, "tiny": 10}
    assert shops["north"].metrics["roc_auc"] > shops["south"].metrics["roc_auc"] + 0.1
    assert shops["north"].intervals["roc_auc"].lo > shops["south"].intervals["roc_auc"].lo


def test_a_segment_that_is_too_small_says_so_instead(found: Evaluation) -> None:
    tiny = found.segments["shop"]["tiny"]
    assert (tiny.metrics, tiny.missing["roc_auc"]) == ({}, "10 rows; expected at least 20")


def test_a_segment_of_one_class_has_the_metrics_that_it_can_have() -> None:
    label = np.where(SHOP == "south", 1, LABEL)
    found = evaluate(question(label), Answers.of(LogisticRegression().fit(ROWS, label), ROWS), label)
    south = found.segments["shop"]["south"]
    assert "accuracy" in south.metrics
    assert south.missing["roc_auc"].startswith("metric 'roc_auc' cannot be computed on 190 rows with 1 different")


def test_a_function_that_fails_on_a_segment_says_so_there() -> None:
    def both_shops(truth: np.ndarray, predicted: np.ndarray) -> float:
        if len(truth) == 190:
            raise ZeroDivisionError("no north")
        return 1.0

    asked = question(metrics=(Metric.of(both_shops),))
    found = evaluate(asked, Answers.of(LogisticRegression().fit(ROWS, LABEL), ROWS), LABEL)
    assert found.metrics["both_shops"] == 1
    assert found.segments["shop"]["south"].missing["both_shops"] == "ZeroDivisionError: no north"


def test_a_regression_is_compared_with_the_mean_of_its_labels() -> None:
    number = ROWS["a"].to_numpy() + NOISE
    asked = question(number, metrics=(Metric("r2"),))
    found = evaluate(asked, Answers.of(LinearRegression().fit(ROWS, number), ROWS), number)
    assert list(found.metrics) == ["r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"]
    assert found.baseline["r2"] == pytest.approx(0)


def test_of_several_labels_each_has_its_own_metrics() -> None:
    both = np.column_stack([LABEL, (ROWS["b"] > 0).astype(int)])
    estimator = MultiOutputClassifier(LogisticRegression()).fit(ROWS, both)
    found = evaluate(question(both, labels=("y", "z")), Answers.of(estimator, ROWS), both)
    assert list(found.outputs) == ["y", "z"]
    assert found.metrics["roc_auc"] == pytest.approx(np.mean([one["roc_auc"] for one in found.outputs.values()]))
    assert found.intervals["roc_auc"].lo < found.metrics["roc_auc"]


def test_it_is_read_as_it_was_written(found: Evaluation) -> None:
    assert Evaluation.from_json(found.to_json()) == found


def test_in_brief_it_names_the_best_and_the_worst_segment() -> None:
    segments = {"shop": {"n": Segment(200, {"r2": 0.9}), "s": Segment(190, {"r2": 0.5}), "t": Segment(3, {})}}
    assert brief(segments, "r2") == {"shop": "r2 from 0.5 (s, 190 rows) to 0.9 (n, 200 rows)"}
    assert brief({"shop": {"t": Segment(3, {})}}, "r2") == {"shop": "no value of r2 in any of 1 segments"}
