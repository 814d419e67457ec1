"""Rows in: validate, derive, append to history, write online, tell. A row that was acknowledged is in the history.

Each step may be done again without changing anything (see `services.feature.store.journal`), so that a request can be
brought to its end by whoever comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from modelmill.declare.declarations import Source
from modelmill.errors import Conflict, ExpectationFailed, InvalidRows, Rejection, Unavailable, Violation
from modelmill.state.connections import Redis
from modelmill.state.events import RowsIngested
from modelmill.storage import Storage
from modelmill.times import iso, micros
from services.feature.definitions.catalogue import Catalogue, InForce
from services.feature.intake import quarantine
from services.feature.intake.decode import RawRows
from services.feature.intake.validate import ValidRows, validate
from services.feature.rows.derive import FAILED, Derived, derive
from services.feature.rows.schema import EVENT_TIME, TIME
from services.feature.store import history, journal, online, tile_groups
from services.feature.store.backfill import add_fields
from services.feature.store.journal import Entry


@dataclass(frozen=True)
class Ingested:
    """What became of the rows of one request."""

    accepted: int
    """Rows that are in the history now, and were not before."""
    rejected: int
    late: int
    """Accepted rows of entities of which a newer row was online already; they are in the history alone."""
    duplicate: int
    """Rows of a request that had been done before, and are in the history still; nothing was done again."""
    reasons: list[Rejection]
    """Of the first rejected rows."""
    failed_features: dict[str, int]
    """Feature to the number of rows on which its function failed."""
    file: str
    """The history file that holds the accepted rows; empty where none was accepted."""
    ingest_time: str
    """Of all accepted rows, as an ISO time."""


def ingest(
    catalogue: Catalogue,
    source_name: str,
    raw: RawRows,
    digest: str,
    *,
    content: str = "",
    skip_bad: bool,
    request_id: str = "",
) -> Ingested:
    """Store the rows of `raw` in history and, where the source is about one entity, online; once for each `digest`.

    With `skip_bad` rejected rows go to the quarantine, under `request_id` if the client gave one. `content` is as in
    `journal.begin`.

    Raises:
        UnknownName: for an undeclared source.
        InvalidRequest: for missing or undeclared columns, or where `digest` stood for another content before.
        InvalidRows: where rows are bad and `skip_bad` is not set; nothing was stored.
        ExpectationFailed: where the good rows are not what the source expects of a batch; nothing was stored.
        redis.ConnectionError: where Redis is away. What was stored by then will be online when it is back, whether
            or not the request is sent again.
        Unavailable: where the request was given up by others, since this process had been stopped for long.
    """
    state = catalogue.state
    source = state.definitions.source(source_name)
    valid = validate(source, raw)
    if valid.rejected and not skip_bad:
        raise InvalidRows(source.name, valid.rejected, valid.total, valid.reasons)
    check(source, valid.table)

    def quarantined(entry: Entry) -> None:
        quarantine.keep(catalogue.redis, raw, valid, entry, request_id)

    return _store(catalogue, state, source, valid, digest, content, quarantined)


def _store(
    catalogue: Catalogue,
    state: InForce,
    source: Source,
    valid: ValidRows,
    digest: str,
    content: str = "",
    keep_rejected: Callable[[Entry], None] = lambda _: None,
) -> Ingested:
    redis, storage = catalogue.redis, catalogue.storage
    derived = derive(valid.table.select(history.schema_of_rows(source).names), state.computed[source.name])
    failed = {f.name: n for field, f in state.computed[source.name].items() if (n := derived.failures[field])}
    draft = Ingested(valid.table.num_rows, valid.rejected, 0, 0, valid.reasons, failed, "", "")
    entry = journal.begin(redis, source.name, digest, asdict(draft), content)
    if entry.answer is not None:
        return _answered_before(catalogue, state, source, valid, entry, repeated(entry.answer))
    keep_rejected(entry)
    if not valid.table.num_rows:
        answer = asdict(draft)
        journal.finish(redis, entry, answer, _event(source, answer))
        return draft
    name = history.holding(storage, source.name, entry.ingested) if entry.repeated else None
    if name is None:
        table = _complete(valid.table, derived, state, source, entry.ingested)
        name = history.name_of(source.name, entry.ingested, digest)
        # Another process may have brought it to its end, if this one was stopped: then the file is not ours to write.
        with suppress(Conflict):
            history.write(storage, name, table, confirm=lambda: journal.is_open(redis, entry))
        now = journal.current(redis, entry)
        if now is None:
            storage.remove(name)
            raise Unavailable(
                "this request took so long that it was given up, and nothing of it is stored; send it again"
            )
        if now.answer is not None:
            return repeated(now.answer)
        return finish(catalogue, state, source, entry, name, table)
    return finish(catalogue, state, source, entry, name, history.rows_of(storage, name, entry.ingested))


def _answered_before(
    catalogue: Catalogue, state: InForce, source: Source, valid: ValidRows, entry: Entry, done: Ingested
) -> Ingested:
    """The answer to a request that had been done before; those of its rows that were erased since are stored anew."""
    erased = _erased(catalogue.storage, source, valid.table, entry, done.duplicate)
    if not erased.num_rows:
        return done
    digest = journal.digest_of(source.name, b"erased", entry.digest.encode(), iso(entry.ingested).encode())
    again = _store(catalogue, state, source, ValidRows(erased, erased.num_rows, 0, []), digest)
    kept = done.duplicate - erased.num_rows
    return replace(again, rejected=done.rejected, reasons=done.reasons, duplicate=kept + again.duplicate)


def _erased(storage: Storage, source: Source, rows: pa.Table, entry: Entry, accepted: int) -> pa.Table:
    """Those `rows` of a request, of which so many were `accepted`, that are not in the history any more.

    What is erased is erased by key, with all rows that name it.
    """
    names = [entity.key for entity in source.entities]
    stored = history.of_ingest(storage, source.name, entry.ingested, names)
    if stored.num_rows >= accepted:
        return rows.slice(0, 0)
    if not stored.num_rows:
        return rows
    there = set(zip(*(stored[name].to_pylist() for name in names), strict=True))
    named = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return rows.filter(pa.array([one not in there for one in named], pa.bool_()))


def repeated(answer: Mapping[str, Any]) -> Ingested:
    """The answer to a request that had been done before."""
    reasons = [Rejection(**reason) for reason in answer["reasons"]]
    return Ingested(**{**answer, "reasons": reasons, "duplicate": answer["accepted"], "accepted": 0, "late": 0})


def finish(catalogue: Catalogue, state: InForce, source: Source, entry: Entry, name: str, table: pa.Table) -> Ingested:
    """Bring a request to its end whose rows, `table`, are in the history file `name`."""
    redis = catalogue.redis
    late = _write_online(redis, state, source, table)
    _add_to_tiles(redis, state, entry, table)
    catalogue.catch_up()
    if catalogue.state is not state and (now := catalogue.definitions.sources.get(source.name)) is not None:
        _write_online(redis, catalogue.state, source, table)
        add_fields(redis, catalogue.storage, now, name, catalogue.state.computed[now.name])
        _add_to_tiles(redis, catalogue.state, entry, table)
    draft = entry.draft
    answer = {**draft, "late": late, "file": name, "ingest_time": iso(entry.ingested)}
    if not journal.finish(redis, entry, answer, _event(source, answer)):  # another was told that they are accepted
        return repeated(answer)
    return Ingested(**{**answer, "reasons": [Rejection(**reason) for reason in answer["reasons"]]})


def _event(source: Source, answer: Mapping[str, Any]) -> RowsIngested:
    return RowsIngested(
        source="feature",
        table=source.name,
        accepted=answer["accepted"],
        rejected=answer["rejected"],
        late=answer["late"],
        failed_features=sum(answer["failed_features"].values()),
        ingest_time=answer["ingest_time"],
    )


def _complete(rows: pa.Table, derived: Derived, state: InForce, source: Source, ingested: datetime) -> pa.Table:
    """The rows as the history has them."""
    for column in (history.INGEST_TIME, *(() if source.event_time else (EVENT_TIME,))):
        rows = rows.append_column(column, pa.repeat(pa.scalar(ingested, TIME), rows.num_rows))
    for field, values in derived.columns.items():
        rows = rows.append_column(field, values)
    fields = [(field, feature.column) for field, feature in state.computed[source.name].items()]
    rows = rows.append_column(FAILED, derived.failed).select(history.schema(state.definitions, source, fields).names)
    return rows.replace_schema_metadata({history.ABOUT: history.about(source)})


def _add_to_tiles(redis: Redis, state: InForce, entry: Entry, table: pa.Table) -> None:
    """Add the rows to the tiles of the aggregates that are made of them."""
    for group, start in state.groups[entry.source].items():
        tile_groups.add_rows(redis, group, start, entry.key, table, micros(entry.ingested))


def _write_online(redis: Redis, state: InForce, source: Source, table: pa.Table) -> int:
    """Write the rows online; columns of others' definitions that they lack are missing there too."""
    if source.entity is None:
        return 0
    beside = {source.entity.key, EVENT_TIME, history.INGEST_TIME, FAILED}
    fields = dict.fromkeys([*table.column_names, *state.columns.get(source.name, {})])
    return online.write(redis, source, [name for name in fields if name not in beside], table)


# --- what a source expects of a batch as a whole, against the rows that would be stored of it.


def check(source: Source, table: pa.Table) -> None:
    """That the valid rows of a batch are what `source` expects.

    Raises:
        ExpectationFailed: naming each expectation that they do not meet.
    """
    if found := list(violations(source, table)):
        raise ExpectationFailed(source.name, found)


def violations(source: Source, table: pa.Table) -> Iterator[Violation]:
    """Each expectation that `table`, the valid rows of a batch, does not meet."""
    expect, rows = source.expect, table.num_rows
    if expect.min_rows is not None and rows < expect.min_rows:
        yield Violation("min_rows", f"{rows} rows", f"at least {expect.min_rows}")
    if expect.max_rows is not None and rows > expect.max_rows:
        yield Violation("max_rows", f"{rows} rows", f"at most {expect.max_rows}")
    if not rows:
        return

    def stored(name: str) -> str:
        return EVENT_TIME if name == source.event_time else name

    for name, allowed in expect.null_share.items():
        nulls = table[stored(name)].null_count
        if nulls / rows > allowed:
            found = f"{nulls} of {rows} rows ({nulls / rows:.3g}) without a value"
            yield Violation(f"null_share of {name}", found, f"a share of at most {allowed:g}")
    if expect.unique:
        columns = [stored(name) for name in expect.unique]
        counted = table.select(columns).group_by(columns).aggregate([([], "count_all")])
        if repeated := rows - counted.num_rows:
            example = counted.filter(pa.compute.greater(counted["count_all"], 1)).slice(0, 1).to_pylist()[0]
            values = ", ".join(f"{name}={example[stored(name)]}" for name in expect.unique)
            found = f"{repeated} repeated rows, such as {values[:200]} {example['count_all']} times"
            yield Violation(f"unique by {', '.join(expect.unique)}", found, "each row once")
