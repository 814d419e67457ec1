"""Dataclasses as fields of plain text, in hashes and in entries of streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import orjson

from modelmill.errors import encodable

Record = TypeVar("Record")
Reader = Callable[[str], Any]
READERS: dict[Any, Reader] = {str: str, int: int, float: float, int | None: lambda text: int(text) if text else None}
"""Type of a field to what reads its text; lists and dictionaries are JSON."""


def to_text(value: Any) -> str:
    """A value as one field: numbers as they print, lists and dictionaries as JSON, None as the empty string."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return orjson.dumps(value).decode() if isinstance(value, list | dict) else str(value)


@cache
def readers(kind: type) -> dict[str, Reader]:
    """Field of a dataclass to what reads the text that `to_text` made of it."""
    hints = _hints(kind)
    return {name: str if get_origin(of) is Literal else READERS.get(of, orjson.loads) for name, of in hints.items()}


def to_hash(record: Any) -> dict[str, str]:
    """A dataclass as the fields of a hash; of dictionaries each value is one, with a dotted name: `metrics.accuracy`.

    What UTF-8 cannot hold is escaped: texts may come from anybody's code.
    """
    out: dict[str, str] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, dict):
            out.update({f"{item.name}.{name}": str(inner) for name, inner in value.items()})
        else:
            out[item.name] = to_text(value)
    return {encodable(name): encodable(text) for name, text in out.items()}


def from_hash(kind: type[Record], found: Mapping[str, str]) -> Record:
    """The dataclass that `to_hash` wrote; fields that the hash lacks have their defaults."""
    single, dotted = readers(kind), _dotted(kind)  # type: ignore[arg-type]  # mypy takes an open class for unhashable
    values: dict[str, Any] = {name: {} for name in dotted}
    for full_name, text in found.items():
        name, _, inner = full_name.partition(".")
        if inner and name in dotted:
            values[name][inner] = dotted[name](text)
        elif full_name in single:
            values[full_name] = single[full_name](text)
    return kind(**values)


@cache
def _dotted(kind: type) -> dict[str, Reader]:
    return {name: READERS[get_args(of)[1]] for name, of in _hints(kind).items() if get_origin(of) is dict}


def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}
