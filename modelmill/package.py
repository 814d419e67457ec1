"""A model package: everything needed to serve one trained model, and nothing that can run code when it is loaded.

    packages/{model}/{run}/model.onnx        the graph that is served
                           estimator.skops   the scikit-learn estimator, for people and later tools
                           manifest.json     signature, metrics, the SHA-256 of each file and its own; written last

A package without its manifest does not exist; a file that does not match the manifest is never loaded. This module
needs neither scikit-learn nor pandas, so that the predictor can serve without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import orjson

from modelmill.errors import PackageError
from modelmill.storage import Storage
from modelmill.tiles import Reading

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
ESTIMATOR = "estimator.skops"
SCHEMA_VERSION = 1
SEAL = "sha256"
"""The manifest's last field: the SHA-256 of the others."""


@dataclass(frozen=True)
class Input:
    """One input of a model.

    A stored feature where `entity` is set, computed at request time where `needs` is, otherwise given with the request.
    """

    name: str
    dtype: str
    """`float`, `int`, `bool` or `str`."""
    nullable: bool
    """Whether the model takes a missing value (as NaN, or as the empty string)."""
    entity: str | None = None
    field: str | None = None
    """Name of the field in the entity's hash."""
    source: str | None = None
    """The source that the field comes from, whose event time says how fresh it is."""
    has_default: bool = False
    default: float | int | str | bool | None = None
    """Taken where the entity is not there at all, if `has_default`."""
    max_age: int | None = None
    """Seconds after its event time at which a row of that source is still used; None for ever."""
    tiles: str | None = None
    """For a windowed aggregate: the group of tiles that it is read from, instead of a field."""
    reading: Reading | None = None
    """And how it is read from them."""
    needs: dict[str, str] | None = None
    """What the function of this name is computed from: under which name it gets it, to the name of the model's input,
    or auxiliary one, that it is."""
    version: str | None = None
    """Of that function."""


@dataclass(frozen=True)
class Manifest:
    """The signature and origin of a packaged model."""

    model: str
    run: str
    task: Literal["classification", "regression"]
    entities: dict[str, str]
    """Entity to the name of its join key in requests."""
    inputs: list[Input]
    """In the order of the model's columns."""
    layout: Literal["matrix", "columns"]
    """`matrix`: one float tensor [rows, inputs]; `columns`: one tensor [rows, 1] an input, named as it."""
    tensor_dtype: Literal["float32", "float64"]
    """Type of the numeric tensors."""
    classes: list[Any]
    """The labels in the order of the probabilities' columns; empty for regression."""
    label: str
    metrics: dict[str, float]
    example: dict[str, Any]
    """One row of input values, by name, with which the predictor warms up."""
    auxiliary: list[Input] = field(default_factory=list)
    """Stored features that are read only to compute inputs."""
    definitions: str = ""
    """SHA-256 of the definitions file with the functions of computed inputs."""
    files: dict[str, str] = field(default_factory=dict)
    """File name to SHA-256, in hexadecimal."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
        return _sealed(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """The manifest in `text`.

        Raises:
            ValueError, TypeError, KeyError: for anything but an unaltered manifest of this schema version.
        """
        raw = orjson.loads(text)
        if _sealed({name: value for name, value in raw.items() if name != SEAL}) != text:
            raise ValueError(f"it differs from its own {SEAL}")
        del raw[SEAL]
        if raw["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {raw['schema_version']!r}, expected {SCHEMA_VERSION}")
        lists = {name: [_input(item) for item in raw.get(name, [])] for name in ("inputs", "auxiliary")}
        return cls(**{**raw, **lists})


def _input(raw: Mapping[str, Any]) -> Input:
    reading = raw.get("reading")
    return Input(**{**raw, "reading": Reading(**reading) if reading else None})


def _sealed(content: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(orjson.dumps(content)).hexdigest()
    return orjson.dumps({**content, SEAL: digest}, option=orjson.OPT_INDENT_2)


def location(model: str, run: str) -> str:
    """The folder of a run's package in the storage."""
    return f"packages/{model}/{run}"


def write(storage: Storage, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Store a package and return its folder; it exists once its manifest does, which comes last."""
    folder = location(manifest.model, manifest.run)
    for name, content in files.items():
        storage.write(f"{folder}/{name}", content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    storage.write(f"{folder}/{MANIFEST}", Manifest(**{**vars(manifest), "files": digests}).to_json())
    return folder


def read(storage: Storage, folder: str, file: str = GRAPH) -> tuple[Manifest, bytes]:
    """The manifest and one file of the package in `folder`, checked against the manifest.

    Raises:
        PackageError: naming the file that is missing or altered.
    """
    try:
        manifest = Manifest.from_json(storage.read(f"{folder}/{MANIFEST}"))
        content = storage.read(f"{folder}/{file}")
    except FileNotFoundError as error:
        raise PackageError(f"package {folder}: a file is missing: {error}", package=folder) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PackageError(f"package {folder}: {MANIFEST} cannot be read: {error}", package=folder) from None
    if hashlib.sha256(content).hexdigest() != manifest.files.get(file):
        raise PackageError(f"package {folder}: {file} differs from its SHA-256 in {MANIFEST}", package=folder)
    return manifest, content
