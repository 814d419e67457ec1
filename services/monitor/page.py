"""The first page as HTML: all models at a glance. Jinja escapes whatever came from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import render_template

from modelmill.columns.sketch import RELATIVE_ERROR
from modelmill.state import bus
from modelmill.state.registry import CHAMPION, Registry
from modelmill.state.runs import Run
from modelmill.times import iso
from services.monitor.aggregates import Aggregates, Lag, Progress
from services.monitor.feed import STREAMS, cloud_event
from services.monitor.latency import Report, report, series_json
from services.monitor.windows import MINUTE

POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'"
"""Content-Security-Policy: nothing but the monitor's own files."""
SHOWN_VERSIONS = 5
"""Versions of a model that are listed, the newest."""


def render(found: Overview | None) -> str:
    """The page that shows an overview, or says that there is none because Redis is away."""
    return render_template(
        "page.html",
        overview=found,
        shown_versions=SHOWN_VERSIONS,
        ms=milliseconds,
        number=number,
        ago=ago,
        bars=bars,
        lines=lines,
        width=WIDTH,
        height=HEIGHT,
    )


def milliseconds(value: float | None) -> str:
    """A latency, or a dash where there is none."""
    return "\N{EN DASH}" if value is None else number(value)


def number(value: float) -> str:
    """A number with about the three digits that a relative error of 1 % leaves meaning to: `0.123`, `4.57`, `1,234`."""
    if value == 0:
        return "0"
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def ago(time: str, now: datetime) -> str:
    """How long before `now` an ISO time was, such as `12 s ago`; the time itself where it cannot be read."""
    try:
        seconds = (now - datetime.fromisoformat(time)).total_seconds()
    except (TypeError, ValueError):
        return time
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


# --- all models at a glance: what serves, how fast, what was trained last, and what happened lately.

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


# --- the geometry of the first page's small charts, in the units of their SVG view box.

WIDTH, HEIGHT = 320.0, 72.0
GAP = 2.0
"""Between two bars."""


@dataclass(frozen=True)
class Bar:
    """A rectangle that stands on the chart's floor."""

    x: float
    y: float
    width: float
    height: float


def bars(values: Sequence[float]) -> list[Bar]:
    """A bar for each of `values` (at least 0), from left to right; the largest as high as the chart."""
    step = WIDTH / max(1, len(values))
    top = max(values, default=0.0) or 1.0
    heights = [round(HEIGHT * value / top, 1) for value in values]
    return [
        Bar(round(number * step + GAP / 2, 1), round(HEIGHT - height, 1), round(step - GAP, 1), height)
        for number, height in enumerate(heights)
    ]


def lines(values: Sequence[float | None]) -> list[str]:
    """The points of a polyline for each unbroken stretch of `values`, the largest at the top of the chart.

    A stretch of one value becomes a short level stroke.
    """
    step = WIDTH / max(1, len(values))
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    stretches: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(((number + 0.5) * step, HEIGHT - HEIGHT * value / top))
    return [_points(stretch, step) for stretch in stretches if stretch]


def _points(stretch: list[tuple[float, float]], step: float) -> str:
    if len(stretch) == 1:
        ((x, y),) = stretch
        stretch = [(x - step / 2, y), (x + step / 2, y)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in stretch)
