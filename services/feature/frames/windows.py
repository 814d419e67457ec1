"""The values of windowed aggregates in a training frame, by the very edges that the online tiles have.

The rule: a spine row (key, t) sees the rows of its key with end - window <= event time < end, where
end = floor((t - available_after) / hop) * hop; `known` hides those that were ingested after t. A null key sees none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modelmill.windows import HUGE, INT_LIMIT, SECOND, Reading, deviation
from services.feature.rows.schema import ARROW
from services.feature.store.tile_batch import (
    Ints,
    Ranges,
    extremes,
    hashes,
    numbers,
    plain,
    present,
    range_sums,
    running,
)

AsOf = Literal["event", "known"]
GATHERED = 2_000_000
"""Rows that `known` looks at one by one at a time; bounds its memory."""


@dataclass(frozen=True)
class Rows:
    """The rows of a source, those of one ingest in its order. Times are microseconds since 1970."""

    keys: Ints
    """A number for each key; -1 for a null one, and for one that no spine row has."""
    event_times: Ints
    ingest_times: Ints


@dataclass(frozen=True)
class Spine:
    """What values are wanted for: keys, numbered as in the rows, -1 for a null one; and times."""

    keys: Ints
    times: Ints


@dataclass(frozen=True)
class Windows:
    """The windows of spine rows over a source's rows; one for each different window, hop, delay and mode.

    Each part is the windows of some spine rows, so that memory stays bounded.
    """

    parts: Callable[[], Iterator[tuple[Ints, Ranges]]]
    """Yields positions of spine rows, and their ranges of rows; together each spine row once."""
    rows: int
    """Of the spine."""

    def values(self, reading: Reading, column: pa.Array | None) -> pa.Array:
        """The aggregate's value for each spine row.

        Args:
            reading: with the window, hop and delay that these windows were made for.
            column: the source's column, by position of the row; None for an aggregate that counts rows.
        """
        column = None if column is None else plain(column)
        positions, found = [], []
        for spine, ranges in self.parts():
            positions.append(spine)
            found.append(_reduce(reading, column, ranges))
        inverse = np.empty(self.rows, np.int64)
        inverse[np.concatenate(positions)] = np.arange(self.rows)
        return pa.concat_arrays(found).take(pa.array(inverse))


def windows(reading: Reading, rows: Rows, spine: Spine, as_of: AsOf = "event") -> Windows:
    """The windows of an aggregate, and of all others with the same window, hop and delay."""
    ordered = _windows_by_event(reading, rows, spine)
    if as_of == "event":
        return Windows(lambda: iter([(np.arange(len(spine.keys)), ordered)]), len(spine.keys))
    return Windows(lambda: _known(ordered, rows, spine), len(spine.keys))


def _windows_by_event(reading: Reading, rows: Rows, spine: Spine) -> Ranges:
    hop = reading.hop * SECOND
    tile = rows.event_times // hop
    end = (spine.times - reading.available_after * SECOND) // hop
    first, last = int(tile.min(initial=2**62)), int(tile.max(initial=-(2**62)))
    span = max(last - first + 2, 1)
    keyed = np.flatnonzero(rows.keys >= 0)
    codes = rows.keys[keyed] * span + (tile[keyed] - first)
    order = _ordered(codes, rows.event_times[keyed], rows.ingest_times[keyed])
    codes = codes[order]

    def edge(at: Ints) -> Ints:
        wanted = spine.keys * span + np.clip(at - first, 0, span - 1)
        edges, by_code = np.zeros(len(wanted), np.int64), np.argsort(wanted)
        edges[by_code] = np.searchsorted(codes, wanted[by_code])  # in order, which spares the processor's caches
        return np.where(spine.keys < 0, 0, edges)

    return Ranges(keyed[order], codes, edge(end - reading.window // reading.hop), edge(end))


def _ordered(codes: Ints, event_times: Ints, ingest_times: Ints) -> Ints:
    """Positions by code, then event time, then ingest time, then position."""
    order = np.arange(len(codes))
    for column in (ingest_times, event_times, codes):
        ordered = column[order]
        if np.any(ordered[1:] < ordered[:-1]):
            order = order[np.argsort(ordered, kind="stable")]
    return order


def _known(ranges: Ranges, rows: Rows, spine: Spine) -> Iterator[tuple[Ints, Ranges]]:
    """The windows without what was not ingested by each spine row's time.

    Most windows hold only rows that were, or none that was, which their latest and their earliest ingest tell; of the
    others the rows are looked at one by one.
    """
    ingested = rows.ingest_times[ranges.order]
    latest = extremes(np.maximum, ingested, ranges.starts, ranges.ends)
    earliest = extremes(np.minimum, ingested, ranges.starts, ranges.ends)
    empty = (ranges.counts() == 0) | (earliest > spine.times)
    mixed = ~empty & (latest > spine.times)
    whole = np.flatnonzero(~mixed)
    ends = np.where(empty, ranges.starts, ranges.ends)
    yield whole, replace(ranges, starts=ranges.starts[whole], ends=ends[whole])
    left = np.flatnonzero(mixed)
    sizes = running(ranges.counts()[left])
    begin = 0
    while begin < len(left):
        end = max(begin + 1, int(np.searchsorted(sizes, sizes[begin] + GATHERED, "right")) - 1)
        yield left[begin:end], _gathered(ranges, left[begin:end], ingested, spine.times)
        begin = end


def _gathered(ranges: Ranges, chosen: Ints, ingested: Ints, times: Ints) -> Ranges:
    """The windows `chosen`, each with its own copy of its rows that were ingested by its time."""
    sizes = ranges.counts()[chosen]
    window = np.repeat(np.arange(len(chosen)), sizes)
    rows = np.arange(len(window)) - np.repeat(running(sizes)[:-1] - ranges.starts[chosen], sizes)
    known = ingested[rows] <= times[chosen][window]
    rows, window = rows[known], window[known]
    edges = np.searchsorted(window, np.arange(len(chosen) + 1))
    changes = np.ones(len(rows), bool)
    changes[1:] = (window[1:] != window[:-1]) | (ranges.tiles[rows][1:] != ranges.tiles[rows][:-1])
    return Ranges(ranges.order[rows], np.cumsum(changes), edges[:-1], edges[1:])


def _reduce(reading: Reading, column: pa.Array | None, ranges: Ranges) -> pa.Array:
    if column is None:
        return pa.array(ranges.counts())
    filled = ranges.where(present(column))
    if reading.function == "count":
        return pa.array(filled.counts())
    if reading.function == "count_distinct":
        return pa.array(hashes(column, filled).distinct())
    if reading.function == "last":
        return column.take(filled.last())
    if reading.function in ("min", "max"):
        choose = np.minimum if reading.function == "min" else np.maximum
        found = extremes(choose, numbers(column)[filled.order], filled.starts, filled.ends)
        return pa.array(found, mask=filled.counts() == 0).cast(ARROW[reading.dtype])
    return _sums(reading, numbers(column), filled)


def _sums(reading: Reading, values: NDArray[Any], ranges: Ranges) -> pa.Array:
    """Sum, mean or std; null where a window is empty or has a number that is too large to add."""
    ordered, starts, ends = values[ranges.order], ranges.starts, ranges.ends
    is_huge = np.abs(ordered) >= HUGE
    if is_huge.any():
        ordered = np.where(is_huge, 0, ordered)
    huge, counts = running(is_huge), ranges.counts()
    null = (counts == 0) | (huge[ends] > huge[starts])
    sums = range_sums(ordered, starts, ends)
    if reading.function == "sum":
        if reading.dtype == "float":
            return pa.array(sums.rounded(), mask=null)
        null |= (np.abs(sums.units) >= INT_LIMIT).astype(bool)
        return pa.array(np.where(null, 0, sums.units).astype(np.int64), mask=null)
    if reading.function == "mean":
        return pa.array(sums.rounded() / np.maximum(counts, 1), mask=null)
    squares = range_sums(ordered, starts, ends, squared=True)
    found = [
        None if absent else deviation(count, (n, sums.scale), (m, squares.scale))
        for absent, count, n, m in zip(
            null.tolist(), counts.tolist(), sums.units.tolist(), squares.units.tolist(), strict=True
        )
    ]
    return pa.array(found, pa.float64())
