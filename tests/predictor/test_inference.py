"""From rows to answers, by real graphs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelmill.errors import InvalidRequest, NoAnswer
from modelmill.packages.package import Input, Manifest
from modelmill.packages.sessions import graph_session, open_session
from services.predictor.inference import ServedModel, infer
from services.predictor.loading import warmed_up
from services.trainer.packaging.convert import _graph
from tests.predictor import packages
from tests.predictor.packages import USER_INPUTS, manifest

RANDOM = np.random.default_rng(0)
NUMBERS = pd.DataFrame({"a": RANDOM.normal(size=200), "b": RANDOM.normal(size=200)})


def model(graph: bytes, **changes: Any) -> ServedModel:
    described: Manifest = manifest(**changes)
    return warmed_up(described.model, 7, described, graph_session(graph))


def test_a_classifier_answers_with_labels_and_probabilities() -> None:
    answers = infer(model(packages.classifier()), [[3.0, 0.0, 0], [-3.0, 0.0, 0]])
    assert answers.predictions == [1, 0]
    assert answers.probabilities is not None
    for row in answers.probabilities:
        assert row.keys() == {"0", "1"}
        assert math.isclose(sum(row.values()), 1, abs_tol=1e-6)
    assert answers.probabilities[0]["1"] > 0.9


@pytest.mark.parametrize("labels", [("no", "yes"), (False, True), (10, 20), (0.0, 1.0)])
def test_labels_are_those_of_the_estimator(labels: tuple[Any, Any]) -> None:
    answers = infer(model(packages.classifier(labels), classes=list(labels)), [[-3.0, 0.0, 0], [3.0, 0.0, 0]])
    assert answers.predictions == list(labels)
    assert [type(label) for label in answers.predictions] == [type(label) for label in labels]


def test_probabilities_of_booleans_are_named_as_json_has_them() -> None:
    answers = infer(model(packages.classifier((False, True)), classes=[False, True]), [[3.0, 0.0, 0]])
    assert answers.probabilities is not None
    assert answers.probabilities[0].keys() == {"false", "true"}


def test_a_classifier_without_probabilities_answers_with_labels() -> None:
    answers = infer(model(packages.without_probabilities()), [[3.0, 0.0, 0]])
    assert answers.predictions == [1]
    assert answers.probabilities is None


def test_a_regression_answers_with_numbers() -> None:
    answers = infer(model(packages.regression(), task="regression", classes=[]), [[1.0, 2.0, 3], [0.0, 0.0, 0]])
    assert answers.predictions == pytest.approx([6.0, 0.0], abs=1e-4)
    assert answers.probabilities is None


CITY = [Input("city", "str", True), Input("distance", "float", True)]


def test_columns_of_texts_and_numbers_go_in_side_by_side() -> None:
    mixed = model(packages.mixed_columns(), layout="columns", inputs=CITY, example={"city": "a", "distance": 0.5})
    assert infer(mixed, [["a", 0.0], ["b", 0.0]]).predictions == [0, 1]


def test_a_text_that_lacks_is_the_empty_one() -> None:
    mixed = model(packages.mixed_columns(), layout="columns", inputs=CITY, example={"city": "a", "distance": 0.5})
    assert infer(mixed, [[None, 0.3]]).probabilities == infer(mixed, [["", 0.3]]).probabilities


def test_a_missing_number_that_a_graph_has_no_answer_for_is_named() -> None:
    with_nan = model(packages.regression(), task="regression", classes=[])
    with pytest.raises(
        NoAnswer, match=r"^instance 1: .* no answer where 'feature_2' is missing: it would be nan$"
    ) as caught:
        infer(with_nan, [[1.0, 2.0, 3], [1.0, None, 3]])
    assert caught.value.status == 422
    assert caught.value.fields == {"instance": 1, "field": "feature_2"}


def test_a_number_whose_answer_would_be_infinite_is_named() -> None:
    overflowing = model(packages.regression(), task="regression", classes=[])
    with pytest.raises(NoAnswer, match=r"instance 0: .* where 'feature_2' is 3e\+38: it would be inf"):
        infer(overflowing, [[3e38, 3e38, 0]])


@pytest.mark.parametrize("number", [0, 7, 19])
def test_of_many_instances_the_one_that_has_no_answer_is_named(number: int) -> None:
    rows: list[list[Any]] = [[1.0, 2.0, 3] for _ in range(20)]
    rows[number] = [1.0, 2.0, None]
    with pytest.raises(NoAnswer, match=f"^instance {number}: .* where 'clicks' is missing"):
        infer(model(packages.regression(), task="regression", classes=[]), rows)


def test_a_model_that_has_no_answer_for_its_example_either_is_not_the_request_s_fault() -> None:
    served = served_itself(LogisticRegression())
    broken = replace(served, session=Broken())
    with pytest.raises(RuntimeError, match="out of order"):
        infer(broken, [[3.0, 0.0, 0]])


class Broken:
    def run(self, *_: Any) -> Any:
        raise RuntimeError("out of order")


def test_a_number_that_single_precision_cannot_hold_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"instance 1: 'feature_2' is 1e\+300; expected at most 3\.403e\+38"):
        infer(model(packages.classifier()), [[0.0, 0.0, 0], [0.0, 1e300, 0]])


def test_booleans_go_in_as_numbers() -> None:
    flagged = model(
        packages.classifier(),
        inputs=[Input("weekend", "bool", False), *USER_INPUTS[1:]],
        example={"weekend": True, "feature_2": 0.0, "clicks": 0},
    )
    assert infer(flagged, [[True, 0.0, 0], [False, 0.0, 0]]) == infer(flagged, [[1.0, 0.0, 0], [0.0, 0.0, 0]])


def served_itself(estimator: Any, label: str = "number", **changes: Any) -> ServedModel:
    """A model that scikit-learn serves."""
    described, content = packages.served_by_scikit_learn(estimator, label, **changes)
    return warmed_up(described.model, 7, described, open_session(described, content))


@pytest.mark.parametrize("label, labels", [("number", [1, 0]), ("bool", [True, False]), ("text", ["yes", "no"])])
def test_scikit_learn_answers_as_a_graph_does(label: str, labels: list[Any]) -> None:
    answers = infer(served_itself(LogisticRegression(), label), [[3.0, 0.0, 0], [-3.0, 0.0, 0]])
    assert answers.predictions == labels
    assert [type(one) for one in answers.predictions] == [type(one) for one in labels]
    assert answers.probabilities is not None
    assert answers.probabilities[0][str(labels[0]).lower()] > 0.9


def test_scikit_learn_answers_with_labels_alone_where_there_are_no_probabilities() -> None:
    answers = infer(served_itself(RidgeClassifier()), [[3.0, 0.0, 0]])
    assert (answers.predictions, answers.probabilities) == ([1], None)


def test_scikit_learn_answers_with_numbers() -> None:
    model = served_itself(LinearRegression(), task="regression")
    [number] = infer(model, [[3.0, 0.0, 0]]).predictions
    assert type(number) is float


def test_what_lacks_and_scikit_learn_cannot_do_without_is_named() -> None:
    with pytest.raises(
        NoAnswer, match=r"no answer where 'feature_1' is missing: LogisticRegression raised .*contains NaN"
    ):
        infer(served_itself(LogisticRegression()), [[None, 0.0, 0]])


@pytest.mark.parametrize("runtime", ["onnx", "skops"])
def test_a_category_that_has_no_answer_is_named_and_the_instance_that_has_it(runtime: str) -> None:
    rows = pd.DataFrame({"city": pd.Series(["a", "b"] * 50, dtype=object), "distance": NUMBERS["a"][:100]})
    columns = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    estimator = make_pipeline(columns, LogisticRegression()).fit(rows, [0, 1] * 50)
    described = manifest(inputs=CITY, layout="columns", example={"city": "a", "distance": 0.5}, runtime=runtime)
    if runtime == "skops":
        described = replace(described, tensor_dtype="float64")
        content = skops.io.dumps(estimator)
    else:
        content = _graph(estimator, CITY, "columns", "float32")
    served = warmed_up(described.model, 7, described, open_session(described, content))
    with pytest.raises(NoAnswer, match=r"^instance 1: the model has no answer where 'city' is 'ZRH': ") as caught:
        infer(served, [["a", 0.0], ["ZRH", 1.0], ["b", 0.0]])
    assert caught.value.fields == {"instance": 1, "field": "city"}


def test_what_lacks_reaches_scikit_learn_as_nan() -> None:
    boosting = served_itself(HistGradientBoostingClassifier(max_iter=3))
    assert infer(boosting, [[3.0, None, None]]).predictions == [1]


def test_no_number_is_too_large_for_scikit_learn_that_fits_double_precision() -> None:
    assert infer(served_itself(HistGradientBoostingClassifier(max_iter=3)), [[1e300, 0.0, 0]]).predictions == [1]


def of_several(estimator: Any, label: Any, **changes: Any) -> ServedModel:
    """A model of two numbers that scikit-learn serves."""
    estimator.fit(NUMBERS, label)
    inputs = [Input(name, "float", False) for name in NUMBERS]
    described = manifest(
        inputs=inputs, entities={}, runtime="skops", tensor_dtype="float64", example={"a": 0.0, "b": 0.0}, **changes
    )
    return warmed_up(described.model, 7, described, open_session(described, skops.io.dumps(estimator)))


def test_classes_of_several_labels_are_named_by_their_labels() -> None:
    label = np.column_stack([NUMBERS["a"] > 0, NUMBERS["b"] > 0])
    answers = infer(
        of_several(
            RandomForestClassifier(20, random_state=0), label, labels=["late", "full"], classes=[[False, True]] * 2
        ),
        [[2.0, -2.0], [-2.0, 2.0]],
    )
    assert answers.predictions == [{"late": True, "full": False}, {"late": False, "full": True}]
    assert [type(value) for value in answers.predictions[0].values()] == [bool, bool]
    assert answers.probabilities is not None
    assert answers.probabilities[0]["late"]["true"] > 0.8
    assert answers.probabilities[0]["full"].keys() == {"false", "true"}


def test_numbers_of_several_labels_are_named_by_their_labels() -> None:
    model = of_several(LinearRegression(), NUMBERS * 2, task="regression", labels=["x", "y"], classes=[])
    assert infer(model, [[1.0, 2.0]]).predictions == [{"x": pytest.approx(2.0), "y": pytest.approx(4.0)}]
