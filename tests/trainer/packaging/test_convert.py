"""Graphs that answer as their estimators do, or none."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelmill.packages.package import Input, Parity
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging import convert as convert_module
from services.trainer.packaging.convert import Converted, NoGraph, convert
from services.trainer.packaging.graph import Graph, OwnAnswers, Tolerance
from services.trainer.packaging.packing import DEFAULT
from services.trainer.packaging.probes import prove

RANDOM = np.random.default_rng(0)
NUMBERS = pd.DataFrame({"a": RANDOM.normal(size=400), "b": 100 * RANDOM.normal(size=400)})
YES = (NUMBERS["a"] + NUMBERS["b"] / 100 > 0).to_numpy()
MIXED = NUMBERS.rename(columns={"a": "carrier.delay"}).assign(
    origin=pd.Series(RANDOM.choice(["EWR", "JFK", ""], 400), dtype=object)
)
CATEGORIES = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["origin"]),
    (make_pipeline(SimpleImputer(), StandardScaler()), ["carrier.delay", "b"]),
)
CODES = make_column_transformer(
    (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["origin"]), remainder="passthrough"
)


def inputs_of(rows: pd.DataFrame) -> list[Input]:
    return [Input(name, "str" if rows[name].dtype == object else "float", True) for name in rows.columns]


def converted(estimator: Any, rows: pd.DataFrame, tolerance: Tolerance = DEFAULT) -> Converted:
    inputs = inputs_of(rows)
    return convert(
        estimator, inputs, prove(estimator, inputs, rows, OwnAnswers.of(Answers.of(estimator, rows))), tolerance
    )


def fitted(estimator: Any, rows: pd.DataFrame, label: np.ndarray) -> tuple[Any, Converted, Graph]:
    """Fit on the first 300 rows, convert with the others."""
    estimator.fit(rows[:300], label[:300])
    found = converted(estimator, rows[300:])
    return estimator, found, found.graph


@pytest.mark.parametrize(
    "label",
    [YES, YES.astype(int), YES.astype(float), np.where(YES, "yes", "no").astype(object), NUMBERS["b"].to_numpy() // 90],
    ids=["bool", "int", "float", "text", "several"],
)
@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
    ],
    ids=["logistic", "forest", "boosting"],
)
def test_a_classifier_answers_alike_whatever_its_labels(estimator: Any, label: np.ndarray) -> None:
    estimator, found, graph = fitted(estimator, NUMBERS, label)
    labels, probabilities = graph.run(NUMBERS[300:])
    precision = "float64" if isinstance(estimator, HistGradientBoostingClassifier) else "float32"
    assert (found.layout, found.tensor_dtype) == ("matrix", precision)
    assert (labels.astype(label.dtype) == estimator.predict(NUMBERS[300:])).all()
    np.testing.assert_allclose(probabilities, estimator.predict_proba(NUMBERS[300:]), atol=1e-5)


def test_missing_numbers_reach_a_boosting_model_as_nan() -> None:
    rows = NUMBERS.copy()
    rows.loc[::3, "a"] = np.nan
    estimator, _, graph = fitted(HistGradientBoostingClassifier(max_iter=10), rows, YES)
    np.testing.assert_allclose(graph.run(rows[300:])[1], estimator.predict_proba(rows[300:]), atol=1e-5)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize(
    "estimator",
    [make_pipeline(CATEGORIES, LogisticRegression()), make_pipeline(CODES, HistGradientBoostingClassifier(max_iter=5))],
    ids=["logistic", "boosting"],
)
def test_text_and_numbers_go_in_as_a_tensor_an_input_under_their_own_names(estimator: Any, missing: bool) -> None:
    rows = MIXED.copy()
    if missing:
        rows.loc[::4, "carrier.delay"] = np.nan
    estimator, found, graph = fitted(estimator, rows, YES)
    assert found.layout == "columns"
    assert [item.name for item in graph.session.get_inputs()] == ["carrier.delay", "b", "origin"]
    np.testing.assert_allclose(graph.run(rows[300:])[1], estimator.predict_proba(rows[300:]), atol=1e-5)


def test_a_category_that_training_never_saw_is_answered_as_the_estimator_answers_it() -> None:
    estimator, _, graph = fitted(make_pipeline(CATEGORIES, LogisticRegression()), MIXED, YES)
    rows = MIXED[300:].assign(origin="ZRH").astype({"origin": object})
    np.testing.assert_allclose(graph.run(rows)[1], estimator.predict_proba(rows), atol=1e-5)


def test_a_classifier_without_probabilities_has_labels_only() -> None:
    _, _, graph = fitted(RidgeClassifier(), NUMBERS, YES)
    assert graph.outputs == ["label"]


@pytest.mark.parametrize("how", ["soft", "hard"])
def test_a_vote_answers_alike_and_is_left_as_it_was(how: str) -> None:
    both = [("one", LogisticRegression()), ("other", LogisticRegression(C=0.01))]
    vote = make_pipeline(StandardScaler(), VotingClassifier(both, voting=how))
    estimator, found, _ = fitted(vote, NUMBERS, YES)
    assert found.parity.labels_differing == 0
    assert estimator[-1].flatten_transform


def test_a_regressor_answers_alike() -> None:
    number = (NUMBERS["a"] * 3 + NUMBERS["b"]).to_numpy()
    estimator, _, graph = fitted(HistGradientBoostingRegressor(max_iter=10), NUMBERS, number)
    np.testing.assert_allclose(graph.run(NUMBERS[300:])[0].ravel(), estimator.predict(NUMBERS[300:]), rtol=1e-4)


def test_double_precision_where_single_is_not_enough() -> None:
    rows = NUMBERS.assign(t=1.7e9 + RANDOM.integers(0, 10_000, 400))
    _, found, _ = fitted(LinearRegression(), rows, (rows["t"] - 1.7e9).to_numpy())
    assert (found.layout, found.tensor_dtype) == ("matrix", "float64")


def test_what_a_graph_s_answers_differ_by_is_measured() -> None:
    estimator, found, graph = fitted(make_pipeline(StandardScaler(), LogisticRegression()), NUMBERS, YES)
    furthest = np.abs(graph.run(NUMBERS[300:])[1] - estimator.predict_proba(NUMBERS[300:])).max()
    assert found.parity == Parity(100, 0.0, furthest, furthest)
    assert 0 < furthest < 1e-6


def test_a_number_s_difference_is_measured_by_itself_and_relative_to_the_numbers() -> None:
    number = (NUMBERS["a"] * 3e6).to_numpy()
    estimator, found, graph = fitted(HistGradientBoostingRegressor(max_iter=10), NUMBERS, number)
    furthest = np.abs(graph.run(NUMBERS[300:])[0].ravel() - estimator.predict(NUMBERS[300:])).max()
    assert found.parity.max_difference == furthest > 0.01
    assert found.parity.max_relative_difference < 1e-6


def test_double_precision_where_the_tolerance_asks_for_it() -> None:
    estimator = LinearRegression().fit(NUMBERS, NUMBERS["a"] * 3 + NUMBERS["b"])
    assert converted(estimator, NUMBERS).tensor_dtype == "float32"
    exact = converted(estimator, NUMBERS, Tolerance.strict(1e-12))
    assert exact.tensor_dtype == "float64"
    assert exact.parity.max_relative_difference < 1e-12


def test_values_that_no_graph_can_tell_apart_are_named() -> None:
    rows = NUMBERS.assign(t=1.7e9 + RANDOM.integers(0, 10_000, 400))
    label = (rows["t"] % 1000 < 500).to_numpy()
    with pytest.raises(NoGraph, match=r"rows otherwise, by at most .* cannot tell all values of 't' apart"):
        fitted(KNeighborsClassifier(), rows, label)


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=20),
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=20)),
        RandomForestClassifier(21, random_state=0),
        make_pipeline(StandardScaler(), RandomForestClassifier(21, random_state=0)),
        make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=20)),
    ],
    ids=["boosting", "scaled boosting", "forest", "scaled forest", "scaled gradient boosting"],
)
def test_trees_decide_as_the_estimator_on_both_sides_of_every_edge(estimator: Any) -> None:
    estimator, _, graph = fitted(estimator, NUMBERS, YES)
    sides = edges(estimator, NUMBERS)
    assert np.abs(np.diff(estimator.predict_proba(sides)[:, 1].reshape(2, -1), axis=0)).max() > 0.05
    np.testing.assert_allclose(graph.run(sides)[1], estimator.predict_proba(sides), atol=1e-6)


def edges(estimator: Any, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows next to each other in double precision, between which the estimator's answer changes: first all lower ones."""
    count, column = 200, np.arange(200) % rows.shape[1]
    low, high = rows.to_numpy()[:count].copy(), rows.to_numpy()[:count].copy()
    high[np.arange(count), column] = rows.to_numpy()[-count:][np.arange(count), column]
    for _ in range(80):
        middle = low / 2 + high / 2
        ask = pd.DataFrame(np.vstack([low, middle]), columns=rows.columns)
        first, second = np.split(estimator.predict_proba(ask)[:, 1], 2)
        same = first == second
        low[same], high[~same] = middle[same], middle[~same]
    return pd.DataFrame(np.vstack([low, high]), columns=rows.columns)


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, max_depth=6, random_state=0),
        ExtraTreesClassifier(20, max_depth=6, random_state=0),
        DecisionTreeClassifier(max_depth=6, random_state=0),
        BaggingClassifier(DecisionTreeClassifier(max_depth=6), 10, random_state=0),
        HistGradientBoostingClassifier(max_iter=20),
        RandomForestRegressor(20, max_depth=6, random_state=0),
    ],
    ids=["forest", "extra trees", "tree", "bagging", "boosting", "regression"],
)
def test_what_is_missing_in_training_alone_goes_where_the_estimator_sends_it(estimator: Any) -> None:
    rows, label = sparse(), YES.astype(int)
    estimator, _, graph = fitted(estimator, rows, label)
    ask = rows[300:].assign(b=np.nan)
    own = estimator.predict_proba(ask) if hasattr(estimator, "predict_proba") else estimator.predict(ask)
    np.testing.assert_allclose(graph.run(ask)[-1].reshape(own.shape), own, atol=1e-5)


def sparse() -> pd.DataFrame:
    """Rows of which some for training lack a value, so that trees split on whether it is there, and no held-out one."""
    rows = NUMBERS.copy()
    rows.loc[YES & (np.arange(400) % 3 == 0) & (np.arange(400) < 300), "b"] = np.nan
    return rows


def test_a_split_on_whether_there_is_a_value_is_converted_in_double_precision_too() -> None:
    """skl2onnx looks for the neighbour of its threshold, which is infinite, without end."""
    scaled = make_pipeline(StandardScaler(), RandomForestClassifier(20, max_depth=6, random_state=0))
    estimator, found, graph = fitted(scaled, sparse(), YES)
    assert any(np.isinf(tree.tree_.threshold).any() for tree in estimator[-1].estimators_)
    assert found.tensor_dtype == "float64"
    ask = sparse()[300:].assign(b=np.nan)
    np.testing.assert_allclose(graph.run(ask)[1], estimator.predict_proba(ask), atol=1e-5)


def test_a_conversion_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "CONVERSION_SECONDS", 0.5)
    monkeypatch.setattr(convert_module, "convert_sklearn", lambda *_, **__: [None for _ in iter(int, 1)])
    with pytest.raises(NoGraph, match=r"its conversion did not end within 0\.5 s$"):
        fitted(LogisticRegression(), NUMBERS, YES)
    assert not multiprocessing.active_children()


def test_a_conversion_that_ends_its_process_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "convert_sklearn", lambda *_, **__: os._exit(3))
    with pytest.raises(NoGraph, match=r"its conversion ended with exit code 3$"):
        fitted(LogisticRegression(), NUMBERS, YES)


def test_what_cannot_be_converted_has_the_reason() -> None:
    with pytest.raises(NoGraph, match=r"FunctionTransformer is not supported"):
        fitted(make_pipeline(FunctionTransformer(np.abs), LogisticRegression()), NUMBERS, YES)
