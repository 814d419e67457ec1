"""Recent events and events as they come, as CloudEvents in JSON, and as a sentence for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from modelmill.errors import UnknownName
from modelmill.http import sse
from modelmill.state import bus, keys
from modelmill.state.bus import Entry
from modelmill.state.connections import Redis
from modelmill.state.events import (
    AliasDeleted,
    DefinitionsApplied,
    DriftDetected,
    EntityForgotten,
    Event,
    ModelPromoted,
    ModelTrained,
    PredictionFailed,
    PredictionServed,
    QualityDegraded,
    RowsIngested,
    RunFailed,
    RunLogged,
    RunStarted,
    VersionsPruned,
)

STREAMS = {
    stream.removeprefix("events:"): stream
    for stream in (keys.EVENTS_MODELS, keys.EVENTS_FEATURES, keys.EVENTS_PREDICTIONS, keys.EVENTS_ALERTS)
}
"""What callers say to the stream that they mean."""
MAX_EVENTS = 1000
"""Events of one answer."""


def stream_named(name: str) -> str:
    """The stream that a caller calls `name`.

    Raises:
        UnknownName: for any other name.
    """
    if name not in STREAMS:
        raise UnknownName("stream", name, STREAMS)
    return STREAMS[name]


def recent(redis: Redis, stream: str, count: int) -> list[dict[str, Any]]:
    """The newest events of `stream`, newest first."""
    return [cloud_event(entry) for entry in reversed(_newest(redis, stream, count))]


def follow(redis: Redis, stream: str, position: str | None, count: int, *, wait: float) -> Iterator[str]:
    """Events as server-sent events: those after `position`, or else the newest `count`, and then each new one.

    Raises:
        InvalidRequest: for a position that is not the id of a stream entry.
    """
    sse.require_position(position)
    entries: list[Entry] = []
    if position is None:
        position = bus.last_position(redis, stream)  # before the newest are read: nothing is missed between
        entries = _newest(redis, stream, count)
        position = entries[-1][0] if entries else position
    return sse.stream(_turns(redis, stream, position, entries, wait))


def _turns(redis: Redis, stream: str, position: str, entries: list[Entry], wait: float) -> Iterator[list[str]]:
    while True:
        yield [sse.event(event.type, cloud_event((at, event)), at) for at, event in entries]
        position, entries = bus.read(redis, stream, position, wait=wait)


def cloud_event(entry: Entry) -> dict[str, Any]:
    """An event as CloudEvents JSON; `position` says where it lies in its stream, `text` what happened."""
    position, event = entry
    data = asdict(event)
    attributes = {name: data.pop(name) for name in ("id", "source", "time")}
    subject = str(getattr(event, event.subject))
    return {
        "specversion": "1.0",
        **attributes,
        "type": event.type,
        "subject": subject,
        "position": position,
        "text": sentence(event),
        "data": data,
    }


def sentence(event: Event) -> str:
    """What happened, for people."""
    match event:
        case RunStarted():
            return f"training began ({event.trigger})"
        case RunFailed():
            said = event.error if event.status == "cancelled" else f"{event.status}: {event.error}"
            return f"training {said}"
        case RunLogged():
            return f"run logged by hand: {_metrics(event.metrics)}"
        case ModelTrained():
            return f"version {event.version} trained: {_metrics(event.metrics)}"
        case AliasDeleted():
            return f"{event.alias} names no version any more, before it {event.version}: {event.reason or event.by}"
        case VersionsPruned():
            return f"versions {', '.join(map(str, event.versions))} pruned ({event.reason})"
        case ModelPromoted():
            before = "" if event.previous is None else f", before it version {event.previous}"
            return f"version {event.version} is {event.alias}{before}: {event.reason or f'by {event.by}'}"
        case DefinitionsApplied():
            return "; ".join(event.changes) or "definitions applied, nothing changed"
        case RowsIngested():
            rejected = f", {event.rejected} rejected" if event.rejected else ""
            failed = f", {event.failed_features} feature values failed" if event.failed_features else ""
            return f"{event.accepted} rows ingested{rejected}{failed}"
        case EntityForgotten():
            return f"{event.rows} rows erased of the one with digest {event.digest[:8]}, by {event.by or 'an operator'}"
        case PredictionServed():
            return f"version {event.version} predicted {event.rows} rows in {event.latency_ms:.3g} ms"
        case PredictionFailed():
            return f"version {event.version} answered {event.status}: {event.error}"
        case DriftDetected():
            return f"drift of {', '.join(event.features) or 'inputs'}{f': {event.detail}' if event.detail else ''}"
        case QualityDegraded():
            return f"{event.metric or 'quality'} has degraded{f': {event.detail}' if event.detail else ''}"
    return ""


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _newest(redis: Redis, stream: str, count: int) -> list[Entry]:
    return bus.newest(redis, stream, count) if count else []  # Redis refuses to return 0
