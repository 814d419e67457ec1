"""Compute derived features, once, row by row, with the user's functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declarations import Column, Feature
from services.feature.validate import ARROW, EXPECTED, INT_LIMIT

FAILED = "_failed"
"""History column: `name: error` of each feature that failed on the row, or null."""

ERROR_LENGTH = 200
"""Characters of an error that are kept."""
TYPES: dict[str, Any] = {"float": float | int, "int": int, "bool": bool, "str": str}


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
    errors: dict[int, list[str]] = {}
    failures = dict.fromkeys(features, 0)
    for name, feature in features.items():
        values: list[Any] = []
        for position, row in enumerate(rows):
            try:
                values.append(_checked(feature.function(dict(row)), feature.column))
            except Exception as error:  # the user's code may raise anything
                values.append(None)
                failures[name] += 1
                errors.setdefault(position, []).append(f"{name}: {_sentence(error)}")
        table = table.append_column(name, pa.array(values, ARROW[feature.column.dtype]))
    texts = ["; ".join(errors[position]) if position in errors else None for position in range(len(rows))]
    return Derived(table.append_column(FAILED, pa.array(texts, pa.string())), failures)


def failed(errors: pa.ChunkedArray, feature: str) -> pa.ChunkedArray:
    """On which rows `feature` failed, as their `_failed` texts say."""
    return pc.fill_null(pc.match_substring_regex(errors, rf"(^|; ){re.escape(feature)}: "), False)


def _sentence(error: Exception) -> str:
    """The error, short enough to be kept with every row."""
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH].encode(errors="replace").decode()


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
    dtype = column.dtype
    if not isinstance(value, TYPES[dtype]) or (dtype != "bool" and isinstance(value, bool)):
        raise TypeError(f"returned {value!r}; expected {dtype}")
    if dtype == "str":
        value.encode()  # raises for a lone surrogate, which is no text
    elif (dtype == "float" and math.isinf(value := float(value))) or (dtype == "int" and abs(value) >= INT_LIMIT):
        raise ValueError(f"returned {value}; expected {EXPECTED[dtype]}")
    return value
