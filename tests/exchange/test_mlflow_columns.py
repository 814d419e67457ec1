"""Exports of models with columns of several types, as the real MLflow loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelmill.client.exchange import mlflow as mlflow_export
from modelmill.packages.package import ESTIMATOR, GRAPH, MANIFEST, Input, Manifest, Tensor
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.packing import pack

mlflow = pytest.importorskip("mlflow", reason="MLflow has an environment of its own: make test-extras")
pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

INPUTS = [Input("origin", "str", False), Input("seats", "int", False), Input("delay", "float", True)]
ABOUT = {"version": 1, "created": "2026-11-25T18:54:01.222930Z"}
PACKAGES = {"python": "3.11.7", "scikit-learn": "1.9.1", "numpy": "2.4.6"}


def rows() -> pd.DataFrame:
    """As a model is given them here: text as objects, all else as numbers of floating point."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "origin": pd.Series(random.choice(["EWR", "JFK", "LGA"], 200), dtype=object),
            "seats": random.integers(50, 300, 200).astype(float),
            "delay": random.normal(size=200),
        }
    )


def one_hot(estimator: Any) -> Any:
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    return make_pipeline(make_column_transformer((encoder, ["origin"]), remainder="passthrough"), estimator)


def exported(folder: Path, estimator: Any, task: Any, wanted: list[str]) -> Any:
    """An export of those files of the estimator's package, and the package."""
    given = rows()
    packed = pack(estimator, INPUTS, given, Answers.of(estimator, given))
    files = {ESTIMATOR: skops.io.dumps(estimator), **packed.files}
    manifest = Manifest(
        model="flights", run="r", task=task, entities={}, inputs=INPUTS, layout=packed.layout,
        tensor_dtype=packed.tensor_dtype, classes=estimator.classes_.tolist() if task == "classification" else [],
        label="late", metrics={}, example={"origin": "JFK", "seats": 100, "delay": 0.5}, tensors=[Tensor("x", "str", [])],
    )  # fmt: skip
    types = skops.io.get_untrusted_types(data=files[ESTIMATOR])
    about = {**ABOUT, "trusted_types": types}
    kept = {name: files[name] for name in wanted} | {MANIFEST: manifest.to_json()}
    folder.mkdir()
    for name, content in mlflow_export.folder(manifest, kept, about, PACKAGES).items():
        (folder / name).write_bytes(content)
    return packed


def test_texts_whole_numbers_and_missing_numbers_have_mlflows_types(tmp_path: Path) -> None:
    given = rows()
    label = np.where(given["origin"] == "JFK", "late", "in time")
    estimator = one_hot(HistGradientBoostingClassifier(max_iter=5)).fit(given, label)
    exported(tmp_path / "out", estimator, "classification", [ESTIMATOR])
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    types = {item.name: (str(item.type), item.required) for item in loaded.metadata.get_input_schema()}
    assert types == {
        "origin": ("DataType.string", True), "seats": ("DataType.long", True), "delay": ("DataType.double", False),
    }  # fmt: skip
    assert [str(kind) for kind in loaded.metadata.get_output_schema().input_types()] == ["DataType.string"]
    assert loaded.predict(loaded.input_example).tolist() == ["late"]
    theirs = given.assign(seats=given["seats"].astype(int))
    assert loaded.predict(theirs).tolist() == estimator.predict(given).tolist()
    assert len(loaded.predict(theirs.assign(delay=np.nan))) == len(theirs)


def test_a_graph_with_a_tensor_for_each_column_is_fed_by_name(tmp_path: Path) -> None:
    given = rows()
    estimator = one_hot(LinearRegression()).fit(given, given["seats"] * 2)
    packed = exported(tmp_path / "out", estimator, "regression", [GRAPH])
    assert packed.layout == "columns"
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    feed = {name: given[[name]].to_numpy(object if name == "origin" else packed.tensor_dtype) for name in given.columns}
    numbers = next(iter(loaded.predict(feed).values())).reshape(-1)
    np.testing.assert_allclose(numbers, estimator.predict(given), rtol=1e-4)
    assert loaded.input_example.to_dict("records") == [{"origin": "JFK", "seats": 100, "delay": 0.5}]
    assert loaded.predict(loaded.input_example)["variable"].round(3).tolist() == [[200.0]]
