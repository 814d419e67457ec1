"""From rows to answers, by real graphs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modelmill.errors import InvalidAnswer, InvalidRequest
from modelmill.package import Input, Manifest
from modelmill.sessions import graph_session
from services.predictor.inference import infer
from services.predictor.live import ServedModel
from services.predictor.loading import warmed_up
from tests.predictor import packages
from tests.predictor.packages import USER_INPUTS, manifest


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


def test_a_number_that_lacks_is_nan() -> None:
    with_nan = model(packages.regression(), task="regression", classes=[])
    with pytest.raises(InvalidAnswer, match="answered nan for instance 1"):
        infer(with_nan, [[1.0, 2.0, 3], [1.0, None, 3]])


def test_an_infinite_answer_is_refused() -> None:
    overflowing = model(packages.regression(), task="regression", classes=[])
    with pytest.raises(InvalidAnswer, match=r"'user_target' version 7 answered inf for instance 0") as caught:
        infer(overflowing, [[3e38, 3e38, 0]])
    assert caught.value.fields == {"model": "user_target", "version": 7, "instance": 0}


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
