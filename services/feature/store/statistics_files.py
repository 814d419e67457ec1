"""The statistics of each source, stored a file a history file.

    statistics/{source}/20261123T234708.123456Z-{digest}.json

Each says which state of its history file it was made of, and a history file changes as a whole. Whoever needs one that
is not there, or of another state, makes it; two who do so at once write the same. One whose history file is gone is
ignored, and removed in the background. So every row counts once, without a lock between processes.
"""

from __future__ import annotations

import logging
import posixpath
from collections import defaultdict
from contextlib import suppress
from threading import Event as Flag
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from modelmill.declare.declarations import Source
from modelmill.errors import Unavailable
from modelmill.state import bus, keys
from modelmill.state.events import EntityForgotten, RowsIngested
from modelmill.storage import Storage
from services.feature.definitions.catalogue import Catalogue
from services.feature.store import history
from services.feature.store.statistics import FileStatistics

log = logging.getLogger(__name__)

BATCH = 250_000
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
            batches = pq.ParquetFile(file).iter_batches(BATCH)
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
