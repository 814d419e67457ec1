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

import yaml

from modelmill.errors import InvalidRequest

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
    file = folder / MLMODEL
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
