"""Dataclasses as Redis hashes of plain text; dictionaries become fields with dotted names, as `metrics.accuracy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import orjson

Record = TypeVar("Record")


def to_hash(record: Any) -> dict[str, str]:
    """A dataclass as the fields of a hash; dictionaries become dotted fields, absent values empty ones."""
    out: dict[str, str] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, dict):
            out.update({f"{item.name}.{name}": str(inner) for name, inner in value.items()})
        elif isinstance(value, list):
            out[item.name] = orjson.dumps(value).decode()
        else:
            out[item.name] = "" if value is None else str(value)
    return out


def from_hash(kind: type[Record], found: Mapping[str, str]) -> Record:
    """The dataclass that `to_hash` wrote; fields that the hash lacks have their defaults."""
    values: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]  # a type variable cannot be bound to "any dataclass"
        form = str(item.type)
        if form.startswith("dict"):
            prefix = f"{item.name}."
            number = form == "dict[str, float]"
            values[item.name] = {
                name[len(prefix) :]: float(text) if number else text
                for name, text in found.items()
                if name.startswith(prefix)
            }
        elif item.name not in found:
            continue
        elif form.startswith("list"):
            values[item.name] = orjson.loads(found[item.name])
        elif form == "float":
            values[item.name] = float(found[item.name])
        elif form == "int":
            values[item.name] = int(found[item.name])
        elif form == "int | None":
            values[item.name] = int(found[item.name]) if found[item.name] else None
        else:
            values[item.name] = found[item.name]
    return kind(**values)
