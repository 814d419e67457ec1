"""What serves an estimator: a graph, else scikit-learn, else nothing and a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import r2_score
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from modelmill.errors import InvalidRequest
from modelmill.packages.package import ESTIMATOR, GRAPH, Input
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.graph import Tolerance
from services.trainer.packaging.packing import Packed, pack
from tests.own_types import Halved

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": RANDOM.normal(size=300), "b": 1 + RANDOM.random(300)})
YES = (ROWS["a"] > 0).to_numpy()


def packed(estimator: Any, label: Any = YES, rows: pd.DataFrame = ROWS, **how: Any) -> Packed:
    inputs = [Input(name, "str" if rows[name].dtype == object else "float", True) for name in rows]
    estimator.fit(rows[:200], label[:200])
    return pack(estimator, inputs, rows[200:], Answers.of(estimator, rows[200:]), **how)


def test_a_graph_serves_what_it_answers_alike_and_the_estimator_lies_beside_it() -> None:
    found = packed(make_pipeline(StandardScaler(), LogisticRegression()))
    assert (found.runtime, found.runtime_reason, found.files.keys()) == ("onnx", "", {GRAPH, ESTIMATOR})
    assert found.recorded["runtime"] == "onnx float32"
    assert found.recorded["parity"].keys() == {
        "rows", "labels_differing", "max_difference", "max_relative_difference",
    }  # fmt: skip


def test_what_has_no_graph_is_served_by_scikit_learn_and_says_why() -> None:
    estimator = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())
    found = packed(estimator, rows=ROWS.abs())
    assert (found.runtime, found.layout, found.tensor_dtype) == ("skops", "matrix", "float64")
    assert found.files.keys() == {ESTIMATOR}
    assert "FunctionTransformer is not supported" in found.runtime_reason
    assert (found.recorded["runtime"], found.parity.max_difference) == ("skops", 0)


def test_a_regression_and_text_are_served_by_scikit_learn_alike() -> None:
    rows = ROWS.assign(city=pd.Series(RANDOM.choice(["EWR", ""], 300), dtype=object))
    columns = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    estimator = TransformedTargetRegressor(make_pipeline(columns, Ridge()), func=np.log1p, inverse_func=np.expm1)
    found = packed(estimator, ROWS["b"].to_numpy(), rows)
    assert (found.runtime, found.layout) == ("skops", "columns")
    assert (found.graph.run(rows[200:])[0] == estimator.predict(rows[200:])).all()


def test_values_that_no_graph_can_tell_apart_are_served_by_scikit_learn() -> None:
    rows = ROWS.assign(t=1.7e9 + RANDOM.integers(0, 10_000, 300))
    found = packed(KNeighborsClassifier(), (rows["t"] % 1000 < 500).to_numpy(), rows)
    assert found.runtime == "skops"
    assert "cannot tell all values of 't' apart" in found.runtime_reason


def test_a_stricter_tolerance_lets_scikit_learn_serve_what_a_graph_would() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=20)
    assert packed(estimator).runtime == "onnx"
    exact = packed(estimator, tolerance=Tolerance.strict(1e-12))
    assert exact.runtime == "skops"
    assert exact.parity.max_difference <= 1e-12


FAR = 1.7e9
"""Seconds since 1970, of which single precision can tell every 128th apart."""


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(),
        HistGradientBoostingRegressor(max_iter=20),
        RandomForestRegressor(10, random_state=0),
        GradientBoostingRegressor(n_estimators=20),
        KNeighborsRegressor(),
    ],
    ids=["linear", "boosting", "forest", "gradient boosting", "neighbours"],
)
def test_numbers_far_from_zero_are_answered_as_by_the_estimator_measured_by_their_spread(estimator: Any) -> None:
    rows = ROWS.assign(t=FAR + RANDOM.integers(0, 1000, 300))
    due = (rows["t"] + 100 * rows["a"]).to_numpy()
    found = packed(estimator, due, rows)
    own = estimator.predict(rows[200:])
    assert np.abs(found.graph.run(rows[200:])[0].ravel() - own).max() <= 1e-4 * own.std()
    assert r2_score(due[200:], found.graph.run(rows[200:])[0].ravel()) == pytest.approx(r2_score(due[200:], own), 1e-6)
    assert found.parity.max_relative_difference <= 1e-4


@pytest.mark.parametrize(
    "estimator, runtime",
    [(make_pipeline(StandardScaler(), LogisticRegression()), "onnx"), (KNeighborsClassifier(), "skops")],
    ids=["graph", "scikit-learn"],
)
def test_what_may_be_missing_and_the_estimator_cannot_do_without_is_said(
    estimator: Any, runtime: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = packed(estimator)
    assert (found.runtime, found.required) == (runtime, ["a", "b"])
    assert "'a', 'b' may be missing by their declaration, and the estimator has no answer then" in caplog.text


def test_what_the_estimator_can_do_without_is_not_required() -> None:
    assert packed(make_pipeline(SimpleImputer(), LogisticRegression())).required == []


def test_a_graph_that_answers_where_the_estimator_refuses_does_not_serve() -> None:
    rows = ROWS.assign(city=pd.Series(["EWR", "JFK", ""] * 100, dtype=object))
    columns = make_column_transformer((OrdinalEncoder(), ["city"]), remainder="passthrough")
    found = packed(make_pipeline(columns, LogisticRegression()), rows=rows)
    assert found.runtime == "skops"
    assert 'rows for which the estimator has no answer: {"a":' in found.runtime_reason


OWN = make_pipeline(Halved(), LogisticRegression())


def test_a_type_of_the_user_s_own_has_to_be_declared() -> None:
    with pytest.raises(
        InvalidRequest,
        match=r"skl2onnx has no converter for Halved\. scikit-learn could serve it, but .*reviewed: tests\.own_types\.Halved.*Model\(\.\.\., trusted=",
    ):
        packed(OWN)


def test_a_declared_type_is_served_and_the_package_says_that_it_needs_it() -> None:
    found = packed(OWN, trusted=["tests.own_types.Halved", "tests.own_types.Other"])
    assert (found.runtime, found.trusted) == ("skops", ["tests.own_types.Halved"])


def test_what_is_defined_inside_a_function_can_be_served_neither_way_and_no_trust_is_advised() -> None:
    def halved(rows: pd.DataFrame) -> pd.DataFrame:
        return rows / 2

    with pytest.raises(
        InvalidRequest, match=r"cannot serve tests\.\S+\.halved either: .* need names at the top of"
    ) as caught:
        packed(make_pipeline(FunctionTransformer(halved), LogisticRegression()))
    assert "trusted=" not in caught.value.detail


def test_what_has_no_name_can_be_served_neither_way() -> None:
    estimator = make_pipeline(FunctionTransformer(lambda rows: rows / 2), LogisticRegression())
    with pytest.raises(
        InvalidRequest,
        match=r"has no ONNX graph .* cannot serve tests\..*<lambda> either: .* need names",
    ):
        packed(estimator)


def test_what_skops_cannot_keep_can_be_served_neither_way() -> None:
    estimator = make_pipeline(FunctionTransformer(np.abs), LogisticRegression())
    estimator.because_ = (letter for letter in "")
    with pytest.raises(InvalidRequest, match=r"cannot serve it either, for skops cannot keep it: .*generator"):
        packed(estimator)


def test_a_graph_serves_without_an_estimator_beside_it_where_skops_cannot_keep_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    estimator = LogisticRegression()
    estimator.because_ = (letter for letter in "")
    assert packed(estimator).files.keys() == {GRAPH}
    assert "the package has no estimator.skops" in caplog.text


TWO = np.column_stack([YES, RANDOM.random(300) < ROWS["b"] - 1])


def test_numbers_of_several_labels_have_a_graph() -> None:
    found = packed(MultiOutputRegressor(Ridge()), ROWS[["a", "b"]].to_numpy())
    assert (found.runtime, found.graph.run(ROWS)[0].shape) == ("onnx", (300, 2))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=0),
        MultiOutputClassifier(LogisticRegression()),
        ClassifierChain(LogisticRegression()),
    ],
    ids=["forest", "one each", "chain"],
)
def test_classes_of_several_labels_are_served_by_scikit_learn(estimator: Any) -> None:
    found = packed(estimator, TWO)
    labels, probabilities = found.graph.run(ROWS)
    assert (found.runtime, labels.shape, probabilities.shape) == ("skops", (300, 2), (300, 4))
    np.testing.assert_allclose(probabilities.reshape(300, 2, 2).sum(axis=2), 1)


def test_several_labels_whose_classes_are_not_told_apart_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"wrap it in sklearn\.multioutput\.MultiOutputClassifier"):
        packed(RidgeClassifier(), TWO)
