"""Compute derived features, once, row by row, with the user's functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from modelmill.declarations import Column, Feature
from services.feature.validate import ARROW

FAILED = "_failed"
"""History column: `name: error` of each feature that failed on the row, or null."""

TYPES: dict[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "bool": (bool,), "str": (str,)}


@dataclass(frozen=True)
class Derived:
    """The table with the derived columns and `_failed` added, and how many values failed, by feature."""

    table: pa.Table
    failures: dict[str, int]


def derive(table: pa.Table, features: Mapping[str, Feature], inputs: list[str]) -> Derived:
    """Add each feature's value for each row; a function sees the columns `inputs` of its row as a dict.

    A function that raises, or returns what its dtype does not allow, leaves its value null on that row, is named in
    the row's `_failed`, and does not disturb other features or rows.
    """
    if not features:
        return Derived(table.append_column(FAILED, pa.nulls(table.num_rows, pa.string())), {})
    rows = table.select(inputs).to_pylist()
    errors: list[list[str]] = [[] for _ in rows]
    failures: dict[str, int] = {}
    for name, feature in features.items():
        values = [_value(feature, row, errors[i]) for i, row in enumerate(rows)]
        table = table.append_column(name, pa.array(values, ARROW[feature.column.dtype]))
        failures[name] = sum(any(e.startswith(f"{name}: ") for e in row) for row in errors)
    texts = ["; ".join(row) or None for row in errors]
    return Derived(table.append_column(FAILED, pa.array(texts, pa.string())), failures)


def _value(feature: Feature, row: dict[str, Any], errors: list[str]) -> Any:
    try:
        return _checked(feature.function(dict(row)), feature.column)
    except Exception as error:  # the user's code may raise anything
        errors.append(f"{feature.name}: {type(error).__name__}: {error}")
        return None


def _checked(value: Any, column: Column) -> Any:
    """`value` as what the feature declares.

    Raises:
        TypeError, ValueError: where it is something else.
    """
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if column.nullable:
            return None
        raise ValueError(f"returned {value}; expected {column.dtype} (declare dtype={column.dtype} | None to allow it)")
    if not isinstance(value, TYPES[column.dtype]) or (column.dtype != "bool" and isinstance(value, bool)):
        raise TypeError(f"returned {value!r}; expected {column.dtype}")
    if column.dtype == "float":
        if math.isinf(value):
            raise ValueError(f"returned {value}; expected a finite number")
        return float(value)
    return value
