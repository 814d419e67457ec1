"""The signature and the example of a package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from modelmill.declare.definitions_file import load
from modelmill.packages.package import MAX_VALUES, Input, Manifest, Range, Tensor
from modelmill.state.runs import Run
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.packing import Inputs, example, manifest, one_row, pack, signature, value_range

MILL = """
from modelmill import Entity, Model, Source, feature
carrier = Entity("carrier", key="carrier_id")
origin = Entity("origin", key="origin_id")
carriers = Source("carriers", entity=carrier, max_age="30d", columns={"delay": float | None})
weather = Source("weather", entity=origin, columns={"wind": float, "delay": float})
flights = Source("flights", entities=[carrier, origin], columns={"late": bool, "hour": int, "tail": str | None})
Model("late", entities=[carrier, origin], features=["carrier.delay", "origin.delay", "wind"], label="late",
      inputs={"hour": int, "tail": str | None}, source=flights, estimator=None, defaults={"wind": 3.5})
"""


def test_inputs_are_features_then_request_inputs_each_with_where_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "mill.py"
    path.write_text(MILL)
    definitions = load(path)
    assert signature(definitions, definitions.model("late")).fed == [
        Input("carrier.delay", "float", True, "carrier", "delay", "carriers", max_age=2_592_000),
        Input("origin.delay", "float", False, "origin", "delay", "weather"),
        Input("wind", "float", False, "origin", "wind", "weather", True, 3.5),
        Input("hour", "int", False),
        Input("tail", "str", True),
    ]


def test_a_computed_feature_is_packed_with_its_function_s_version_and_what_only_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "mill.py"
    path.write_text(
        MILL.replace('"wind"], label', '"wind", "gusts"], label').replace(
            '"wind": float,', '"wind": float, "calm": float,'
        )
        + """
from modelmill import request_feature

@request_feature(dtype=float | None, needs=["hour", "wind", "origin.calm", "carrier.delay"])
def gusts(row):
    return row["wind"] / row["origin.calm"]
"""
    )
    definitions = load(path)
    found = signature(definitions, definitions.model("late"))
    version = definitions.request_features["gusts"].version
    needs = {"hour": "hour", "wind": "wind", "origin.calm": "origin.calm", "carrier.delay": "carrier.delay"}
    assert found.fed[3] == Input("gusts", "float", True, needs=needs, version=version)
    assert found.auxiliary == [Input("origin.calm", "float", False, "origin", "calm", "weather")]
    assert found.fields == ["carriers.delay", "weather.delay", "weather.wind", "weather.calm"]


def test_a_derived_feature_is_packed_with_its_function_s_version(tmp_path: Path) -> None:
    path = tmp_path / "mill.py"
    path.write_text(
        MILL.replace('"wind"], label', '"calm"], label').replace(', defaults={"wind": 3.5}', "")
        + """
@feature(weather, dtype=float)
def calm(row):
    return 1 / row["wind"]
"""
    )
    definitions = load(path)
    version = definitions.features["weather"]["calm"].version
    assert signature(definitions, definitions.model("late")).fed[2] == Input(
        "calm", "float", False, "origin", f"calm@{version}", "weather", version=version
    )


def test_a_manifest_says_what_is_served_and_what_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "mill.py"
    path.write_text(MILL)
    recipe = load(path).model("late")
    numbers = pd.DataFrame({"a": [0.0, 1.0, 2.0, np.nan], "b": [1.0, 3.0, 2.0, 5.0]})
    estimator = make_pipeline(FunctionTransformer(np.nan_to_num), LinearRegression()).fit(numbers, numbers["b"])
    inputs = Inputs([Input("a", "float", True), Input("b", "float", False)], [])
    run = Run(id="r1", model="late", started="", definitions="d" * 64, metrics={"r2": 0.5}, packages={"python": "3.11"})
    packed = pack(estimator, inputs.fed, numbers, Answers.of(estimator, numbers))
    made = manifest(recipe, run, inputs, estimator, packed, fitted_on=numbers, held_out=numbers[1:])
    assert made == Manifest(
        model="late",
        run="r1",
        task="regression",
        entities={"carrier": "carrier_id", "origin": "origin_id"},
        inputs=inputs.fed,
        definitions="d" * 64,
        runtime="skops",
        runtime_reason=packed.runtime_reason,
        parity=packed.parity,
        layout="matrix",
        tensor_dtype="float64",
        tensors=[Tensor("inputs", "float64", [-1, 2])],
        outputs=[Tensor("variable", "float64", [-1, 1])],
        classes=[],
        label="late",
        metrics={"r2": 0.5},
        example={"a": 1.0, "b": 3.0},
        answer=[pytest.approx(estimator.predict(numbers[1:2]))],
        ranges={"a": Range(0.25, 0.0, 2.0), "b": Range(0.0, 1.0, 5.0)},
        environment={"python": "3.11"},
    )
    assert Manifest.from_json(made.to_json()) == made


def test_of_a_text_the_most_frequent_values_are_kept() -> None:
    column = pd.Series(["", "JFK", "EWR", "EWR", "LGA"], dtype=object)
    assert value_range(column) == Range(0.2, values=["EWR", "JFK", "LGA"])
    assert len(value_range(pd.Series([str(n) for n in range(1000)], dtype=object)).values or []) == MAX_VALUES


def test_a_column_without_any_value_has_no_range() -> None:
    assert value_range(pd.Series([np.nan, np.nan])) == Range(1.0)


INPUTS = [Input("x", "float", True), Input("n", "int", False), Input("b", "bool", False), Input("s", "str", True)]


def rows(x: list[float]) -> pd.DataFrame:
    text = pd.Series(["JFK", ""], dtype=object)
    return pd.DataFrame({"x": x, "n": [1.0, 2.0], "b": [0.0, 1.0], "s": text})


def test_the_example_is_a_complete_row_as_a_request_has_it() -> None:
    assert example(INPUTS, one_row(rows([np.nan, 0.5]))) == {"x": 0.5, "n": 2, "b": True, "s": None}
    assert [type(v) for v in example(INPUTS, one_row(rows([1.0, 0.5]))).values()] == [float, int, bool, str]


def test_where_no_row_is_complete_the_example_lacks_a_value() -> None:
    assert example(INPUTS, one_row(rows([np.nan, np.nan]))) == {"x": None, "n": 1, "b": False, "s": "JFK"}
