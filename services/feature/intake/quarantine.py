"""Rejected rows, kept where people can read them, with the reason; they never reach history or features.

Each is an entry of the bounded Redis stream `rejected:{source}`. A counter beside it, which nothing resets, tells how
many were rejected ever, and so how many are no longer kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa
from prometheus_client import Counter
from redis.client import Pipeline

from modelmill.errors import Rejection
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.times import iso
from services.feature.intake.decode import RawRows
from services.feature.intake.validate import ValidRows, readable
from services.feature.store.journal import Entry

QUARANTINED = Counter("modelmill_quarantined_rows_total", "Rejected rows of requests that kept the others", ["source"])
MAX_LENGTH = 10_000
"""Rejected rows of a source that are kept, roughly; the oldest go first."""
MAX_ROW_BYTES = 2048
"""The longest JSON text of a row that is kept whole."""
ROWS_PER_WRITE = 500
"""Rows written in one round trip."""
FIELD = "quarantined"
"""Of an entry of the journal: how many of its rejected rows are kept."""


@dataclass(frozen=True)
class RejectedRow:
    """One rejected row as it is kept."""

    row: int
    """Its number in the request, counted from 1."""
    column: str
    """The first column that is at fault; empty where the row could not be split into columns."""
    value: str
    reason: str
    content: str
    """The row as JSON text, or as it came where it could not be read; the end is left out where it is long."""
    ingest_time: str
    request: str
    """Id that the client gave the request, if any."""


@dataclass(frozen=True)
class Quarantine:
    """What is known of a source's rejected rows."""

    rejected: int
    """How many there were ever."""
    kept: int
    """How many of them can still be read."""
    rows: list[RejectedRow]
    """The newest first."""


def keep(redis: Redis, raw: RawRows, valid: ValidRows, entry: Entry, request: str = "") -> None:
    """Keep the rejected rows of a request that goes on without them, once, whoever else brings it to its end.

    Its entry in the journal tells how many are kept; the counter grows with the first batch.
    """
    rejections = valid.rejections[:MAX_LENGTH]

    def keep_batch(pipe: Pipeline) -> int:
        """Keep the next ones and return from which on; -1 where none is left."""
        begun, kept = pipe.hmget(entry.key, "time", FIELD)
        start = int(kept or 0)
        batch = rejections[start : start + ROWS_PER_WRITE] if begun else []
        pipe.multi()
        for rejection, content in zip(batch, contents(raw, batch), strict=True):
            row = _entry(rejection, content, entry.ingested, request)
            pipe.xadd(keys.rejected(entry.source), row, maxlen=MAX_LENGTH, approximate=True)
        if batch:
            pipe.incrby(keys.rejected_total(entry.source), 0 if start else valid.rejected)
            pipe.hset(entry.key, FIELD, start + len(batch))
        return start if batch else -1

    while rejections and (start := redis.transaction(keep_batch, entry.key, value_from_callable=True)) >= 0:
        if start == 0:
            QUARANTINED.labels(entry.source).inc(valid.rejected)


def read(redis: Redis, source: str, count: int, since: datetime | None = None) -> Quarantine:
    """The newest `count` rejected rows of a source, of those that were kept at or after `since`."""
    first = "-" if since is None else str(max(0, int(since.timestamp() * 1000)))
    with redis.pipeline() as pipe:
        pipe.get(keys.rejected_total(source))
        pipe.xlen(keys.rejected(source))
        pipe.xrevrange(keys.rejected(source), "+", first, count)
        total, kept, entries = pipe.execute()
    return Quarantine(int(total or 0), kept, [_row(entry) for _, entry in entries])


def contents(raw: RawRows, rejections: Sequence[Rejection]) -> Iterator[str]:
    """The rows that `rejections` name, as JSON text of at most `MAX_ROW_BYTES`."""
    positions = {number: position for position, number in enumerate(raw.numbers)} if raw.broken else None
    at = [positions.get(r.row) if positions is not None else r.row - 1 for r in rejections]
    whole = [position for position in at if position is not None]
    columns = {name: iter(_values(values, whole)) for name, values in raw.columns.items()}
    for rejection, position in zip(rejections, at, strict=True):
        if position is None:
            yield _cut(raw.broken_texts.get(rejection.row, rejection.value).encode())
        else:
            row = {name: next(values) for name, values in columns.items()}
            yield _cut(orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS))


def _values(values: pa.ChunkedArray | list[Any], positions: list[int]) -> list[Any]:
    if isinstance(values, list):
        return [values[position] for position in positions]
    return [readable(value) for value in values.take(pa.array(positions, pa.int64()))]


def _cut(text: bytes) -> str:
    if len(text) <= MAX_ROW_BYTES:
        return text.decode()
    return text[: MAX_ROW_BYTES - 3].decode(errors="ignore") + "…"


def _entry(rejection: Rejection, content: str, now: datetime, request: str) -> dict[str, str]:
    entry = {
        "row": str(rejection.row),
        "column": rejection.column,
        "value": rejection.value,
        "reason": rejection.reason,
        "content": content,
        "ingest_time": iso(now),
    }
    return entry | ({"request": request} if request else {})


def _row(entry: dict[str, str]) -> RejectedRow:
    return RejectedRow(
        row=int(entry["row"]),
        column=entry["column"],
        value=entry["value"],
        reason=entry["reason"],
        content=entry["content"],
        ingest_time=entry["ingest_time"],
        request=entry.get("request", ""),
    )
