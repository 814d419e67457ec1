"""Compute features for rows that were ingested before the feature was declared or changed, and tell how far that is."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
import pyarrow as pa

from modelmill.declare.declarations import Feature, Source
from modelmill.declare.definitions import Definitions
from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.feature.rows.derive import FAILED, derive, merged
from services.feature.rows.schema import EVENT_TIME
from services.feature.store import history, online
from services.feature.store.journal import alone

log = logging.getLogger(__name__)

HISTORY_WAIT_SECONDS = 60.0
"""Seconds to wait for others who are rewriting the history of a source."""

Computed = Mapping[str, Mapping[str, Feature]]
"""Source to what is computed from its rows: field to feature."""
Tell = Callable[[int, int], None]
"""Told after each file how many rows are done, and how many there are."""


@dataclass
class Failures:
    """How often features failed on the stored rows of a source."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Field to the rows on which it failed."""
    examples: dict[str, str] = field(default_factory=dict)
    """Field to one of its errors."""


def backfill(redis: Redis, storage: Storage, definitions: Definitions, computed: Computed, tell: Tell) -> int:
    """Add what is `computed` to every history file that lacks it, and to the online store; return the rows.

    A file is skipped once it has all columns: killed at any point, the next call goes on where this one stopped.
    """
    done = 0
    while stale := _stale(storage, definitions, computed):  # again: a file may have been compacted away meanwhile
        rows = done + sum(history.count_rows(storage, name) for _, name in stale)
        for source, name in stale:
            tell(done, rows)
            done += add_fields(redis, storage, source, name, computed[source.name])
        tell(done, rows)
    return done


def put_online(redis: Redis, storage: Storage, source: Source, fields: Collection[str]) -> None:
    """Write those of `fields` online that the history has already; rows that are online with newer ones stay.

    Raises:
        Conflict: where others are rewriting the history of this source for longer than `HISTORY_WAIT_SECONDS`.
    """
    if source.entity is None:
        return
    beside = [source.entity.key, EVENT_TIME, history.INGEST_TIME, FAILED]
    with alone(redis, keys.history_lock(source.name), f"rewriting {source.name}", patience=HISTORY_WAIT_SECONDS):
        for name in history.names(storage, source.name):
            stored = [field for field in history.stored_columns(storage, name) if field in fields]
            if stored:
                online.write(redis, source, stored, history.read_whole(storage, name, [*beside, *stored]))


def _stale(storage: Storage, definitions: Definitions, computed: Computed) -> list[tuple[Source, str]]:
    """The history files that lack a column of what is computed."""
    return [
        (source, name)
        for source in definitions.sources.values()
        if (fields := computed.get(source.name))
        for name in history.names(storage, source.name)
        if not fields.keys() <= set(history.stored_columns(storage, name))
    ]


def add_fields(redis: Redis, storage: Storage, source: Source, name: str, fields: Mapping[str, Feature]) -> int:
    """Compute the `fields` that a history file lacks, write them online, then replace the file; return its rows.

    The file comes last, so that it has no column whose values are not online.

    Raises:
        Conflict: where others are rewriting the history of this source for longer than `HISTORY_WAIT_SECONDS`.
    """
    if fields.keys() <= set(history.stored_columns(storage, name)):
        return 0
    with alone(
        redis, keys.history_lock(source.name), f"rewriting {source.name}", patience=HISTORY_WAIT_SECONDS
    ) as still_alone:
        try:
            table = history.read_whole(storage, name)
        except FileNotFoundError:  # compacted meanwhile: the backfill finds the file that has its rows
            return 0
        missing = {field: feature for field, feature in fields.items() if field not in table.column_names}
        derived = derive(inputs_of(table, source), missing)
        for field, values in derived.columns.items():
            table = table.append_column(field, values)
        failed = merged(table[FAILED], derived.failed)
        table = table.drop_columns(FAILED).append_column(FAILED, failed)
        if source.entity is not None:
            online.write(redis, source, list(missing), table)
        history.write(storage, name, table, confirm=still_alone)
    log.info("computed %s in %s", ", ".join(missing), name)
    return int(table.num_rows)


def inputs_of(table: pa.Table, source: Source) -> pa.Table:
    """The columns that feature functions see: join keys and columns, null where the rows have none."""
    wanted = history.schema_of_rows(source)
    for column in wanted:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table.select(wanted.names)


def require_few_failures(storage: Storage, definitions: Definitions, before: Definitions) -> dict[str, int]:
    """Feature that `before` lacks to the number of stored rows on which it fails, if any.

    Raises:
        Conflict: where one fails on a greater share of them than it declares.
    """
    found: dict[str, int] = {}
    refusals: list[str] = []
    for source in definitions.sources:
        new = {name: f for name, f in definitions.derived(source).items() if name not in before.derived(source)}
        counted = failures(storage, source, new) if new else Failures()
        for name, feature in new.items():
            count = counted.counts[name]
            found |= {feature.name: count} if count else {}
            if count > feature.max_failed * counted.rows:
                refusals.append(
                    f"feature {feature.name!r} fails on {count} of {counted.rows} stored rows, for instance with"
                    f" {counted.examples[name]!r}; its max_failed is {feature.max_failed:g}, so the former definitions"
                    " stay in force"
                )
    if refusals:
        raise Conflict("; ".join(refusals), reasons=refusals)
    return found


def failures(storage: Storage, source: str, fields: Mapping[str, Feature]) -> Failures:
    """How often each of `fields` failed on all stored rows."""
    found = Failures()
    for name in history.names(storage, source):
        column = history.read_whole(storage, name, [FAILED])[FAILED]
        found.rows += len(column)
        for text in column.drop_null().to_pylist():
            for one, error in orjson.loads(text).items():
                if one in fields:
                    found.counts[one] += 1
                    found.examples.setdefault(one, error)
    return found


# --- how far an application of definitions has come, in Redis, for whoever waits for it.


@dataclass(frozen=True)
class Progress:
    """Writes and reads the hash `definitions:backfill`."""

    redis: Redis

    def begin(self, fingerprint: str) -> None:
        """Record that definitions with this fingerprint are going to be applied."""
        begun = {
            "fingerprint": fingerprint,
            "state": "running",
            "started": utc_now(),
            "rows": 0,
            "total": 0,
            "error": "",
        }
        self.redis.hset(keys.BACKFILL, mapping=begun)

    @contextmanager
    def recording(self, fingerprint: str) -> Iterator[Tell]:
        """Record that they are applied inside the block; yields what tells how many rows are computed."""
        self.begin(fingerprint)
        try:
            yield lambda rows, total: self.redis.hset(keys.BACKFILL, mapping={"rows": rows, "total": total})
        except Exception as error:
            self.redis.hset(keys.BACKFILL, mapping={"state": "failed", "error": str(error), "ended": utc_now()})
            raise
        self.redis.hset(keys.BACKFILL, mapping={"state": "done", "ended": utc_now()})

    def read(self) -> dict[str, str | int]:
        """The last one: fingerprint, state (running, done or failed), rows done and in all, times, error."""
        found: dict[str, str] = self.redis.hgetall(keys.BACKFILL)
        return {name: int(text) if name in ("rows", "total") else text for name, text in found.items()}
