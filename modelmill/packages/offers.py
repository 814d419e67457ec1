"""A model that was trained elsewhere, as it is offered to the trainer: one file, and what is known about it.

A client sends the file as it is; what it says about it is checked against the file and the model's declaration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

from modelmill.errors import InvalidRequest, did_you_mean, shortened

OfferFormat = Literal["onnx", "skops"]
LONGEST_NAME = 250
MOST_ENTRIES = 2000
"""Of each of an offer's mappings."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What is said about the file of a model that was trained elsewhere."""

    format: OfferFormat
    """What the file is; a pickle is never taken."""
    file: str = ""
    """Its name, for the run's record."""
    classes: list[Any] | None = None
    """The labels in the order of the probabilities' columns, where the file does not tell."""
    columns: dict[str, str] | None = None
    """The names of its inputs in their order, to their types as MLflow calls them, such as `double`."""
    example: dict[str, Any] | None = None
    """One row of input values."""
    origin: dict[str, str] = field(default_factory=dict)
    """Where it comes from, such as `mlflow_run`."""
    params: dict[str, str] = field(default_factory=dict)
    """Parameters that were recorded where it was trained."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics that were recorded there, on rows that are not known here."""

    def to_json(self) -> dict[str, Any]:
        """The offer as it is sent."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", {})}

    @classmethod
    def from_json(cls, raw: Any) -> Self:
        """The offer in a decoded JSON document.

        Raises:
            InvalidRequest: naming the field that cannot be used.
        """
        if not isinstance(raw, dict):
            raise InvalidRequest(
                f"the offer is a JSON {type(raw).__name__}; expected an object such as {{'format': ...}}"
            )
        for name in raw:
            if name not in _CHECKS:
                raise InvalidRequest(f"field {name!r} is not known{did_you_mean(name, list(_CHECKS))}", field=name)
        if raw.get("format") not in get_args(OfferFormat):
            raise InvalidRequest(
                f"field 'format' is {raw.get('format')!r}; expected {' or '.join(get_args(OfferFormat))}"
            )
        for name, value in raw.items():
            expected, holds = _CHECKS[name]
            if not holds(value):
                raise InvalidRequest(f"field {name!r} is {shortened(value)}; expected {expected}", field=name)
        metrics = {name: float(value) for name, value in raw.get("metrics", {}).items()}
        return cls(**{**raw, "metrics": metrics})


def _mapping(of: type | tuple[type, ...]) -> Any:
    def holds(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and len(value) <= MOST_ENTRIES
            and all(0 < len(name) <= LONGEST_NAME for name in value)
            and all(isinstance(inner, of) and not isinstance(inner, bool) for inner in value.values())
        )

    return holds


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


_CHECKS: dict[str, tuple[str, Any]] = {
    "format": ("onnx or skops", lambda value: value in get_args(OfferFormat)),
    "file": ("a file's name", lambda value: isinstance(value, str) and len(value) <= LONGEST_NAME),
    "classes": (
        "a list of the labels, such as [0, 1]",
        lambda value: (
            isinstance(value, list) and len(value) > 1 and all(isinstance(c, str | int | float) for c in value)
        ),
    ),
    "columns": ("an object of names and types", _mapping(str)),
    "example": (
        "an object of names and values",
        lambda value: isinstance(value, Mapping) and all(_scalar(inner) for inner in value.values()),
    ),
    "origin": ("an object of names and texts", _mapping(str)),
    "params": ("an object of names and texts", _mapping(str)),
    "metrics": (
        "an object of names and finite numbers",
        lambda value: _mapping((int, float))(value) and all(math.isfinite(number) for number in value.values()),
    ),
}
"""Field of an offer to what is expected of it, in words and as a test."""
