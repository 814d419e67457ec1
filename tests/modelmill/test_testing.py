"""Feature functions and recipes without services: what is said twice is held against what the services do."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelmill import testing
from modelmill.declare.definitions import Definitions
from modelmill.errors import InvalidRequest, UnknownName
from services.feature.rows.derive import derive
from services.feature.rows.schema import ARROW
from services.trainer.training.rows import Rows
from services.trainer.training.steps import make_estimator, read_frame

Load = Callable[[str], Definitions]

MODEL = """
    from modelmill import Candidate, request_feature

    people = Source("people", entity=user, columns={
        "size": float | None, "count": int, "whole": int | None, "likes": bool | None, "town": str | None,
        "again": bool | None, "hour": int, "worth": float})

    @feature(people, dtype=float)
    def each(row):
        return row["worth"] / row["count"]

    @feature(people, dtype=float | None, batch=True)
    def bigger(rows):
        return rows["size"] + 1

    @feature(people, dtype=float, batch="arrow")
    def halved(table):
        return [value / 2 for value in table["worth"].to_pylist()]

    @request_feature(dtype=float, needs=["user.hour", "each"])
    def later(needs):
        return needs["user.hour"] + needs["each"]

    def of_towns(last):
        from sklearn.compose import make_column_transformer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OrdinalEncoder
        return make_pipeline(make_column_transformer((OrdinalEncoder(), ["town"]), remainder="passthrough"), last)

    def tree():
        from sklearn.tree import DecisionTreeClassifier
        return of_towns(DecisionTreeClassifier(max_features=1))

    def forest():
        from sklearn.ensemble import RandomForestClassifier
        return of_towns(RandomForestClassifier(n_estimators=3))

    Model("m", entities=[user], features=["each", "whole", "likes", "town", "later", "bigger"], label="again",
          candidates=[tree, forest], seed=7)
"""


def people(count: int = 40, seed: int = 1) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)

    def maybe(value: Any) -> Any:
        return None if random.random() < 0.2 else value

    return [
        {
            "user_id": f"u{i}",
            "size": maybe(random.normal()),
            "count": int(random.integers(1, 9)),
            "whole": maybe(int(random.integers(2**55))),
            "likes": maybe(bool(random.integers(2))),
            "town": maybe("Ulm"),
            "again": maybe(bool(random.integers(2))),
            "hour": int(random.integers(24)),
            "worth": random.normal(),
        }
        for i in range(count)
    ]


def stored(definitions: Definitions, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as the feature service stores them."""
    source = definitions.source("people")
    kinds = {"user_id": pa.string(), **{name: ARROW[column.dtype] for name, column in source.columns.items()}}
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


@given(seed=st.integers(0, 2**20))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_features_are_those_that_the_feature_service_computes(load_text: Load, seed: int) -> None:
    definitions = load_text(MODEL)
    rows = people(seed=seed)
    made = derive(stored(definitions, rows), definitions.features["people"])
    assert made.failed.null_count == len(rows)
    found = testing.features(definitions, "people", rows)
    assert {name: found[name].tolist() for name in found} == {n: a.to_pylist() for n, a in made.columns.items()}


def test_a_recipe_is_fitted_on_what_the_trainer_fits_it_on(load_text: Load) -> None:
    definitions = load_text(MODEL)
    rows, recipe = people(), definitions.model("m")
    fitted = testing.fit(definitions, "m", rows)

    table = stored(definitions, rows)
    derived = derive(table, definitions.features["people"])
    later = [row["hour"] + each for row, each in zip(rows, derived.columns["each"].to_pylist(), strict=True)]
    frame = table.append_column("_event_time", pa.array(range(len(rows)), pa.timestamp("us", "UTC")))
    for name, values in {**derived.columns, "later": pa.array(later)}.items():
        frame = frame.append_column(name, values)
    pq.write_table(frame, file := io.BytesIO())
    read = read_frame(definitions, recipe, file)

    pd.testing.assert_frame_equal(fitted.inputs, read.inputs)
    np.testing.assert_array_equal(fitted.label, read.label)
    assert list(fitted.estimators) == ["tree", "forest"]
    for candidate in recipe.search.candidates:
        trained = Rows(read.inputs, read.label).fit(make_estimator(recipe, candidate.estimator))
        one = fitted.estimators[candidate.name]
        assert repr(one) == repr(trained)
        np.testing.assert_array_equal(one.predict_proba(read.inputs), trained.predict_proba(read.inputs))


def test_a_data_frame_is_taken_as_a_list_of_rows_is(load_text: Load) -> None:
    definitions = load_text(MODEL)
    rows = people()
    frame = pd.DataFrame(rows)  # whole numbers and truth values beside missing ones are floats and objects there
    frame["whole"] = frame["whole"].astype("Int64")
    assert testing.features(definitions, "people", frame).equals(testing.features(definitions, "people", rows))
    assert testing.fit(definitions, "m", frame).inputs.equals(testing.fit(definitions, "m", rows).inputs)


def test_what_may_be_missing_may_be_left_out(load_text: Load) -> None:
    definitions = load_text(MODEL)
    found = testing.features(definitions, "people", [{"count": 4, "hour": 1, "worth": 10}])
    assert found.to_dict("records") == [{"each": 2.5, "bigger": None, "halved": 5.0}]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"cuont": 1}, "column 'cuont' is not declared in source 'people'; did you mean 'count'?"),
        ({"count": "four"}, "row 1, column 'count', value 'four': expected a whole number"),
        ({"count": 1.5}, "row 1, column 'count', value '1.5': expected a whole number"),
        ({"count": None}, "row 1, column 'count', value 'None': expected a whole number"),
    ],
)
def test_a_row_that_its_source_does_not_allow_is_named(load_text: Load, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason.replace("?", r"\?")):
        testing.features(load_text(MODEL), "people", [{"count": 4, "hour": 1, "worth": 10.0} | change])


def test_a_column_that_is_missing_is_named(load_text: Load) -> None:
    with pytest.raises(InvalidRequest, match="column 'worth' is missing from the sample"):
        testing.features(load_text(MODEL), "people", [{"count": 4, "hour": 1}])


def test_an_error_of_a_feature_function_comes_as_it_is_with_the_row(load_text: Load) -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        testing.features(load_text(MODEL), "people", [{"count": 0, "hour": 1, "worth": 10.0}])
    assert failed.value.__notes__[0].startswith("feature 'each', row 1: {'user_id': '1'")


def test_a_value_that_a_function_does_not_declare_is_an_error(load_text: Load) -> None:
    definitions = load_text(
        """
        @feature(users, dtype=int)
        def half(row):
            return row["a"] / 2
        """
    )
    with pytest.raises(TypeError, match=r"returned 0\.5; expected int"):
        testing.features(definitions, "users", [{"a": 1.0, "target": 1}])


AGGREGATE = """
    Aggregate(visits, "pages", "sum", window="1d")
    Model("m", entities=[user], features=["a", "pages_sum_1d"], label="target", estimator=object())
"""


def test_what_is_made_of_other_rows_is_a_column_of_the_sample(load_text: Load) -> None:
    definitions = load_text(
        AGGREGATE.replace("object()", "lambda: __import__('sklearn.dummy').dummy.DummyClassifier()")
    )
    sample = {"user_id": ["u", "v"], "a": [1.0, 2.0], "target": [0, 1]}
    with pytest.raises(
        InvalidRequest, match="feature 'pages_sum_1d' is an aggregate of other rows: give it as a column"
    ):
        testing.fit(definitions, "m", pd.DataFrame(sample))
    fitted = testing.fit(definitions, "m", pd.DataFrame(sample | {"pages_sum_1d": [3, None]}))
    assert fitted.inputs["pages_sum_1d"].tolist()[0] == 3.0
    assert np.isnan(fitted.inputs["pages_sum_1d"].tolist()[1])


def test_rows_without_a_label_are_left_out_and_none_left_is_an_error(load_text: Load) -> None:
    definitions = load_text(MODEL)
    rows = people()
    assert len(testing.fit(definitions, "m", rows).label) == sum(row["again"] is not None for row in rows)
    with pytest.raises(InvalidRequest, match="no row to fit 'm' on: each lacks the label 'again' or an input"):
        testing.fit(definitions, "m", [row | {"again": None} for row in rows])


def test_a_model_that_is_not_declared_is_named(load_text: Load) -> None:
    with pytest.raises(UnknownName, match="did you mean 'm'"):
        testing.fit(load_text(MODEL), "mm", people())
