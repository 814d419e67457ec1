"""Dataclasses as Redis hashes of plain text; dictionaries become fields with dotted names, as `metrics.accuracy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

import orjson

from modelmill.errors import encodable

Record = TypeVar("Record")
NUMBERS: dict[str, Any] = {"dict[str, float]": float, "dict[str, int]": int}
"""Dictionaries whose values are no texts."""


def to_hash(record: Any) -> dict[str, str]:
    """A dataclass as the fields of a hash; dictionaries become dotted fields, absent values empty ones.

    What UTF-8 cannot hold is escaped: texts may come from anybody's code.
    """
    out: dict[str, str] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, dict):
            out.update({f"{item.name}.{name}": str(inner) for name, inner in value.items()})
        elif isinstance(value, list):
            out[item.name] = orjson.dumps(value).decode()
        else:
            out[item.name] = "" if value is None else str(value)
    return {encodable(name): encodable(text) for name, text in out.items()}


def from_hash(kind: type[Record], found: Mapping[str, str]) -> Record:
    """The dataclass that `to_hash` wrote; fields that the hash lacks have their defaults."""
    forms = _forms(kind)  # type: ignore[arg-type]  # mypy takes a class whose kind is open for unhashable
    values: dict[str, Any] = {name: {} for name, form in forms.items() if form.startswith("dict")}
    for full_name, text in found.items():
        form = forms.get(full_name)
        if form is None:
            name, _, inner = full_name.partition(".")
            if inner and name in values:
                values[name][inner] = NUMBERS.get(forms[name], str)(text)
        elif form == "int":
            values[full_name] = int(text)
        elif form == "float":
            values[full_name] = float(text)
        elif form == "int | None":
            values[full_name] = int(text) if text else None
        elif form.startswith("list"):
            values[full_name] = orjson.loads(text)
        else:
            values[full_name] = text
    return kind(**values)


@cache
def _forms(kind: type) -> dict[str, str]:
    """Field of a dataclass to its type as it is written."""
    return {item.name: str(item.type) for item in fields(kind)}
