"""Rows in: validate, derive, append to history, write online, tell. A row that was acknowledged is in the history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from modelmill import bus
from modelmill.errors import InvalidRows, Rejection
from modelmill.events import RowsIngested
from services.feature import expectations, history, online, quarantine
from services.feature.backfill import recompute
from services.feature.catalogue import Catalogue
from services.feature.decode import RawRows
from services.feature.derive import derive
from services.feature.validate import EVENT_TIME, TIME, validate


@dataclass(frozen=True)
class Ingested:
    """What became of the rows of one request."""

    accepted: int
    rejected: int
    reasons: list[Rejection]
    """Of the first rejected rows."""
    failed_features: dict[str, int]
    """Feature to the number of rows on which its function failed."""
    file: str
    """The history file that holds the accepted rows; empty where none was accepted."""


def ingest(catalogue: Catalogue, source_name: str, raw: RawRows, *, skip_bad: bool, request_id: str = "") -> Ingested:
    """Store the rows of `raw` in history and, where the source is about one entity, online.

    With `skip_bad` rejected rows go to the quarantine, under `request_id` if the client gave one.

    Raises:
        UnknownName: for an undeclared source.
        InvalidRequest: for missing or undeclared columns.
        InvalidRows: where rows are bad and `skip_bad` is not set; nothing was stored.
        ExpectationFailed: where the good rows are not what the source expects of a batch; nothing was stored.
        redis.ConnectionError: where Redis is away; nothing was stored.
    """
    redis, storage, definitions = catalogue.redis, catalogue.storage, catalogue.definitions
    source = definitions.source(source_name)
    valid = validate(source, raw)
    if valid.rejected and not skip_bad:
        raise InvalidRows(source.name, valid.rejected, valid.total, valid.reasons)
    expectations.check(source, valid.table)
    now = datetime.now(UTC)
    quarantine.keep(redis, source.name, raw, valid, now, request_id)
    if not valid.table.num_rows:
        return Ingested(0, valid.rejected, valid.reasons, {}, "")
    redis.ping()  # before anything is stored: a request that will fail should leave nothing behind
    table = valid.table
    for column in (history.INGEST_TIME, *(() if source.event_time else (EVENT_TIME,))):
        table = table.append_column(column, pa.repeat(pa.scalar(now, TIME), table.num_rows))
    inputs = [*(entity.key for entity in source.entities), *source.columns]
    derived = derive(table, definitions.features[source.name], inputs)
    table = derived.table.select(history.schema(definitions, source).names)
    file = history.append(storage, source.name, table, history.versions(definitions, source), now)
    if source.entity is not None:
        online.write(redis, source, list(definitions.columns(source)), table)
    catalogue.catch_up()
    if (current := catalogue.definitions) is not definitions:  # who applied them may have missed our file, or we
        recompute(redis, storage, current, current.source(source.name), file)  # have overwritten what they wrote online
    failed = {name: count for name, count in derived.failures.items() if count}
    bus.append(
        redis,
        RowsIngested(
            source="feature",
            table=source.name,
            accepted=table.num_rows,
            rejected=valid.rejected,
            failed_features=sum(failed.values()),
        ),
    )
    return Ingested(table.num_rows, valid.rejected, valid.reasons, failed, file)
