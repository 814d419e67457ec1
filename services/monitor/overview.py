"""All models at a glance: what serves, how fast, what was trained last, and what happened lately."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from modelmill.state import bus
from modelmill.state.events import iso
from modelmill.state.registry import CHAMPION, Registry
from modelmill.state.runs import Run
from services.monitor.aggregates import Aggregates
from services.monitor.feed import STREAMS, cloud_event
from services.monitor.latency import Report, report, series_json
from services.monitor.progress import Lag, Progress
from services.monitor.sketch import RELATIVE_ERROR
from services.monitor.windows import MINUTE

WINDOW = timedelta(minutes=15)
EVENTS = 30
"""How many events are shown, the newest."""
EVENT_STREAMS = ("models", "features")
"""Streams whose events are shown; those of single predictions are too many to read."""


@dataclass(frozen=True)
class ModelOverview:
    """What is known about one model now."""

    name: str
    aliases: dict[str, int]
    """Alias to version number, without `champion`."""
    champion: int | None
    latest_run: Run | None
    report: Report
    """The last 15 minutes."""

    def throughput(self) -> float:
        """Requests a second in the last whole minute and the present one."""
        return self.report.last(MINUTE).overall().throughput


@dataclass(frozen=True)
class Overview:
    """What the first page shows."""

    time: datetime
    progress: Progress
    lag: Lag
    models: list[ModelOverview]
    events: list[dict[str, Any]]
    """CloudEvents, newest first."""


def overview(aggregates: Aggregates, registry: Registry) -> Overview:
    """Read everything as it is now."""
    return Overview(
        time=aggregates.clock(),
        progress=aggregates.progress(),
        lag=aggregates.lag(),
        models=[_model(aggregates, registry, name) for name in registry.models()],
        events=_events(aggregates, EVENT_STREAMS),
    )


def as_json(found: Overview) -> dict[str, Any]:
    """An overview as the answer of `GET /overview`."""
    return {
        "time": iso(found.time),
        "window": "15m",
        "unit": "ms",
        "relative_error": RELATIVE_ERROR,
        "counting": {
            "lag_seconds": found.lag.seconds,
            "lag_entries": found.lag.entries,
            "outcomes": dict(found.progress.outcomes),
        },
        "models": [_model_json(model) for model in found.models],
        "events": found.events,
    }


def _model(aggregates: Aggregates, registry: Registry, name: str) -> ModelOverview:
    aliases = registry.aliases(name)
    champion = aliases.pop(CHAMPION, None)
    latest = registry.runs.newest(name, limit=1)
    return ModelOverview(name, aliases, champion, latest[0] if latest else None, report(aggregates, name, WINDOW))


def _events(aggregates: Aggregates, streams: Iterable[str]) -> list[dict[str, Any]]:
    newest = [entry for name in streams for entry in bus.newest(aggregates.redis, STREAMS[name], EVENTS)]
    newest.sort(key=lambda entry: entry[1].time, reverse=True)
    return [cloud_event(entry) for entry in newest[:EVENTS]]


def _model_json(model: ModelOverview) -> dict[str, Any]:
    run = model.latest_run
    return {
        "name": model.name,
        "champion": model.champion,
        "aliases": model.aliases,
        "latest_run": run
        and {
            "id": run.id,
            "status": run.status,
            "stage": run.stage,
            "started": run.started,
            "finished": run.finished,
            "version": run.version,
            "metrics": run.metrics,
            "error": run.error,
        },
        "throughput": model.throughput(),
        "latency": asdict(model.report.overall()),
        "versions": [{"version": n, **asdict(summary)} for n, summary in model.report.versions().items()],
        "series": series_json(model.report),
    }
