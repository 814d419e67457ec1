"""MLflow model folders: the file `MLmodel`, and the model beside it, read without MLflow and without loading the model.

Where the folder lies in an MLflow store and MLflow is installed, the run that logged it is read with MLflow's client.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelmill.client.transport import Json
from modelmill.errors import InvalidRequest
from modelmill.packages.package import ESTIMATOR, GRAPH, MANIFEST, Input, Manifest

MLMODEL = "MLmodel"
SAVE_AS_SKOPS = "mlflow.sklearn.save_model(model, path, serialization_format='skops')"
STORE = "mlflow.db"
"""The file that MLflow 3 keeps its store in, beside the folder `mlruns` of its artifacts."""


@dataclass(frozen=True)
class MlflowModel:
    """What an MLflow model folder holds."""

    path: Path
    """Of the model's file."""
    format: str
    """`onnx`, `skops`, `pickle` or `cloudpickle`."""
    columns: dict[str, str] | None
    """Name to type of the inputs in its signature, if it has one that names columns."""
    example: dict[str, Any] | None
    """The first row of its input example."""
    origin: dict[str, str]
    """Ids and versions that the folder tells."""

    @property
    def pickled(self) -> bool:
        """Whether loading it could run any code."""
        return self.format in ("pickle", "cloudpickle")


@dataclass(frozen=True)
class MlflowRun:
    """What MLflow recorded of the run that logged a model."""

    params: dict[str, str]
    metrics: dict[str, float]
    origin: dict[str, str]
    """Its tags, experiment and name."""


def read_folder(folder: Path) -> MlflowModel:
    """The model in an MLflow model folder, of the flavour scikit-learn or ONNX.

    Raises:
        InvalidRequest: for a folder that is none, or of another flavour.
    """
    about = _mlmodel(folder)
    flavors = about.get("flavors")
    flavors = flavors if isinstance(flavors, Mapping) else {}
    if sklearn := flavors.get("sklearn"):
        path, form = folder / str(sklearn.get("pickled_model")), str(sklearn.get("serialization_format", "pickle"))
    elif onnx := flavors.get("onnx"):
        path, form = folder / str(onnx.get("data")), "onnx"
    else:
        found = ", ".join(map(str, flavors)) or "none"
        raise InvalidRequest(f"MLflow model {str(folder)!r} has the flavours {found}; expected sklearn or onnx")
    if form not in ("onnx", "skops", "pickle", "cloudpickle"):
        raise InvalidRequest(f"MLflow model {str(folder)!r} is serialized as {form!r}; expected skops")
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise InvalidRequest(f"MLflow model {str(folder)!r} names the file {path.name!r}, which is not in it")
    names = ("run_id", "model_id", "mlflow_version", "utc_time_created")
    origin = {f"mlflow_{name.removeprefix('mlflow_')}": str(about[name]) for name in names if about.get(name)}
    if sklearn:
        origin["sklearn_version"] = str(sklearn.get("sklearn_version", ""))
    return MlflowModel(path, form, _columns(about), _example(folder, about), origin)


def read_run(folder: Path, model: MlflowModel, tracking_uri: str | None = None) -> MlflowRun | None:
    """The run that logged the model, where it is in a store that is found and MLflow is installed; otherwise None.

    The store is at `tracking_uri`, or around the folder: `mlflow.db` beside `mlruns`, or in `mlruns` itself.

    Raises:
        InvalidRequest: where `tracking_uri` was given and the run cannot be read from there.
    """
    run_id = model.origin.get("mlflow_run_id")
    uri = tracking_uri or _store_around(folder)
    if not run_id or not uri:
        return None
    if find_spec("mlflow") is None:
        if tracking_uri:
            raise InvalidRequest(f"reading the MLflow run {run_id} needs MLflow: pip install 'modelmill[mlflow]'")
        return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        run = MlflowClient(tracking_uri=uri).get_run(run_id)
    except MlflowException as error:
        if tracking_uri:
            raise InvalidRequest(f"MLflow at {uri} does not tell of run {run_id}: {error}") from None
        return None
    own = {f"mlflow_tag.{name}": str(text) for name, text in run.data.tags.items() if not name.startswith("mlflow.")}
    return MlflowRun(
        params=dict(run.data.params),
        metrics={name: value for name, value in run.data.metrics.items() if math.isfinite(value)},
        origin={**own, "mlflow_experiment": run.info.experiment_id, "mlflow_run_name": run.info.run_name or ""},
    )


def _mlmodel(folder: Path) -> Mapping[str, Any]:
    file, yaml = folder / MLMODEL, _yaml_library()
    try:
        about = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidRequest(f"folder {str(folder)!r} has no file {MLMODEL}; expected an MLflow model folder") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f"{str(file)!r} cannot be read: {error}") from None
    if not isinstance(about, Mapping):
        raise InvalidRequest(f"{str(file)!r} holds no mapping; expected what MLflow writes")
    return about


def _columns(about: Mapping[str, Any]) -> dict[str, str] | None:
    """The signature's inputs, if they are named columns; tensors are checked by the model itself."""
    try:
        inputs = json.loads(about["signature"]["inputs"])
        return {str(item["name"]): str(item["type"]) for item in inputs if item["type"] != "tensor"} or None
    except (KeyError, TypeError, ValueError):
        return None


def _example(folder: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first row of an input example that was a DataFrame."""
    try:
        info = about["saved_input_example_info"]
        if info["type"] != "dataframe":
            return None
        example = json.loads((folder / info["artifact_path"]).read_text(encoding="utf-8"))
        return dict(zip(example["columns"], example["data"][0], strict=True))
    except (KeyError, IndexError, TypeError, ValueError, OSError):
        return None


def _store_around(folder: Path) -> str | None:
    for parent in folder.resolve().parents:
        if parent.name == "mlruns":
            database = parent.parent / STORE
            return f"sqlite:///{database}" if database.is_file() else parent.as_uri()
    return None


# --- a version as an MLflow model folder, written without MLflow: what `mlflow.sklearn.save_model` would write.
#
# An estimator becomes the flavour `sklearn`, serialized as skops, which `mlflow.pyfunc` loads too; the graph beside
# it the flavour `onnx`. A version that has a graph alone is loaded as ONNX by `mlflow.pyfunc`, too.

SKOPS = "model.skops"
"""The name that MLflow gives to an estimator."""
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"
NEEDED = ("numpy", "pandas")
NEEDED_BY = {ESTIMATOR: ("scikit-learn", "skops"), GRAPH: ("onnx", "onnxruntime")}
"""File of a package to the Python packages that load it."""
TYPES = {"float": "double", "int": "long", "bool": "boolean", "str": "string"}
"""Declared type to MLflow's."""


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
        kind = TYPES[type(manifest.classes[0]).__name__] if manifest.classes else "double"
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
    text: str = _yaml_library().safe_dump(content, sort_keys=True, allow_unicode=True, width=120)
    return text.encode()


def _yaml_library() -> Any:
    """PyYAML, of which nothing but MLflow's folders has need."""
    try:
        import yaml
    except ImportError:
        raise InvalidRequest(
            "MLflow's folders need PyYAML, which is not installed; pip install 'modelmill[exchange]'"
        ) from None
    return yaml
