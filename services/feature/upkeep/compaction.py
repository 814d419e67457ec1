"""Small history files become large ones, in the background, without stopping readers or writers.

Files that follow each other in a day and have the same columns are written into one, whose name spans theirs and
which takes their place the moment it is there (see `services.feature.store.history`); then they are removed. Where
this is killed in between, the next compaction removes what was left.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag

import pyarrow as pa

from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.state.connections import AWAY
from modelmill.storage import Storage
from services.feature.definitions.catalogue import Catalogue
from services.feature.store import history, journal
from services.feature.store.history import FileSpan
from services.feature.store.journal import alone

log = logging.getLogger(__name__)

COMPACTION_SECONDS = 10.0
"""Seconds between two looks."""
MIN_FILES = 16
"""Files that are worth to be made one."""
LARGEST = 64 * 1024 * 1024
"""Bytes of a file from which on it is left as it is, and that one compaction reads at most."""


def watch(catalogue: Catalogue, stop: Flag) -> None:
    """Compact all sources, again and again, until `stop` is set."""
    while not stop.wait(COMPACTION_SECONDS):
        for source in catalogue.definitions.sources:
            try:
                compact(catalogue, source)
            except (*AWAY, Conflict):
                continue
            except Exception:
                log.exception("cannot compact the history of %s, trying again", source)


def compact(catalogue: Catalogue, source: str, *, fewest: int = MIN_FILES) -> int:
    """Compact the history of one source as far as it is worth it; return the number of files that were taken up.

    Columns of features that nothing needs any more are left out.
    """
    redis, storage = catalogue.redis, catalogue.storage
    remove_superseded(storage, source)
    oldest = journal.oldest_open(redis, source)  # its rows may still come into the history, before those of others
    until = f"{oldest:{history.STAMP}}" if oldest else "~"
    names = [name for name in history.names(storage, source) if FileSpan.of(name).last < until]
    computed = catalogue.state.computed[source].keys()
    taken = 0
    for run in _runs(storage, names, computed):
        if len(run.names) >= fewest:
            with alone(redis, keys.history_lock(source), f"rewriting {source}", patience=1.0) as still_alone:
                merge(storage, run, still_alone)
            taken += len(run.names)
    return taken


@dataclass
class Run:
    """Neighbours of one day that are small, have the same columns and are together not too large."""

    day: str
    columns: list[str]
    names: list[str] = field(default_factory=list)
    size: int = 0


def merge(storage: Storage, run: Run, still_alone: Callable[[], bool]) -> str:
    """Make one file of several and return its name.

    Raises:
        Conflict: where this process lost the history's lock meanwhile; nothing was changed.
    """
    first, last = FileSpan.of(run.names[0]).first, FileSpan.of(run.names[-1]).last
    merged = f"{run.day}/{first}{history.SPAN}{last}{history.SUFFIX}"
    table = pa.concat_tables(history.read_whole(storage, name, run.columns) for name in run.names)
    history.write(storage, merged, table, confirm=still_alone)
    for name in run.names:
        if name != merged:
            storage.remove(name)
    log.info("compacted %d files with %d rows into %s", len(run.names), table.num_rows, merged)
    return merged


def remove_superseded(storage: Storage, source: str) -> None:
    """Remove the files whose rows are in a compacted one."""
    found = storage.names(history.folder(source), history.SUFFIX)
    for name in set(found) - set(history.current(found)):
        storage.remove(name)


def _runs(storage: Storage, names: Sequence[str], computed: Collection[str]) -> Iterator[Run]:
    run = Run("", [])
    for name in names:
        size = storage.size(name)
        columns = [c for c in history.stored_columns(storage, name) if "@" not in c or c in computed]
        day = posixpath.dirname(name)
        if (day, columns) != (run.day, run.columns) or run.size + size > LARGEST:
            yield run
            run = Run(day, columns)
        if size < LARGEST // 2:
            run.names.append(name)
            run.size += size
        else:  # large enough as it is
            yield run
            run = Run(day, columns)
    yield run
