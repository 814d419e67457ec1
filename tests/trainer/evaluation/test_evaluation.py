"""All that is said about how good a model is, on all held-out rows and by segment, and over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from modelmill.declare.metrics import Metric
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.evaluation import evaluation
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluation import (
    MAX_VALUES,
    RANGES,
    Evaluation,
    HeldOut,
    Segment,
    evaluate,
    segment_extremes,
    segmentation,
)
from services.trainer.evaluation.metrics import Interval

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(400, 2)), columns=["a", "b"])
SHOP = pd.Series(["north"] * 200 + ["south"] * 190 + ["tiny"] * 10, dtype=object)
NOISE = np.where(SHOP == "south", 2.0, 0.2) * RANDOM.normal(size=400)
LABEL = (ROWS["a"] + NOISE > 0).to_numpy().astype(int)


def held_out(label: np.ndarray = LABEL, **changes: Any) -> HeldOut:
    base = HeldOut((Metric("roc_auc"),), ROWS, label, ("y",), {"shop": segmentation(SHOP)}, "at random")
    return replace(base, **changes)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(held_out(), Answers.of(LogisticRegression().fit(ROWS, LABEL), ROWS), LABEL)


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
    found = evaluate(held_out(label), Answers.of(LogisticRegression().fit(ROWS, label), ROWS), label)
    south = found.segments["shop"]["south"]
    assert "accuracy" in south.metrics
    assert south.missing["roc_auc"].startswith("metric 'roc_auc' cannot be computed on 190 rows with 1 different")


def test_a_function_that_fails_on_a_segment_says_so_there() -> None:
    def both_shops(truth: np.ndarray, predicted: np.ndarray) -> float:
        if len(truth) == 190:
            raise ZeroDivisionError("no north")
        return 1.0

    asked = held_out(metrics=(Metric.of(both_shops),))
    found = evaluate(asked, Answers.of(LogisticRegression().fit(ROWS, LABEL), ROWS), LABEL)
    assert found.metrics["both_shops"] == 1
    assert found.segments["shop"]["south"].missing["both_shops"] == "ZeroDivisionError: no north"


def test_a_regression_is_compared_with_the_mean_of_its_labels() -> None:
    number = ROWS["a"].to_numpy() + NOISE
    asked = held_out(number, metrics=(Metric("r2"),))
    found = evaluate(asked, Answers.of(LinearRegression().fit(ROWS, number), ROWS), number)
    assert list(found.metrics) == ["r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"]
    assert found.baseline["r2"] == pytest.approx(0)


def test_of_several_labels_each_has_its_own_metrics() -> None:
    both = np.column_stack([LABEL, (ROWS["b"] > 0).astype(int)])
    estimator = MultiOutputClassifier(LogisticRegression()).fit(ROWS, both)
    found = evaluate(held_out(both, label_names=("y", "z")), Answers.of(estimator, ROWS), both)
    assert list(found.outputs) == ["y", "z"]
    assert found.metrics["roc_auc"] == pytest.approx(np.mean([one["roc_auc"] for one in found.outputs.values()]))
    assert found.intervals["roc_auc"].lo < found.metrics["roc_auc"]


def test_it_is_read_as_it_was_written(found: Evaluation) -> None:
    assert Evaluation.from_json(found.to_json()) == found


def test_in_brief_it_names_the_best_and_the_worst_segment() -> None:
    segments = {"shop": {"n": Segment(200, {"r2": 0.9}), "s": Segment(190, {"r2": 0.5}), "t": Segment(3, {})}}
    assert segment_extremes(segments, "r2") == {"shop": "r2 from 0.5 (s, 190 rows) to 0.9 (n, 200 rows)"}
    assert segment_extremes({"shop": {"t": Segment(3, {})}}, "r2") == {"shop": "no value of r2 in any of 1 segments"}


def sizes(values: pd.Series) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in segmentation(values).masks().items()}


def test_few_values_are_a_segment_each_in_order() -> None:
    assert sizes(pd.Series(["JFK", "EWR", "LGA", "EWR"], dtype=object)) == {"EWR": 2, "JFK": 1, "LGA": 1}
    assert sizes(pd.Series([3.0, 1.0, 1.0])) == {"1": 2, "3": 1}
    assert sizes(pd.Series([True, False, True])) == {"False": 1, "True": 2}


def test_missing_values_are_a_segment() -> None:
    assert sizes(pd.Series(["a", None, "", "a"], dtype=object)) == {"a": 2, "missing": 2}
    assert sizes(pd.Series([1.0, np.nan])) == {"1": 1, "missing": 1}
    assert sizes(pd.Series([None, None], dtype=object)) == {"missing": 2}


def test_of_many_values_the_rare_ones_are_together_and_it_says_so() -> None:
    values = pd.Series(
        [f"v{number:02}" for number in range(MAX_VALUES + 5) for _ in range(MAX_VALUES + 5 - number)], dtype=object
    )
    found = sizes(values)
    assert len(found) == MAX_VALUES + 1
    assert (found["v00"], found["other"]) == (MAX_VALUES + 5, 1 + 2 + 3 + 4 + 5)
    assert segmentation(values).note == "the 12 most frequent of 17 values; the others are together in 'other'"


def test_a_value_of_the_name_of_the_rest_is_in_the_rest() -> None:
    values = pd.Series(["other"] * 9 + [f"v{number}" for number in range(MAX_VALUES + 5)], dtype=object)
    assert sum(sizes(values).values()) == len(values)


def test_a_number_with_many_values_is_parted_at_its_quantiles() -> None:
    found = sizes(pd.Series(np.arange(100.0)))
    assert found == {"[0, 24.75)": 25, "[24.75, 49.5)": 25, "[49.5, 74.25)": 25, "[74.25, 99]": 25}
    assert segmentation(pd.Series(np.arange(100))).note == "4 ranges by quantiles of the held-out rows"


def test_a_number_that_is_mostly_one_value_has_fewer_ranges() -> None:
    found = sizes(pd.Series([0.0] * 80 + list(range(1, 21))))
    assert 1 <= len(found) < RANGES
    assert sum(found.values()) == 100


@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=False, width=32)), min_size=1, max_size=60))
def test_every_row_is_in_one_segment(values: list[float | None]) -> None:
    masks = segmentation(pd.Series(values, dtype="float64")).masks().values()
    assert (np.sum(list(masks), axis=0) == 1).all()


FOUND = Evaluation(
    rows=40,
    split="at random",
    metrics={"accuracy": 0.9},
    intervals={"accuracy": Interval(0.8, 0.95, "1000 resamples of 40 rows")},
    segments={"shop": {"north": Segment(30, {"accuracy": 0.95})}},
)


def test_a_run_answers_with_its_evaluation(http: FlaskClient, registry: Registry, storage: Storage) -> None:
    registry.runs.start(Run(id="r1", model="user_target", started=utc_now()))
    evaluation.write(storage, "user_target", "r1", FOUND)
    answer = http.get("/runs/r1/evaluation")
    assert answer.status_code == 200
    assert Evaluation.from_json(answer.data) == FOUND
    assert answer.json["segments"]["shop"]["north"] == {
        "rows": 30, "metrics": {"accuracy": 0.95}, "intervals": {}, "missing": {},
    }  # fmt: skip


def test_a_run_without_one_is_not_found(http: FlaskClient, registry: Registry) -> None:
    registry.runs.start(Run(id="r1", model="user_target", started=utc_now()))
    answer = http.get("/runs/r1/evaluation")
    assert (answer.status_code, answer.json["detail"]) == (404, "run 'r1' of model 'user_target' has no evaluation")
    assert http.get("/runs/r2/evaluation").status_code == 404
