"""Graphs that answer as their estimators do, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from modelmill.errors import InvalidRequest
from modelmill.package import Input
from services.trainer.packaging.convert import Converted, convert
from services.trainer.packaging.graph import Graph

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


def fitted(estimator: Any, rows: pd.DataFrame, label: np.ndarray) -> tuple[Any, Converted, Graph]:
    """Fit on the first 300 rows, convert with the others, and open the graph."""
    estimator.fit(rows[:300], label[:300])
    converted = convert(estimator, inputs_of(rows), rows[300:])
    return estimator, converted, Graph(converted.graph, list(rows.columns), converted.layout, converted.tensor_dtype)


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
    estimator, converted, graph = fitted(estimator, NUMBERS, label)
    labels, probabilities = graph.run(NUMBERS[300:])
    assert str(converted) == "matrix, float32"
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
    estimator, converted, graph = fitted(estimator, rows, YES)
    assert converted.layout == "columns"
    assert [item.name for item in graph.session.get_inputs()] == ["carrier.delay", "b", "origin"]
    np.testing.assert_allclose(graph.run(rows[300:])[1], estimator.predict_proba(rows[300:]), atol=1e-5)


def test_a_category_that_training_never_saw_is_answered_as_the_estimator_answers_it() -> None:
    estimator, _, graph = fitted(make_pipeline(CATEGORIES, LogisticRegression()), MIXED, YES)
    rows = MIXED[300:].assign(origin="ZRH").astype({"origin": object})
    np.testing.assert_allclose(graph.run(rows)[1], estimator.predict_proba(rows), atol=1e-5)


def test_a_classifier_without_probabilities_has_labels_only() -> None:
    _, _, graph = fitted(RidgeClassifier(), NUMBERS, YES)
    assert graph.outputs == ["label"]


def test_a_regressor_answers_alike() -> None:
    number = (NUMBERS["a"] * 3 + NUMBERS["b"]).to_numpy()
    estimator, _, graph = fitted(HistGradientBoostingRegressor(max_iter=10), NUMBERS, number)
    np.testing.assert_allclose(graph.run(NUMBERS[300:])[0].ravel(), estimator.predict(NUMBERS[300:]), rtol=1e-4)


def test_double_precision_where_single_is_not_enough() -> None:
    rows = NUMBERS.assign(t=1.7e9 + RANDOM.integers(0, 10_000, 400))
    _, converted, _ = fitted(LinearRegression(), rows, (rows["t"] - 1.7e9).to_numpy())
    assert str(converted) == "matrix, float64"


def test_values_that_no_graph_can_tell_apart_are_refused_by_name() -> None:
    rows = NUMBERS.assign(t=1.7e9 + RANDOM.integers(0, 10_000, 400))
    label = (rows["t"] % 1000 < 500).to_numpy()
    with pytest.raises(InvalidRequest, match=r"held-out rows otherwise .* cannot tell all values of 't' apart"):
        fitted(HistGradientBoostingClassifier(max_iter=30), rows, label)


def test_a_row_on_the_edge_of_a_decision_may_differ_and_is_counted() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(NUMBERS[:300], YES[:300])
    threshold = next(n["num_threshold"] for n in estimator._predictors[0][0].nodes if not n["is_leaf"])
    feature = next(n["feature_idx"] for n in estimator._predictors[0][0].nodes if not n["is_leaf"])
    rows = NUMBERS[300:].copy()
    for side in (np.nextafter(threshold, -np.inf), np.nextafter(threshold, np.inf)):
        rows.iloc[0, feature] = side  # both become the same float32, on one side of the threshold
        converted = convert(estimator, inputs_of(rows), rows)
        if converted.edge_rows:
            assert converted.edge_rows == 1
            assert "1 rows on the edge" in str(converted)
            return
    pytest.fail("neither side of the threshold differs, though single precision cannot tell them apart")


def test_what_cannot_be_converted_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidRequest, match=r"has no ONNX graph .*FunctionTransformer is not supported"):
        fitted(make_pipeline(FunctionTransformer(np.abs), LogisticRegression()), NUMBERS, YES)
