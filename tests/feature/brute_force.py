"""Windowed aggregates by the letter of their rule, one row after another, in fractions; and histories to try it on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from modelmill.windows import FUNCTIONS, ROWS, Reading, Scalar, TileGroup, hashed, value_text
from services.feature.frames.windows import Rows, Spine
from services.feature.rows.schema import ARROW, EVENT_TIME, TIME
from services.feature.store.history import INGEST_TIME

SECOND, MINUTE = 1_000_000, 60_000_000
START = 1_359_608_400 * SECOND
"""2013-01-31T05:00Z."""
NUMERIC = ("sum", "mean", "min", "max", "std")


@dataclass(frozen=True)
class Row:
    key: str | None
    event_time: int
    ingest_time: int
    value: Scalar


def brute_force(reading: Reading, rows: Sequence[Row], key: str | None, t: int, *, known: bool = False) -> Scalar:
    """The value of an aggregate; `rows` are in the order of their ingest."""
    hop, window = reading.hop * SECOND, reading.window * SECOND
    end = math.floor(Fraction(t - reading.available_after * SECOND, hop)) * hop
    seen = [
        row
        for row in rows
        if key is not None and row.key == key and end - window <= row.event_time < end
        if not known or row.ingest_time <= t
    ]
    seen.sort(key=lambda row: (row.event_time, row.ingest_time))
    if reading.column == ROWS:
        return len(seen)
    values = [row.value for row in seen if row.value is not None]
    return of_values(reading, [value + 0.0 for value in values] if reading.dtype == "float" else values)


def of_values(reading: Reading, values: list[Scalar]) -> Scalar:
    """The value of an aggregate over these values, oldest first."""
    if reading.function == "count":
        return len(values)
    if reading.function == "count_distinct":
        hashes = sorted({hashed(value_text(value)) for value in values})
        return len(hashes) if len(hashes) < 256 else (255 << 64) // (hashes[255] + 1)
    if not values:
        return None
    if reading.function == "last":
        return values[-1]
    if reading.function in ("min", "max"):
        return min(values) if reading.function == "min" else max(values)
    if any(abs(value) >= 2.0**480 for value in values):
        return None
    total = sum(map(Fraction, values))
    if reading.function == "sum":
        return float(total) if reading.dtype == "float" else int(total) if abs(total) < 2**63 else None
    if reading.function == "mean":
        return float(total) / len(values)
    if len(values) < 2:
        return None
    squares = sum(Fraction(v) ** 2 for v in values if reading.dtype != "float" or abs(v) >= 2.0**-480)
    variance = (len(values) * squares - total**2) / (len(values) * (len(values) - 1))
    return math.sqrt(float(max(variance, Fraction(0))))


def readings_of(history: History) -> list[Reading]:
    """Every function over the history's column, and the count of its rows."""
    functions = (replace(history.reading, function=function) for function in functions_of(history.reading.dtype))
    return [*functions, replace(history.reading, column=ROWS)]


def functions_of(dtype: str) -> list[str]:
    return [name for name in FUNCTIONS if dtype != "str" or name not in NUMERIC]


VALUES: dict[str, st.SearchStrategy[Scalar]] = {
    "float": st.one_of(
        st.floats(-100, 100).map(lambda x: round(x, 1)),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, -0.0, 1e16, 1.0, -1e16, 0.1, 5e-324, 2.0**480, 1e154, 1e-160, 1.7e308, -1.7e308]),
    ),
    "int": st.one_of(
        st.integers(-3, 3),
        st.tuples(st.sampled_from([-(10**17), 10**17]), st.integers(-3, 3)).map(sum),  # one double, other digits
        st.integers(-(10**18) + 1, 10**18 - 1),
    ),
    "bool": st.booleans(),
    "str": st.one_of(st.sampled_from(["a", "b", 'é"/\\\x00\x7f']), st.text(st.characters(exclude_categories=["Cs"]))),
}


@dataclass(frozen=True)
class History:
    """What a source's rows were, ingest by ingest, and at which times values are wanted."""

    reading: Reading
    batches: list[list[Row]]
    """In the order of their ingest times."""
    arrivals: list[int]
    """Numbers of batches in the order in which they reach the tiles; each at least once."""
    spine: list[tuple[str | None, int]]

    @property
    def rows(self) -> list[Row]:
        return [row for batch in self.batches for row in batch]

    @property
    def unsorted(self) -> list[Row]:
        """The rows with those of one ingest together and in their order, but ingests in any order."""
        return [row for number in dict.fromkeys(self.arrivals) for row in self.batches[number]]

    @property
    def now(self) -> int:
        """A time after all ingests."""
        return max((batch[0].ingest_time for batch in self.batches), default=START) + 1


@st.composite
def histories(draw: st.DrawFn) -> History:
    dtype = draw(st.sampled_from(list(ARROW)))
    hop, tiles = draw(st.sampled_from([60, 300, 86_400])), draw(st.sampled_from([1, 2, 5, 24]))
    delay = draw(st.sampled_from([0, 1, 60, 299, 7200]))
    reading = Reading("count", "x", dtype, hop * tiles, hop, delay)
    edges = st.integers(-3, tiles + 3).map(lambda tile: START + tile * hop * SECOND)
    moments = st.one_of(edges, st.tuples(edges, st.integers(-2, hop * SECOND)).map(sum))
    keys = st.sampled_from(["a", "a", "b:é c"])
    times = st.sampled_from(draw(st.lists(moments, min_size=1, max_size=4))) | moments  # so that there are ties
    values = st.none() | VALUES[dtype]
    ingests = sorted(draw(st.sets(times, max_size=5)))
    batches = [
        [
            Row(key, time, ingest, value)
            for key, time, value in draw(st.lists(st.tuples(keys, times, values), min_size=1, max_size=12))
        ]
        for ingest in ingests
    ]
    numbers = list(range(len(batches)))
    arrivals = [
        *draw(st.permutations(numbers)),
        *draw(st.lists(st.sampled_from(numbers), max_size=3) if numbers else st.just([])),
    ]
    nearly = st.tuples(times, st.integers(-1, 1)).map(sum)
    spine = draw(st.lists(st.tuples(keys | st.none(), nearly), max_size=8))
    return History(reading, batches, arrivals, spine)


def table_of(rows: Sequence[Row], dtype: str) -> pa.Table:
    return pa.table(
        {
            "k": pa.array([row.key for row in rows], pa.string()),
            EVENT_TIME: pa.array([row.event_time for row in rows], TIME),
            INGEST_TIME: pa.array([row.ingest_time for row in rows], TIME),
            "x": pa.array([row.value for row in rows], ARROW[dtype]),
        }
    )


def rows_of(rows: Sequence[Row], codes: dict[str | None, int]) -> Rows:
    return Rows(
        np.array([codes[row.key] for row in rows], np.int64),
        np.array([row.event_time for row in rows], np.int64),
        np.array([row.ingest_time for row in rows], np.int64),
    )


def spine_of(spine: Sequence[tuple[str | None, int]], codes: dict[str | None, int]) -> Spine:
    return Spine(np.array([codes[key] for key, _ in spine], np.int64), np.array([time for _, time in spine], np.int64))


def group_of(reading: Reading) -> TileGroup:
    """Tiles with every statistic that the column may have, and its rows."""
    statistics = {("x", s) for name in functions_of(reading.dtype) for s in FUNCTIONS[name]} | {(ROWS, "count")}
    dtypes = (("x", reading.dtype), (ROWS, "int"))
    return TileGroup(
        "s", "e", "k", reading.hop, reading.window + reading.available_after, tuple(sorted(statistics)), dtypes
    )
