"""Compute derived features with the user's functions: row by row, or a whole batch at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns.types import ERROR_LENGTH, checked, let_stop
from modelmill.declare.declarations import Feature
from modelmill.errors import sentence
from services.feature.rows.schema import ARROW

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
    values: Values = []
    errors: Errors = {}
    for position, row in enumerate(rows):
        try:
            values.append(checked(feature.function(dict(row)), feature.column))
        except BaseException as error:
            let_stop(error)
            values.append(None)
            errors[position] = sentence(error, ERROR_LENGTH)
    return values, errors


def _batch(table: pa.Table, feature: Feature) -> tuple[Values, Errors]:
    """Many rows at once, but each with the value that it gets alone.

    Rows that lack the same columns of whole numbers and truth values are together, since the types of these columns
    depend on that. Where the function raises, the rows are halved until those are found that it raises on; and what is
    of another type than declared, such as whole numbers that pandas made floats of for the sake of other rows, is
    computed again without these.
    """
    values: Values = [None] * table.num_rows
    errors: Errors = {}
    waiting = _alike(table)
    while waiting:
        rows = waiting.pop()
        whole = len(rows) == table.num_rows
        try:
            found = feature.call_batch(table if whole else table.take(rows))
        except BaseException as error:
            let_stop(error)
            if len(rows) == 1:
                errors[int(rows[0])] = sentence(error, ERROR_LENGTH)
            else:
                waiting += _split(table, rows)
            continue
        again = []
        for row, value in zip(rows.tolist(), found, strict=True):
            try:
                values[row] = checked(value, feature.column)
            except BaseException as error:
                let_stop(error)
                if isinstance(error, TypeError) and len(rows) > 1:
                    again.append(row)
                else:
                    errors[row] = sentence(error, ERROR_LENGTH)
        if len(again) == len(rows):
            waiting += _split(table, rows)
        elif again:
            waiting.append(np.array(again))
    return values, errors


def _alike(table: pa.Table) -> list[np.ndarray]:
    """The rows of a table in groups, in each of which a whole number or a truth value is missing in all or in none."""
    missing = [
        pc.is_null(column).to_numpy()
        for column in table.columns
        if column.null_count and (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type))
    ]
    if not missing:
        return [np.arange(table.num_rows)] if table.num_rows else []
    patterns = np.ascontiguousarray(np.packbits(missing, axis=0).T)  # [rows, bytes] a bit for each of these columns
    kind = pa.binary(patterns.shape[1])
    texts = pa.FixedSizeBinaryArray.from_buffers(kind, table.num_rows, [None, pa.py_buffer(patterns)])
    groups = texts.dictionary_encode().indices.to_numpy()
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _split(table: pa.Table, rows: np.ndarray) -> list[np.ndarray]:
    """Some rows in two parts: those that lack a column and those that have it, if there is one, otherwise halves."""
    for column in table.columns:
        if column.null_count:
            missing = pc.is_null(column.take(rows)).to_numpy()
            if missing.any() and not missing.all():
                return [rows[missing], rows[~missing]]
    return np.array_split(rows, 2)


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
