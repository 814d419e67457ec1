"""Predictions as they were served, read from the log a bounded number at a time, and put beside the features' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import orjson
import pyarrow as pa

from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionServed, parse
from services.feature.intake.validate import TIME

PAGE = 100
"""Entries of the log that are in memory at once; each may hold many rows."""
ROWS = 5000
"""Rows of predictions that are put together at a time."""
LATE = timedelta(minutes=1)
"""How much later than its time a prediction may have been appended before the time looked from and still be found."""

ID, ROW, AT, SINCE, UNTIL = "_prediction", "_row", "_at", "_since", "_until"
"""Columns of a log as a table: id and row of a prediction, its time, and between which times its features were read."""
SLACK = timedelta(milliseconds=1)
"""By which the times are rounded, at most."""

Page = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Log:
    """What was appended to the log of predictions until now, of one model and from a time on."""

    redis: Redis
    model: str
    since: datetime
    last: str
    """The newest entry that belongs to it, so that it is the same whenever it is read."""

    @classmethod
    def until_now(cls, redis: Redis, model: str, since: datetime) -> Log:
        """The log as it is now."""
        newest = redis.xrevrange(keys.EVENTS_PREDICTIONS, count=1)
        return cls(redis, model, since, newest[0][0] if newest else "0-0")

    def versions(self) -> Counter[int]:
        """Version to its predictions."""
        return Counter(int(entry["version"]) for entry in self._entries())

    def of_version(self, version: int) -> Iterator[PredictionServed]:
        """The predictions of one version, oldest first."""
        for entry in self._entries():
            if entry["version"] == str(version) and isinstance(event := parse(entry), PredictionServed):
                yield event

    def _entries(self) -> Iterator[dict[str, str]]:
        since = self.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        wanted = {"type": PredictionServed.type, "model": self.model}
        for page in pages(self.redis, keys.EVENTS_PREDICTIONS, self.since - LATE, self.last):
            for _, entry in page:
                if entry["time"] >= since and wanted.items() <= entry.items():
                    yield entry


def pages(
    redis: Redis, stream: str, since: datetime | None = None, last: str = "+", size: int = PAGE
) -> Iterator[Page]:
    """The entries of a stream that were appended from `since` on, `size` at a time."""
    first = "-" if since is None else str(max(0, int(since.timestamp() * 1000)))
    while page := redis.xrange(stream, first, last, count=size):
        yield page
        milliseconds, _, number = page[-1][0].partition("-")
        first = f"{milliseconds}-{int(number) + 1}"


@dataclass
class Table:
    """Predictions of one version as batches: a row each, with join keys, times and, as JSON, the values served.

    A value is null where it is not to be compared: the caller gave it, or no key was looked up for it. `passed` counts
    the predictions that cannot be looked at, by reason.
    """

    definitions: Definitions
    refs: Sequence[FeatureRef]
    passed: Counter[str] = field(default_factory=Counter)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the batches."""
        return pa.schema(
            [
                (ID, pa.string()),
                (ROW, pa.int64()),
                *((name, TIME) for name in (AT, SINCE, UNTIL)),
                *((key, pa.string()) for key in self._keys.values()),
                *((column_of(ref), pa.string()) for ref in self.refs),
            ]
        )

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Entity to the name of its join key."""
        return {ref.entity: self.definitions.entity(ref.entity).key for ref in self.refs}

    def batches(self, events: Iterator[PredictionServed]) -> Iterator[pa.RecordBatch]:
        """The rows of the events that can be looked at, some thousand at a time."""
        columns: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        for event in events:
            if (reason := self._unfit(event)) is not None:
                self.passed[reason] += 1
                continue
            self._add(event, columns)
            if len(columns[ROW]) >= ROWS:
                yield self._batch(columns)
        if columns[ROW]:
            yield self._batch(columns)

    def _batch(self, columns: dict[str, list[Any]]) -> pa.RecordBatch:
        """What was collected in `columns`, which are empty afterwards."""
        batch = pa.record_batch([pa.array(columns[field.name], field.type) for field in self.schema], self.schema)
        for values in columns.values():
            values.clear()
        return batch

    def _unfit(self, event: PredictionServed) -> str | None:
        if not event.keys and not event.given:
            return "the event does not say which keys were looked up"
        if any(ref.name not in event.features for ref in self.refs):
            return "the event lacks features of its version"
        columns: list[Sequence[Any]] = [*event.keys.values(), *event.features.values()]
        if any(len(column) != event.rows for column in [*columns, *([event.given] if event.given else [])]):
            return "the event's lists are not as long as it says"
        return None

    def _add(self, event: PredictionServed, columns: dict[str, list[Any]]) -> None:
        at = datetime.fromisoformat(event.time)
        around = timedelta(milliseconds=event.latency_ms) + SLACK
        for name, value in ((ID, event.id), (AT, at), (SINCE, at - around), (UNTIL, at + around)):
            columns[name] += [value] * event.rows
        columns[ROW] += range(event.rows)
        nothing = [None] * event.rows
        looked_up = {entity: event.keys.get(entity) or nothing for entity in self._keys}
        by_key: dict[str, list[str | None]] = {}
        for entity, key in self._keys.items():  # entities that share a join key were looked up by the same one
            by_key[key] = [a or b for a, b in zip(by_key.get(key, nothing), looked_up[entity], strict=True)]
        for key, values in by_key.items():
            columns[key] += values
        for ref in self.refs:
            columns[column_of(ref)] += [
                None if key is None or (event.given and ref.name in event.given[row]) else text_of(value)
                for row, (key, value) in enumerate(zip(looked_up[ref.entity], event.features[ref.name], strict=True))
            ]


def column_of(ref: FeatureRef) -> str:
    """The column with the served values of a feature."""
    return f"served.{ref.name}"


def text_of(value: Any) -> str:
    """A value as JSON: equal texts are equal values of one type, floats bit for bit."""
    return orjson.dumps(value).decode()
