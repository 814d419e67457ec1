"""The statistics of each source, stored a file a history file.

    statistics/{source}/20261123T234708.123456Z-{digest}.json

Each says which state of its history file it was made of, and a history file changes as a whole. Whoever needs one that
is not there, or of another state, makes it; two who do so at once write the same. One whose history file is gone is
ignored, and removed in the background. So every row counts once, without a lock between processes.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from threading import Event as Flag
from threading import Lock
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from modelmill.columns.statistics import MAX_TOP, ColumnStatistics, Numbers, TopValues
from modelmill.declare.declarations import Source
from modelmill.errors import Unavailable
from modelmill.state import bus, keys
from modelmill.state.events import EntityForgotten, RowsIngested
from modelmill.storage import Storage
from modelmill.times import iso, moment
from services.feature.definitions.catalogue import Catalogue
from services.feature.rows.schema import ARROW, EVENT_TIME
from services.feature.store import history

log = logging.getLogger(__name__)

ROWS_PER_BATCH = 250_000
"""Rows of a history file that are in memory at once."""
STATE_DIGITS = 16
ATTEMPTS = 5
"""How often the files are listed anew when one of them is gone: compaction has put its rows into another."""
PAUSE = 5.0
"""Seconds between two passes in the background, so that they take little from who ingests."""


class StatisticsFiles:
    """The statistics of all sources in one storage; those that were asked for stay in memory, merged by day."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)
        self._merged: dict[str, tuple[frozenset[tuple[str, str]], FileStatistics]] = {}
        """Source to the history files, each with its state, that are in its statistics, and these."""

    def of(self, source: Source) -> FileStatistics:
        """The statistics of all rows of a source that are stored now.

        Raises:
            Unavailable: where files go away faster than they can be read.
        """
        with self._locks[source.name]:  # who asks meanwhile wants the same files read
            for _ in range(ATTEMPTS):
                names = history.names(self.storage, source.name)
                with suppress(FileNotFoundError):
                    return self._of_files(source, names)
        raise Unavailable(f"the history files of source {source.name!r} change while they are read; try again")

    def clean(self, source: str) -> int:
        """Remove statistics whose history file is gone and return how many these were."""
        # Listed before the history: what is written meanwhile is not in this list, whoever writes it.
        stored = self.storage.names(folder(source), ".json")
        wanted = {stored_name(source, name) for name in history.names(self.storage, source)}
        gone = [name for name in stored if name not in wanted]
        for name in gone:
            with suppress(FileNotFoundError):  # another process was faster
                self.storage.files.rm_file(self.storage.path(name))
        return len(gone)

    def drop_stale(self, source: str) -> int:
        """Remove statistics that were made of a history file that is gone or another by now; return how many."""
        dropped = self.clean(source)
        for name in history.names(self.storage, source):
            stored = stored_name(source, name)
            with suppress(FileNotFoundError):
                if FileStatistics.from_json(self.storage.read(stored), self._state(name)) is None:
                    self.storage.remove(stored)
                    dropped += 1
        return dropped

    def _of_files(self, source: Source, names: list[str]) -> FileStatistics:
        known, merged = self._merged.get(source.name, (frozenset(), FileStatistics("", {})))
        states = [(name, self._state(name)) for name in names]
        if not known <= set(states):
            known, merged = frozenset(), FileStatistics("", {})
        added = [self._of_file(source, name, state) for name, state in states if (name, state) not in known]
        if added:
            merged = FileStatistics.merged([merged, *added])
        self._merged[source.name] = (frozenset(states), merged)
        return merged

    def _state(self, name: str) -> str:
        """What changes whenever the content of a file does: a hash of its size, times and the like.

        Raises:
            FileNotFoundError: where it is not there.
        """
        return str(self.storage.files.ukey(self.storage.path(name)))[:STATE_DIGITS]

    def _of_file(self, source: Source, name: str, state: str) -> FileStatistics:
        """The stored statistics of one history file in this state, made where they are not there.

        Raises:
            FileNotFoundError: where the history file is gone too.
        """
        stored, keys_of = stored_name(source.name, name), [entity.key for entity in source.entities]
        with suppress(FileNotFoundError):
            if (found := FileStatistics.from_json(self.storage.read(stored), state)) is not None:
                return found
        with self.storage.files.open(self.storage.path(name)) as file:
            batches = pq.ParquetFile(file).iter_batches(ROWS_PER_BATCH)
            parts = [FileStatistics.of(pa.Table.from_batches([batch]), keys_of) for batch in batches]
        made = FileStatistics.merged(parts)
        self.storage.write(stored, made.to_json(state))  # should the file have changed meanwhile, this is made again
        return made


def follow(files: StatisticsFiles, catalogue: Catalogue, stop: Flag, position: str, pause: float = PAUSE) -> None:
    """Keep the statistics of all sources up to date with what is ingested; runs until `stop` is set."""
    for source in catalogue.definitions.sources.values():
        _bring_up_to_date(files, source)
    for entries in bus.follow(catalogue.redis, keys.EVENTS_FEATURES, position, stop):
        sources = catalogue.definitions.sources
        told = {event.table for _, event in entries if isinstance(event, RowsIngested)} & sources.keys()
        for _, event in entries:
            if isinstance(event, EntityForgotten):  # its rows were in files whose statistics have to be made anew
                told |= {name for name, of in sources.items() if event.entity in {e.name for e in of.entities}}
        for name in sorted(told):
            _bring_up_to_date(files, sources[name])
        if told:
            stop.wait(pause)


def stored_name(source: str, name: str) -> str:
    """Where the statistics of the history file `name` are stored."""
    return f"{folder(source)}/{posixpath.basename(name).removesuffix('.parquet')}.json"


def _bring_up_to_date(files: StatisticsFiles, source: Source) -> None:
    try:
        files.of(source)
        files.clean(source.name)
    except Exception:  # whatever it is, who asks for the statistics will see it; others should go on
        log.exception("the statistics of source %r could not be made", source.name)


def folder(source: str) -> str:
    """Where the statistics of a source lie."""
    return f"statistics/{source}"


# --- the statistics of a history file: of each column and event day (UTC).

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
        return cls(iso(moment(int(times.max()))), found)

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
