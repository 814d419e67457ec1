"""The signature and the example of a package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from modelmill.definitions_file import load
from modelmill.package import Input
from services.trainer.packaging.manifest import example, signature

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


INPUTS = [Input("x", "float", True), Input("n", "int", False), Input("b", "bool", False), Input("s", "str", True)]


def rows(x: list[float]) -> pd.DataFrame:
    text = pd.Series(["JFK", ""], dtype=object)
    return pd.DataFrame({"x": x, "n": [1.0, 2.0], "b": [0.0, 1.0], "s": text})


def test_the_example_is_a_complete_row_as_a_request_has_it() -> None:
    assert example(INPUTS, rows([np.nan, 0.5])) == {"x": 0.5, "n": 2, "b": True, "s": None}
    assert [type(v) for v in example(INPUTS, rows([1.0, 0.5])).values()] == [float, int, bool, str]


def test_where_no_row_is_complete_the_example_lacks_a_value() -> None:
    assert example(INPUTS, rows([np.nan, np.nan])) == {"x": None, "n": 1, "b": False, "s": "JFK"}
