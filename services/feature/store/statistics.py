"""The statistics of a history file: of each column and event day (UTC)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from modelmill.columns.statistics import MAX_TOP, ColumnStatistics, Numbers, TopValues
from modelmill.state.events import iso
from services.feature.intake.validate import ARROW, EVENT_TIME

DTYPES = {kind: dtype for dtype, kind in ARROW.items()}
"""How Arrow holds a column to its type."""
DAY = 86_400_000_000
"""Microseconds."""
MAX_DAYS = 4000
"""Event days that are described, about eleven years; of more the newest ones."""
LABEL = 200
"""Characters of a text up to which it is counted under itself."""

LAYOUT = 1
"""Of the stored statistics; those of another one are made anew."""

Days = dict[date, dict[str, ColumnStatistics]]
"""Event day to the statistics of each column."""


@dataclass(frozen=True)
class FileStatistics:
    """What is known of the rows of some history files."""

    newest: str
    """The newest event time, as text that compares; empty where there are no rows."""
    days: Days

    @classmethod
    def of(cls, table: pa.Table, keys: Collection[str] = ()) -> FileStatistics:
        """The statistics of a table's columns by the day of `_event_time`.

        Join keys and what starts with _ are left out: they say who and when, not what.
        """
        if not table.num_rows:
            return cls("", {})
        times = table[EVENT_TIME].cast(pa.int64()).to_numpy()
        table, numbers = _newest_days(table, times // DAY)
        order, starts, days = _groups(numbers)
        found: Days = {day: {} for day in days}
        for name in table.column_names:
            if not name.startswith("_") and name not in keys and table.schema.field(name).type in DTYPES:
                column = table[name].combine_chunks().take(order) if len(days) > 1 else table[name].combine_chunks()
                for day, statistics in zip(days, _column(column, starts), strict=True):
                    found[day][name] = statistics
        newest = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(times.max()))
        return cls(iso(newest), found)

    @classmethod
    def merged(cls, parts: list[FileStatistics]) -> FileStatistics:
        """Those of all rows of several; a column's type is that of the first."""
        days: dict[date, dict[str, list[ColumnStatistics]]] = {}
        for part in parts:
            for day, columns in part.days.items():
                collected = days.setdefault(day, {})
                for name, statistics in columns.items():
                    collected.setdefault(name, []).append(statistics)
        return cls(
            max((part.newest for part in parts), default=""),
            {
                day: {name: ColumnStatistics.merged(found) for name, found in days[day].items()}
                for day in sorted(days)[-MAX_DAYS:]
            },
        )

    def between(self, start: date | None, end: date | None) -> dict[str, dict[date, ColumnStatistics]]:
        """By column of the history and day what is known of the days with start <= day < end."""
        found: dict[str, dict[date, ColumnStatistics]] = {}
        for day, columns in self.days.items():
            if (start is None or day >= start) and (end is None or day < end):
                for name, statistics in columns.items():
                    found.setdefault(name, {})[day] = statistics
        return found

    def null_share(self, column: str) -> float | None:
        """The share of all rows that lack a value of `column`; None where there are no rows."""
        found = [columns[column] for columns in self.days.values() if column in columns]
        rows = sum(statistics.count + statistics.nulls for statistics in found)
        return sum(statistics.nulls for statistics in found) / rows if rows else None

    def to_json(self, state: str) -> bytes:
        """As it is stored, with the state of the rows that it was made of."""
        days = {
            day.isoformat(): {name: statistics.to_json() for name, statistics in columns.items()}
            for day, columns in self.days.items()
        }
        return orjson.dumps({"layout": LAYOUT, "state": state, "newest": self.newest, "days": days})

    @classmethod
    def from_json(cls, content: bytes, state: str) -> FileStatistics | None:
        """What `to_json` wrote; None where that was another version of it, or of another state of the rows."""
        stored = orjson.loads(content)
        if (stored["layout"], stored["state"]) != (LAYOUT, state):
            return None
        return cls(
            stored["newest"],
            {
                date.fromisoformat(day): {name: ColumnStatistics.from_json(s) for name, s in columns.items()}
                for day, columns in stored["days"].items()
            },
        )


def _newest_days(table: pa.Table, numbers: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows of the newest `MAX_DAYS` days, and the number of the day of each."""
    days = np.unique(numbers)
    if len(days) <= MAX_DAYS:
        return table, numbers
    kept = numbers >= days[-MAX_DAYS]
    return table.filter(pa.array(kept)), numbers[kept]


def _groups(numbers: NDArray[np.int64]) -> tuple[pa.Array, list[int], list[date]]:
    """The order that brings rows of a day together, where each day begins (and the last ends), and the days."""
    order = np.argsort(numbers, kind="stable")
    days, starts = np.unique(numbers[order], return_index=True)
    dates = [date(1970, 1, 1) + timedelta(days=int(day)) for day in days]
    return pa.array(order), [*starts.tolist(), len(numbers)], dates


def _column(column: pa.Array, starts: list[int]) -> Iterator[ColumnStatistics]:
    """The statistics of each stretch of a column from one of `starts` to the next."""
    dtype = DTYPES[column.type]
    valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
    values = pc.fill_null(column, 0).to_numpy() if dtype in ("float", "int") else None
    if dtype == "float" and values is not None:
        valid &= np.isfinite(values)
    ranks, distinct = (None, column) if dtype == "float" else _ranked(column)
    for start, end in pairwise(starts):
        there = valid[start:end]
        count = int(there.sum())
        numbers = top = None
        if values is not None and count:
            present = values[start:end][there]
            numbers = Numbers.of(present.astype(np.float64), present.min().item(), present.max().item())
        if ranks is not None:
            top = _top(ranks[start:end][there], distinct)
        yield ColumnStatistics(dtype, count, len(there) - count, numbers, top)


def _ranked(column: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Each value as its place among the distinct ones, and these in order; a missing value has any place."""
    encoded = column.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    ranks = np.zeros(len(order) + 1, np.int64)
    ranks[order.to_numpy()] = np.arange(len(order))
    return ranks[pc.fill_null(encoded.indices, len(order)).to_numpy()], encoded.dictionary.take(order)


def _top(ranks: NDArray[np.int64], distinct: pa.Array) -> TopValues:
    found, counts = np.unique(ranks, return_counts=True)
    order = np.argsort(-counts, kind="stable")  # `found` is in order, so that equal counts stay in that of the values
    kept = order[:MAX_TOP]
    labels = map(_label, distinct.take(pa.array(found[kept])).to_pylist())
    error = int(counts[order[MAX_TOP]]) if len(order) > MAX_TOP else 0
    return TopValues(dict(zip(labels, counts[kept].tolist(), strict=True)), error)


def _label(value: Any) -> Any:
    """The value; of a long text its beginning with a hash of the whole."""
    if not isinstance(value, str) or len(value) <= LABEL:
        return value
    return f"{value[:LABEL]}… {hashlib.sha256(value.encode()).hexdigest()[:8]}"
