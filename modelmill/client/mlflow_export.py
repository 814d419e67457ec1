"""A version as an MLflow model folder, written without MLflow: what `mlflow.sklearn.save_model` would write.

An estimator becomes the flavour `sklearn`, serialized as skops, which `mlflow.pyfunc` loads too; the graph beside it
the flavour `onnx`. A version that has a graph alone is loaded as ONNX by `mlflow.pyfunc`, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import yaml

from modelmill.client.transport import Json
from modelmill.errors import InvalidRequest
from modelmill.package import ESTIMATOR, GRAPH, MANIFEST, Input, Manifest

SKOPS = "model.skops"
"""The name that MLflow gives to an estimator."""
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"
NEEDED = ("numpy", "pandas")
NEEDED_BY = {ESTIMATOR: ("scikit-learn", "skops"), GRAPH: ("onnx", "onnxruntime")}
"""File of a package to the Python packages that load it."""
TYPES = {"float": "double", "int": "long", "bool": "boolean", "str": "string"}
"""Declared type to MLflow's."""
LABELS = {str: "string", bool: "boolean", int: "long", float: "double"}


def folder(
    manifest: Manifest, files: Mapping[str, bytes], about: Json, packages: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of an MLflow model folder, by name.

    `files` are those of the package, `about` is what the trainer says of it, and `packages` what it was trained with.

    Raises:
        InvalidRequest: for a package with neither estimator nor graph.
    """
    there = [name for name in (ESTIMATOR, GRAPH) if name in files]
    if not there:
        raise InvalidRequest(f"version {about['version']} has neither {ESTIMATOR} nor {GRAPH}")
    tabular = ESTIMATOR in files or manifest.layout == "columns"
    example = _table(manifest) if tabular else _matrix(manifest)
    requirements = _requirements(there, packages)
    python = packages.get("python", "3.11")
    written = {
        MANIFEST: files[MANIFEST],
        EXAMPLE: _json(example),
        SERVING_EXAMPLE: _json({"dataframe_split": example} if tabular else {"inputs": example}),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
        "python_env.yaml": _yaml({"python": python, "dependencies": ["-r requirements.txt"]}),
        "conda.yaml": _yaml({
            "name": "mlflow-env", "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": requirements}],
        }),
    }  # fmt: skip
    written |= {SKOPS if name == ESTIMATOR else name: files[name] for name in there}
    written["MLmodel"] = _yaml({
        "flavors": _flavors(there, about, packages),
        "signature": _signature(manifest, tabular=ESTIMATOR in files),
        "saved_input_example_info": _example_info(tabular),
        "metadata": {"modelmill": {
            "model": manifest.model, "version": about["version"], "run": manifest.run, "metrics": manifest.metrics,
        }},
        "utc_time_created": about["created"].replace("T", " ").rstrip("Z"),
        "model_size_bytes": sum(len(files[name]) for name in there),
    })  # fmt: skip
    return written


def _flavors(there: list[str], about: Json, packages: Mapping[str, str]) -> dict[str, Any]:
    function: dict[str, Any] = {
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "python_version": packages.get("python", "3.11"),
    }
    flavors: dict[str, Any] = {"python_function": function}
    if GRAPH in there:
        function |= {"loader_module": "mlflow.onnx", "data": GRAPH}
        flavors["onnx"] = {
            "data": GRAPH, "onnx_version": packages.get("onnx", ""), "providers": ["CPUExecutionProvider"],
            "onnx_session_options": None, "code": None,
        }  # fmt: skip
    if ESTIMATOR in there:  # which answers by itself, so that is what MLflow's function asks
        function.pop("data", None)
        function |= {"loader_module": "mlflow.sklearn", "model_path": SKOPS, "predict_fn": "predict"}
        flavors["sklearn"] = {
            "pickled_model": SKOPS, "serialization_format": "skops", "skops_trusted_types": about["trusted_types"],
            "sklearn_version": packages.get("scikit-learn", ""), "code": None,
        }  # fmt: skip
    return flavors


def _signature(manifest: Manifest, *, tabular: bool) -> dict[str, Any]:
    """As MLflow writes it: JSON inside of YAML."""
    if tabular:
        inputs: list[dict[str, Any]] = [
            {"type": _column_type(item), "name": item.name, "required": not item.nullable} for item in manifest.inputs
        ]
    elif manifest.layout == "matrix":
        inputs = [_tensor(manifest.tensor_dtype, len(manifest.inputs))]
    else:
        inputs = [
            {**_tensor("object" if item.dtype == "str" else manifest.tensor_dtype, 1), "name": item.name}
            for item in manifest.inputs
        ]
    outputs = None
    if tabular:
        kind = LABELS[type(manifest.classes[0])] if manifest.classes else "double"
        outputs = json.dumps([{"type": kind, "required": True}])
    return {"inputs": json.dumps(inputs), "outputs": outputs, "params": None}


def _column_type(item: Input) -> str:
    """MLflow turns no whole number into one of floating point, and has no missing ones."""
    return "double" if item.nullable and item.dtype != "str" else TYPES[item.dtype]


def _tensor(dtype: str, width: int) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, width]}}


def _table(manifest: Manifest) -> dict[str, Any]:
    """One row, as a DataFrame split into columns and data."""
    return {
        "columns": [item.name for item in manifest.inputs],
        "data": [[_cell(item, manifest.example[item.name]) for item in manifest.inputs]],
    }


def _matrix(manifest: Manifest) -> list[list[Any]]:
    given = (manifest.example[item.name] for item in manifest.inputs)
    return [[math.nan if value is None else float(value) for value in given]]


def _cell(item: Input, value: Any) -> Any:
    return float(value) if value is not None and _column_type(item) == "double" else value


def _example_info(tabular: bool) -> dict[str, Any]:
    info: dict[str, Any] = {"artifact_path": EXAMPLE, "serving_input_path": SERVING_EXAMPLE}
    if tabular:
        return info | {"type": "dataframe", "pandas_orient": "split"}
    return info | {"type": "ndarray", "format": "tf-serving"}


def _requirements(there: list[str], packages: Mapping[str, str]) -> list[str]:
    names = [*NEEDED, *(name for file in there for name in NEEDED_BY[file])]
    pinned = [f"{name}=={packages[name]}" if name in packages else name for name in names]
    return ["mlflow>=3", *pinned]


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


def _yaml(content: Any) -> bytes:
    text: str = yaml.safe_dump(content, sort_keys=True, allow_unicode=True, width=120)
    return text.encode()
