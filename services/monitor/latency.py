"""A model's latency over a window of time, in all, by version and minute by minute; and the same for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelmill import times
from modelmill.columns.sketch import RELATIVE_ERROR
from modelmill.errors import InvalidRequest
from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from modelmill.times import iso
from services.monitor.aggregates import Aggregates
from services.monitor.windows import (
    MINUTE,
    OUTCOMES,
    Slot,
    Summary,
    Window,
    merged,
    minute_of,
    minute_text,
)

Group = TypeVar("Group", int, datetime)


@dataclass(frozen=True)
class Report:
    """The stored windows of one model from minute `start` to the moment `end`."""

    model: str
    start: datetime
    end: datetime
    windows: Mapping[Slot, Window]

    def overall(self) -> Summary:
        """All versions together."""
        return merged(self.windows.values()).summary(_seconds(self.start, self.end))

    def versions(self) -> dict[int, Summary]:
        """Each version that was asked for a prediction, the newest first."""
        seconds = _seconds(self.start, self.end)
        found = self._merged_by(lambda slot: slot.version)
        return {version: found[version].summary(seconds) for version in sorted(found, reverse=True)}

    def minutes(self) -> dict[datetime, Summary]:
        """Each minute from the first to the present one, also those in which nothing happened."""
        found = self._merged_by(lambda slot: slot.minute)
        count = (minute_of(self.end) - self.start) // MINUTE + 1
        minutes = [self.start + number * MINUTE for number in range(count)]
        return {
            minute: found.get(minute, Window()).summary(_seconds(minute, min(minute + MINUTE, self.end)))
            for minute in minutes
        }

    def last(self, length: timedelta) -> Report:
        """The same for the last whole minutes of `length` and the present one."""
        start = minute_of(self.end) - length
        return replace(self, start=start, windows={s: w for s, w in self.windows.items() if s.minute >= start})

    def _merged_by(self, group: Callable[[Slot], Group]) -> dict[Group, Window]:
        groups: dict[Group, Window] = {}
        for slot, window in self.windows.items():
            groups.setdefault(group(slot), Window()).merge(window)
        return groups


def report(aggregates: Aggregates, model: str, window: timedelta) -> Report:
    """What happened in the last `window`: its whole minutes and, so that nothing new is left out, the present one."""
    now = aggregates.clock()
    start = minute_of(now) - window
    return Report(model, start, now, aggregates.windows(model, start))


def parse_window(text: str, retention: timedelta) -> timedelta:
    """A length of time such as `15m`, `2h` or `1d`.

    Raises:
        InvalidRequest: for anything else, and for longer than windows are kept.
    """
    expected = f"window={text!r}; expected minutes, hours or days such as 15m, 2h or 1d"
    try:
        window = timedelta(seconds=times.seconds(text))
    except ValueError:
        raise InvalidRequest(expected, window=text) from None
    if window % MINUTE:
        raise InvalidRequest(expected, window=text)
    if window > retention:
        hours = retention // timedelta(hours=1)
        raise InvalidRequest(
            f"window={text!r} is longer than windows are kept; expected at most {hours}h"
            " (MODELMILL_WINDOW_RETENTION sets it)",
            window=text,
        )
    return window


def as_json(found: Report, window: str, *, series: bool) -> dict[str, Any]:
    """A report as the answer of `GET /models/{name}/latency`."""
    answer = {
        "model": found.model,
        "window": window,
        "start": iso(found.start),
        "end": iso(found.end),
        "unit": "ms",
        "relative_error": RELATIVE_ERROR,
        "overall": asdict(found.overall()),
        "versions": [{"version": number, **asdict(summary)} for number, summary in found.versions().items()],
    }
    if series:
        answer["series"] = series_json(found)
    return answer


def series_json(found: Report) -> list[dict[str, Any]]:
    """The minutes of a report, oldest first."""
    return [{"minute": minute_text(minute), **asdict(summary)} for minute, summary in found.minutes().items()]


def _seconds(start: datetime, end: datetime) -> float:
    """The time from `start` to `end`, at least a second, so that a minute just begun has no absurd throughput."""
    return max(1.0, (end - start).total_seconds())


# --- the monitor's state as Prometheus metrics, read from Redis at each scrape, so that it is right in every process.

log = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)


class MonitorCollector(Collector):
    """How far the stream is counted, and each model's latency in the last minute or two."""

    def __init__(self, aggregates: Aggregates, registry: Registry) -> None:
        self.aggregates = aggregates
        self.registry = registry

    def collect(self) -> Iterator[Metric]:
        """The metrics; none while Redis is away, which `/readyz` says too."""
        try:
            metrics = [*self._counting(), self._latency()]
        except AWAY as error:
            log.warning("no metrics of the windows: %s", error)
            return
        yield from metrics

    def _counting(self) -> Iterator[Metric]:
        progress, lag = self.aggregates.progress(), self.aggregates.lag()
        outcomes = CounterMetricFamily(
            "modelmill_monitor_events", "Prediction events by what became of them in the windows", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            outcomes.add_metric([outcome], progress.outcomes.get(outcome, 0))
        yield outcomes
        yield GaugeMetricFamily(
            "modelmill_monitor_lag_seconds", "Age of the oldest event that is not counted yet", lag.seconds
        )
        yield GaugeMetricFamily("modelmill_monitor_lag_entries", "Events that are not counted yet", lag.entries)

    def _latency(self) -> Metric:
        family = GaugeMetricFamily(
            "modelmill_prediction_latency_seconds",
            "Latency of the predictions of the last whole minute and the present one",
            labels=["model", "quantile"],
        )
        for model in self.registry.models():
            summary = report(self.aggregates, model, WINDOW).overall()
            for quantile, milliseconds in (("0.5", summary.p50), ("0.95", summary.p95), ("0.99", summary.p99)):
                if milliseconds is not None:
                    family.add_metric([model, quantile], milliseconds / 1000)
        return family
