"""Calls of the trainer that take models which were trained elsewhere, and give versions away."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from modelmill.client.exchange import mlflow
from modelmill.client.exchange.mlflow import SAVE_AS_SKOPS, MlflowModel
from modelmill.client.transport import LONG, Json, Transport, url_of
from modelmill.errors import InvalidRequest, PackageError
from modelmill.packages.offers import Offer
from modelmill.packages.package import ESTIMATOR, GRAPH, MANIFEST, Manifest

SUFFIXES = {".onnx": "onnx", ".skops": "skops"}
PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle")
FORMATS = {"onnx": GRAPH, "skops": ESTIMATOR}
"""Format of an export to the file that it needs."""
CONVERSION_SECONDS = 600


class ExchangeCalls(Transport):
    """Models from elsewhere in, versions out."""

    def register(
        self,
        model: str,
        path: str | Path,
        *,
        by: str = "",
        reason: str = "",
        promote: bool = False,
        trust_pickle: bool = False,
        classes: Sequence[Any] | None = None,
        example: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> Json:
        """Offer a model that was trained elsewhere as the next version of `model`; the answer names the job.

        Args:
            path: an ONNX file, a skops file, or an MLflow model folder of the flavour scikit-learn or ONNX.
            promote: let it serve at once, over the model's gates and policy.
            trust_pickle: load a pickled model here, which runs the code in it, and send it as skops.
            classes: the labels in the order of the probabilities' columns, where an ONNX file does not tell.
            example: a row of inputs to try it on, where there are no labelled rows.
            tracking_uri: the MLflow store with the run that logged the folder, if it is not around it.

        Raises:
            InvalidRequest: for what cannot be sent; what is sent is checked by the trainer, in the job.
        """
        with tempfile.TemporaryDirectory(prefix="modelmill-register-") as scratch:
            offered = _offered(Path(path), Path(scratch), trust_pickle=trust_pickle, tracking_uri=tracking_uri)
            offer = offered.offer
            if classes is not None:
                offer = offer.model_copy(update={"classes": list(classes)})
            if example is not None:
                offer = offer.model_copy(update={"example": dict(example)})
            form = {"offer": orjson.dumps(offer.to_json()).decode(), "by": by, "reason": reason}
            with offered.path.open("rb") as file:
                return self._call(
                    "POST",
                    url_of(self.settings.trainer_url, "models", model, "versions"),
                    data=form | {"promote": str(promote).lower()},
                    files={"model": (offered.path.name, file, "application/octet-stream")},
                    timeout=LONG,
                )

    def export(self, model: str, to: str | Path, *, version: int | str = "champion", format: str = "mlflow") -> Json:
        """Write a version, by number or alias, into the new folder `to`: as an MLflow model, ONNX or skops file.

        Returns:
            The version, and the files with their SHA-256.

        Raises:
            InvalidRequest: where the version has no such file, or the folder holds something already.
            PackageError: where what arrives is not what the package's manifest says.
        """
        target = Path(to)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InvalidRequest(f"{str(target)!r} holds something already; name a new folder")
        url = url_of(self.settings.trainer_url, "models", model, "versions", version, "package")
        about = self._call("GET", url, timeout=LONG)
        text = self._send("GET", f"{url}/{MANIFEST}", timeout=LONG).content
        try:
            manifest = Manifest.from_json(text)
        except (ValueError, TypeError, KeyError) as error:
            raise PackageError(f"{MANIFEST} from {url} cannot be used: {error}") from None
        wanted = _wanted(manifest, model, about["version"], format)
        files = {MANIFEST: text}
        for name in wanted:
            files[name] = self._send("GET", f"{url}/{name}", timeout=LONG).content
            if hashlib.sha256(files[name]).hexdigest() != manifest.files[name]:
                raise PackageError(f"{name} from {url} differs from its SHA-256 in {MANIFEST}")
        if format == "mlflow":
            packages = self._call("GET", url_of(self.settings.trainer_url, "runs", about["run"]))["packages"]
            files = mlflow.folder(manifest, files, about, packages)
        _write(target, files)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return {"model": model, "version": about["version"], "run": about["run"], "to": str(target), "files": digests}


@dataclass(frozen=True)
class _Offered:
    path: Path
    """The file to send."""
    offer: Offer


def _offered(path: Path, scratch: Path, *, trust_pickle: bool, tracking_uri: str | None) -> _Offered:
    if not path.exists():
        raise InvalidRequest(f"file {str(path)!r} does not exist; expected an ONNX or skops file or an MLflow folder")
    if path.is_dir():
        return _of_folder(path, scratch, trust_pickle=trust_pickle, tracking_uri=tracking_uri)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        skops = _converted(path, scratch, trust_pickle=trust_pickle, cure="skops.io.dump(model, 'model.skops')")
        return _Offered(skops, Offer(format="skops", file=path.name, origin={"pickle_sha256": _sha256(path)}))
    if suffix not in SUFFIXES:
        raise InvalidRequest(f"file {path.name!r}: expected {', '.join(SUFFIXES)} or an MLflow model folder")
    return _Offered(path, Offer(format="onnx" if suffix == ".onnx" else "skops", file=path.name))


def _of_folder(folder: Path, scratch: Path, *, trust_pickle: bool, tracking_uri: str | None) -> _Offered:
    model = mlflow.read_folder(folder)
    run = mlflow.read_run(folder, model, tracking_uri)
    origin = model.origin | (run.origin if run else {})
    path = model.path
    if model.pickled:
        path = _converted(path, scratch, trust_pickle=trust_pickle, cure=SAVE_AS_SKOPS)
        origin["pickle_sha256"] = _sha256(model.path)
    elif model.format == "onnx":
        path = _in_one_file(model, scratch)
    offer = Offer(
        format="onnx" if model.format == "onnx" else "skops",
        file=f"{folder.name}/{model.path.name}",
        columns=model.columns,
        example=model.example,
        origin=origin,
        params={f"mlflow.{name}": text for name, text in run.params.items()} if run else {},
        metrics=run.metrics if run else {},
    )
    return _Offered(path, offer)


def _converted(path: Path, scratch: Path, *, trust_pickle: bool, cure: str) -> Path:
    """The skops file of a pickled estimator, made in a process of its own.

    Raises:
        InvalidRequest: where nobody says that the pickle is to be trusted, or it cannot be converted.
    """
    if not trust_pickle:
        raise InvalidRequest(
            f"{path.name!r} is a pickle, which runs code when it is loaded and is never taken: save the model with"
            f" {cure}; or, if you trust whoever made it, add --trust-pickle, which loads it on this machine and sends"
            " it as skops"
        )
    target = scratch / "estimator.skops"
    command = [sys.executable, "-m", "modelmill.client.exchange.unpickle", str(path.resolve()), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERSION_SECONDS)
    except subprocess.TimeoutExpired:
        raise InvalidRequest(f"{path.name!r} was not converted to skops within {CONVERSION_SECONDS} s") from None
    if done.returncode or not target.is_file():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InvalidRequest(f"{path.name!r} cannot be converted to skops: {lines[-1]}")
    return target


def _in_one_file(model: MlflowModel, scratch: Path) -> Path:
    """The ONNX file of an MLflow folder; one with the weights in it where MLflow put them into other files."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    target = scratch / GRAPH
    try:
        weights = onnx.load(model.path, load_external_data=False).graph.initializer
        if not any(uses_external_data(tensor) for tensor in weights):
            return model.path
        onnx.save(onnx.load(model.path), target, save_as_external_data=False)
    except Exception as error:  # protobuf's and onnx's have no common root
        raise InvalidRequest(f"{str(model.path)!r} cannot be read as ONNX: {error}") from None
    return target


def _wanted(manifest: Manifest, model: str, version: int, format: str) -> list[str]:
    """The files of the package that an export in this format needs."""
    if format == "mlflow":
        return [name for name in (ESTIMATOR, GRAPH) if name in manifest.files]
    if format not in FORMATS:
        raise InvalidRequest(f"format {format!r}; expected mlflow, {' or '.join(FORMATS)}")
    if FORMATS[format] not in manifest.files:
        has = ", ".join(manifest.files)
        raise InvalidRequest(
            f"version {version} of {model!r} has no {FORMATS[format]}, only {has}; choose another format"
        )
    return [FORMATS[format]]


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the folder under a temporary name, then rename it: it is whole or not there."""
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".modelmill-export-", dir=target.absolute().parent) as scratch:
            whole = Path(scratch) / "export"
            for name, content in files.items():
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            whole.rename(target)
    except OSError as error:
        raise InvalidRequest(f"folder {str(target)!r} cannot be written: {error.strerror}") from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
