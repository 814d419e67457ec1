from __future__ import annotations

import re
from typing import Any

import pytest

from modelmill import Entity, Model, Source, feature
from modelmill.columns.types import Column
from modelmill.declare.declarations import About, collecting

USER = Entity("user", key="user_id")


@pytest.mark.parametrize(
    "annotation, dtype, nullable",
    [(float, "float", False), (int | None, "int", True), (None | bool, "bool", True), (str, "str", False)],
)
def test_a_column_is_read_from_a_type(annotation: object, dtype: str, nullable: bool) -> None:
    assert Column.of("a", annotation) == Column("a", dtype, nullable)


@pytest.mark.parametrize("annotation", [list, "float", [float], float | int, None, 3.0, dict[str, int]])
def test_a_column_of_any_other_type_is_refused_by_name(annotation: object) -> None:
    with pytest.raises(ValueError, match=r"column 'a' has type .*expected float, int, bool or str"):
        Column.of("a", annotation)


@pytest.mark.parametrize(
    "column, value, allowed",
    [
        (Column("a", "float", False), 1.5, True),
        (Column("a", "float", False), 1, True),
        (Column("a", "float", False), True, False),
        (Column("a", "float", False), None, False),
        (Column("a", "float", True), None, True),
        (Column("a", "int", False), 1.0, False),
        (Column("a", "str", False), "1", True),
        (Column("a", "str", False), [], False),
    ],
)
def test_a_column_allows_values_of_its_type(column: Column, value: object, allowed: bool) -> None:
    assert column.allows(value) is allowed  # type: ignore[arg-type]


def test_a_source_of_one_entity_has_it_as_its_own() -> None:
    assert Source("users", entity=USER, columns={}).entity is USER


def test_the_max_age_of_a_source_is_seconds() -> None:
    assert Source("users", entity=USER, columns={}, max_age="30d").max_age == 30 * 86_400
    assert Source("users", entity=USER, columns={}).max_age is None


@pytest.mark.parametrize("max_age", ["", "30", "0d", "a month", 30])
def test_a_max_age_that_is_no_duration_is_refused(max_age: str) -> None:
    with pytest.raises(ValueError, match=r"source 'users': max_age: .* expected a whole number of s, m, h or d"):
        Source("users", entity=USER, columns={}, max_age=max_age)


def test_a_source_of_several_entities_has_none_as_its_own() -> None:
    item = Entity("item", key="item_id")
    assert Source("clicks", entities=[USER, item], columns={"clicked": bool}).entity is None


def test_declarations_are_collected_in_their_order() -> None:
    with collecting() as declared:
        user = Entity("user", key="user_id")
        users = Source("users", entity=user, columns={"a": float})
    assert declared == [user, users]


def test_a_feature_function_stays_callable() -> None:
    @feature(USER, dtype=float)
    def doubled(row: dict[str, float]) -> float:
        return row["a"] * 2

    assert doubled({"a": 2.0}) == 4.0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"batch": "polars"}, "@feature(batch='polars'): expected True, 'pandas' or 'arrow'"),
        ({"max_failed": 1.5}, "feature 'f': max_failed=1.5; expected a share from 0 to 1"),
        ({"tags": "one"}, "expected texts, and for tags a list of texts"),
    ],
)
def test_a_feature_is_declared_with_what_can_be_used(arguments: dict[str, Any], reason: str) -> None:
    def f(row: dict[str, float]) -> float:
        return 1.0

    with pytest.raises(ValueError, match=re.escape(reason)):
        feature(USER, dtype=float, **arguments)(f)


def test_the_timeout_of_a_model_is_seconds() -> None:
    def model(timeout: str | None) -> Model:
        return Model("m", entities=[USER], features=["a"], label="target", estimator=None, timeout=timeout)

    assert (model("2h").timeout, model(None).timeout) == (7200, None)
    with pytest.raises(ValueError, match=r"model 'm': timeout: '2 hours' is no length of time"):
        model("2 hours")


def test_a_model_needs_something_to_predict_from() -> None:
    with pytest.raises(ValueError, match="model 'm': expected at least one feature or input"):
        Model("m", entities=[USER], features=[], label="target", estimator=None)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"metric": 7}, "metric 7: expected the name of a scikit-learn scorer"),
        ({"metric": lambda truth: 0.0}, "expected the name of a scikit-learn scorer"),
        ({"metrics": "f1"}, "metrics='f1'; expected a list of metrics"),
        ({"metrics": [True]}, "metric True: expected"),
        ({"segments": "origin"}, "segments='origin'; expected a list of columns"),
        ({"segments": [3]}, "segments: 3 is no column; expected its name"),
        ({"split": "by_time"}, "split='by_time'; expected by_time(0.25)"),
    ],
)
def test_a_model_says_how_it_is_evaluated_in_words_that_can_be_used(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Model("m", entities=[USER], features=["a"], label="target", estimator=None, **arguments)


def test_the_metric_that_decides_is_the_first_of_all() -> None:
    def off_by_one(truth: Any, predicted: Any) -> float:
        return 0.0

    model = Model(
        "m", entities=[USER], features=["a"], label="target", estimator=None, metric=off_by_one, metrics=["f1", "f1"]
    )
    assert model.metric == "off_by_one"
    assert [metric.name for metric in model.metrics] == ["off_by_one", "f1"]


def test_a_model_predicts_one_label_or_several() -> None:
    one, two = (Model("m", entities=[USER], features=["a"], label=label, estimator=None) for label in ("x", ["x", "y"]))
    assert (one.labels, one.label) == (("x",), "x")
    assert (two.labels, two.label) == (("x", "y"), "x, y")


@pytest.mark.parametrize("label", ["", [], None, ["x", "x"], ["x", 1]])
def test_labels_are_names_of_different_columns(label: Any) -> None:
    with pytest.raises(ValueError, match="expected the name of a column, or a list of different ones"):
        Model("m", entities=[USER], features=["a"], label=label, estimator=None)


def test_a_model_says_what_it_is_for() -> None:
    model = Model(
        "m",
        entities=[USER],
        features=["a"],
        label="x",
        estimator=None,
        description="Who comes back.",
        owner="ann",
        tags=["churn"],
        limits="Not for new users.",
    )
    assert (model.about, model.limits) == (About("Who comes back.", "ann", ("churn",)), "Not for new users.")


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"tags": "churn"}, "model 'm': description, owner and tags are .*; expected texts"),
        ({"limits": ["a"]}, r"model 'm': limits=\['a'\]; expected a text"),
    ],
)
def test_what_it_says_is_text(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Model("m", entities=[USER], features=["a"], label="x", estimator=None, **given)
