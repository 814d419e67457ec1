"""Compute derived features with the user's functions: row by row, or a whole batch at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns import Column
from modelmill.declarations import Feature
from modelmill.values import checked, sentence
from services.feature.intake.validate import ARROW

FAILED = "_failed"
"""History column: the fields of features that failed on the row with their errors, as JSON, or null."""

Values = list[Any]
Errors = dict[int, str]
"""Position of a row to why a feature failed on it."""


@dataclass(frozen=True)
class Derived:
    """The values of features for n rows."""

    columns: dict[str, pa.Array]
    """Field to its n values; null where it is missing or failed."""
    failed: pa.Array
    """What failed on each of the n rows, as history's column `_failed`."""
    failures: dict[str, int]
    """Field to the number of rows on which its function failed."""
    examples: dict[str, str]
    """Field to the first of its errors."""


def derive(table: pa.Table, fields: Mapping[str, Feature]) -> Derived:
    """Compute each field's feature for each row of `table`; a function sees all columns of its row.

    A function that raises, or returns what its dtype does not allow, leaves its value null on that row, is named in
    the row's `_failed`, and does not disturb other features or rows.
    """
    columns: dict[str, pa.Array] = {}
    failures: dict[str, int] = {}
    examples: dict[str, str] = {}
    failed: dict[int, dict[str, str]] = {}
    rows = table.to_pylist() if any(feature.batch is None for feature in fields.values()) else []
    for field, feature in fields.items():
        values, errors = _batch(table, feature) if feature.batch else _each(rows, feature)
        columns[field] = pa.array(values, ARROW[feature.column.dtype])
        failures[field] = len(errors)
        for position, error in errors.items():
            failed.setdefault(position, {})[field] = error
            examples.setdefault(field, error)
    texts = [orjson.dumps(failed[i]).decode() if i in failed else None for i in range(table.num_rows)]
    return Derived(columns, pa.array(texts, pa.string()), failures, examples)


def _each(rows: Sequence[Mapping[str, Any]], feature: Feature) -> tuple[Values, Errors]:
    return _collect(len(rows), lambda i: feature.function(dict(rows[i])), feature.column)


def _batch(table: pa.Table, feature: Feature) -> tuple[Values, Errors]:
    """All rows at once; where that fails one by one, so that the rows that can be computed are."""
    try:
        found = call_batch(feature, table)
    except Exception:  # the user's code may raise anything
        return _collect(table.num_rows, lambda i: call_batch(feature, table.slice(i, 1))[0], feature.column)
    return _collect(table.num_rows, found.__getitem__, feature.column)


def call_batch(feature: Feature, table: pa.Table) -> list[Any]:
    """What a batch function returns for a table, as a list.

    Raises:
        ValueError: for another number of values than the table has rows; and whatever the function raises.
    """
    found = feature.function(table.to_pandas() if feature.batch == "pandas" else table)
    values = found.to_pylist() if isinstance(found, pa.Array | pa.ChunkedArray) else list(found)
    if len(values) != table.num_rows:
        raise ValueError(f"returned {len(values)} values for {table.num_rows} rows")
    return values


def _collect(count: int, compute: Callable[[int], Any], column: Column) -> tuple[Values, Errors]:
    values: Values = []
    errors: Errors = {}
    for position in range(count):
        try:
            values.append(checked(compute(position), column))
        except Exception as error:  # the user's code may raise anything
            values.append(None)
            errors[position] = sentence(error)
    return values, errors


def failed(errors: pa.ChunkedArray, field: str) -> pa.ChunkedArray:
    """On which rows the feature stored as `field` failed, as their `_failed` texts say."""
    return pc.fill_null(pc.match_substring(errors, f'"{field}":'), False)


def merged(before: pa.ChunkedArray, added: pa.Array) -> pa.ChunkedArray:
    """What failed before and what failed now, of each row."""
    if added.null_count == len(added):
        return before
    if before.null_count == len(before):
        return pa.chunked_array([added])
    both = (
        orjson.dumps({**orjson.loads(one or "{}"), **orjson.loads(other or "{}")}).decode() if one or other else None
        for one, other in zip(before.to_pylist(), added.to_pylist(), strict=True)
    )
    return pa.chunked_array([pa.array(both, pa.string())])
