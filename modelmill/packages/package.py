"""A model package: everything needed to serve one trained model, and nothing that can run code when it is loaded.

    packages/{model}/{run}/model.onnx        the graph that is served, unless the estimator itself is
                           estimator.skops   the scikit-learn estimator
                           manifest.json     signature, metrics, the SHA-256 of each file and its own; written last

A package without its manifest does not exist; one of which any file does not match the manifest is never loaded. This
module needs neither scikit-learn nor pandas, so that the predictor can serve without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter

from modelmill.errors import PackageError
from modelmill.storage import Storage
from modelmill.windows import Reading

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
ESTIMATOR = "estimator.skops"
SCHEMA_VERSION = 2
"""The one schema version that is read."""
MATRIX = "inputs"
"""Name of the only tensor of a model with the layout `matrix`."""
Runtime = Literal["onnx", "skops"]
Layout = Literal["matrix", "columns"]
Precision = Literal["float32", "float64"]
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
    """Whether the model takes a missing value (as NaN, or as the empty string): its declaration allows one, and its
    estimator has an answer then."""
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
    """Of the function that it is computed by, at request time or before; None for what is ingested as it is."""


@dataclass(frozen=True)
class Tensor:
    """What a packaged model takes, or gives, under one name."""

    name: str
    dtype: str
    """As NumPy calls it, `float32`, or `str`."""
    shape: list[int]
    """-1 for the number of rows."""


@dataclass(frozen=True)
class Range:
    """What the rows that a model was fitted on hold of one input."""

    missing: float
    """Share of the rows without a value."""
    low: float | None = None
    high: float | None = None
    values: list[str] | None = None
    """Of a text: its values, the most frequent first, and of more than `MAX_VALUES` only those."""


MAX_VALUES = 20


@dataclass(frozen=True)
class Parity:
    """How far the answers of a package are from those of the estimator that it was made of, on the held-out rows."""

    rows: int
    labels_differing: float
    """Share of the rows with another label; 0 for a regression."""
    max_difference: float
    """The largest difference of a probability, or of a number of a regression."""
    max_relative_difference: float
    """Of a number relative to the spread of all, or to how far it is from their mean where that is more; of a
    probability the difference itself."""


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
    layout: Layout
    """`matrix`: one float tensor [rows, inputs]; `columns`: one tensor [rows, 1] an input, named as it."""
    tensor_dtype: Precision
    """Type of the numeric tensors."""
    classes: list[Any]
    """The values of the label in the order of the probabilities' columns; empty for regression. Of several `labels` a
    list each, whose probabilities stand side by side."""
    label: str
    """Its name; of several all names, in words."""
    metrics: dict[str, float]
    example: dict[str, Any]
    """One row of input values, by name, with which the predictor warms up."""
    labels: list[str] = field(default_factory=list)
    """The names where there are several."""
    answer: list[Any] = field(default_factory=list)
    """What comes out for the example, output by output: a model that answers otherwise when it is loaded, for instance
    because another version of scikit-learn loads it, is not served."""
    auxiliary: list[Input] = field(default_factory=list)
    """Stored features that are read only to compute inputs."""
    definitions: str = ""
    """SHA-256 of the definitions file with the functions of computed inputs, and the types that the model trusts."""
    runtime: Runtime = "onnx"
    """What answers: ONNX Runtime with the graph, or scikit-learn with the estimator."""
    runtime_reason: str = ""
    """Why it is not the graph."""
    required: list[str] = field(default_factory=list)
    """Inputs that may be missing by their declaration, and that the estimator cannot do without: they are not
    nullable here."""
    trusted: list[str] = field(default_factory=list)
    """Types beside the reviewed ones that the estimator is made of; the definitions have to declare them as well."""
    parity: Parity | None = None
    tensors: list[Tensor] = field(default_factory=list)
    """What `runtime` takes."""
    outputs: list[Tensor] = field(default_factory=list)
    """What it gives: labels and maybe probabilities, or numbers."""
    ranges: dict[str, Range] = field(default_factory=dict)
    """Input to what the rows that the model was fitted on hold of it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Python and its packages to their versions when the model was packed."""
    files: dict[str, str] = field(default_factory=dict)
    """File name to SHA-256, in hexadecimal."""
    schema_version: int = SCHEMA_VERSION

    @property
    def served(self) -> str:
        """The file that answers are made with."""
        return GRAPH if self.runtime == "onnx" else ESTIMATOR

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
        return _sealed(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
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
        return CODEC.validate_python(raw)


CODEC = TypeAdapter(Manifest)


def _sealed(content: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(orjson.dumps(content)).hexdigest()
    return orjson.dumps({**content, SEAL: digest}, option=orjson.OPT_INDENT_2)


def required_words(required: Sequence[str]) -> str:
    """What is said of inputs that the declaration, but not the estimator, can do without."""
    one = len(required) == 1
    return (
        f"{', '.join(map(repr, required))} may be missing by {'its' if one else 'their'} declaration, and the estimator"
        f" has no answer then: a request without {'it' if one else 'them'} is refused (422)"
    )


def location(model: str, run: str) -> str:
    """The folder of a run's package in the storage."""
    return f"packages/{model}/{run}"


def write(storage: Storage, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Store a package and return its folder; it exists once its manifest does, which comes last.

    Each file is on the disk before it has its name. Of a package that cannot be finished nothing is left.
    """
    folder = location(manifest.model, manifest.run)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = replace(manifest, files=digests).to_json()
    try:
        for name, content in {**files, MANIFEST: text}.items():
            storage.write(f"{folder}/{name}", content)
    except BaseException:
        for name in (MANIFEST, *files):
            with suppress(Exception):  # the first error says why
                storage.remove(f"{folder}/{name}")
        raise
    return folder


def read(storage: Storage, folder: str, file: str = "") -> tuple[Manifest, bytes]:
    """The manifest and one file of the package in `folder`: the one that is served, unless another is named.

    Every file of the package is checked against the manifest, whichever is asked for.

    Raises:
        PackageError: naming the file that is missing or altered, or that the manifest does not list.
    """
    try:
        manifest = Manifest.from_json(storage.read(f"{folder}/{MANIFEST}"))
        wanted = file or manifest.served
        if wanted not in manifest.files:
            raise PackageError(f"package {folder}: {wanted} is not listed in {MANIFEST}", package=folder)
        content = storage.read(f"{folder}/{wanted}")
        found = {name: storage.sha256(f"{folder}/{name}") for name in manifest.files if name != wanted}
    except FileNotFoundError as error:
        raise PackageError(f"package {folder}: a file is missing: {error}", package=folder) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PackageError(f"package {folder}: {MANIFEST} cannot be read: {error}", package=folder) from None
    found[wanted] = hashlib.sha256(content).hexdigest()
    for name, digest in found.items():
        if digest != manifest.files[name]:
            raise PackageError(f"package {folder}: {name} differs from its SHA-256 in {MANIFEST}", package=folder)
    return manifest, content
