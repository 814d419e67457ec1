"""What is known about the predictions of one model version in one minute, and how events are folded into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple

import numpy as np

from modelmill.columns.sketch import Sketch
from modelmill.state.events import PredictionFailed, PredictionServed, parse

MINUTE = timedelta(minutes=1)
MINUTE_FORMAT = "%Y-%m-%dT%H:%MZ"
LONGEST_MS = 86_400_000.0
"""A day. No request takes longer, so an event that says so is wrong."""
SMALLEST_MS = 1e-6
"""A nanosecond: what is shorter lies in the sketch as this long, so that it has less than 2,000 buckets."""
LARGEST = 1_000_000_000
"""No version number and no count of rows in a request is larger."""
CLOCK_SKEW = timedelta(hours=1)
"""How far a predictor's clock may be ahead of the monitor's."""

COUNTED = "counted"
"""The event is in a window."""
REJECTED = "rejected"
"""It cannot be read, or cannot be true: a latency that is not a number from 0 to a day, a time in the future."""
EXPIRED = "expired"
"""It is older than windows are kept."""
IGNORED = "ignored"
"""It is of a type that the monitor does not count."""
LOST = "lost"
"""It was trimmed from the stream before the monitor came to it."""
OUTCOMES = (COUNTED, REJECTED, EXPIRED, IGNORED, LOST)
"""What can become of an entry of the stream; each entry has exactly one outcome."""


class Slot(NamedTuple):
    """Where an event counts: a model's version in the minute that begins at `minute` (UTC)."""

    model: str
    version: int
    minute: datetime


@dataclass(frozen=True)
class Summary:
    """What a window, or several together, amount to. Latencies are milliseconds, None where nothing was served."""

    count: int
    """Requests answered with predictions; `mean` to `max` are about these."""
    rows: int
    """Rows that they predicted."""
    errors: int
    """Requests answered with an error. Outside `count`: a quick refusal would flatter the latencies."""
    throughput: float
    """Requests a second, with and without error."""
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    min: float | None = None
    max: float | None = None


@dataclass
class Window:
    """Counts and latencies of the requests in one slot, or of several slots together."""

    count: int = 0
    rows: int = 0
    errors: int = 0
    sum_ms: float = 0.0
    min_ms: float = inf
    max_ms: float = 0.0
    sketch: Sketch = field(default_factory=lambda: Sketch.merged([]))
    """Of the latencies, milliseconds."""

    @classmethod
    def of(cls, events: Sequence[PredictionServed | PredictionFailed]) -> Window:
        """What counts `events`, whose latencies are finite and not negative."""
        served = [event for event in events if isinstance(event, PredictionServed)]
        latencies = [event.latency_ms for event in served]
        return cls(
            count=len(served),
            rows=sum(event.rows for event in served),
            errors=len(events) - len(served),
            sum_ms=sum(latencies, 0.0),
            min_ms=min(latencies, default=inf),
            max_ms=max(latencies, default=0.0),
            sketch=Sketch.of(np.maximum(np.array(latencies, np.float64), SMALLEST_MS)),
        )

    def merge(self, other: Window) -> None:
        """Count all that `other` counts too."""
        self.count += other.count
        self.rows += other.rows
        self.errors += other.errors
        self.sum_ms += other.sum_ms
        self.min_ms = min(self.min_ms, other.min_ms)
        self.max_ms = max(self.max_ms, other.max_ms)
        self.sketch = Sketch.merged([self.sketch, other.sketch])

    def summary(self, seconds: float) -> Summary:
        """What happened, for a window of this many seconds."""
        throughput = (self.count + self.errors) / seconds
        if not self.count:
            return Summary(self.count, self.rows, self.errors, throughput)
        mean = self.sum_ms / self.count
        # The exact extremes bound the quantiles: a p99 above the maximum would be absurd.
        found = self.sketch.percentiles((50, 95, 99))
        p50, p95, p99 = (min(max(value, self.min_ms), self.max_ms) for value in found)
        return Summary(self.count, self.rows, self.errors, throughput, mean, p50, p95, p99, self.min_ms, self.max_ms)

    def to_hash(self) -> dict[str, str]:
        """The window as the fields of a hash of plain text."""
        return {
            "count": str(self.count),
            "rows": str(self.rows),
            "errors": str(self.errors),
            "sum_ms": repr(self.sum_ms),
            "min_ms": repr(self.min_ms),
            "max_ms": repr(self.max_ms),
            "sketch": self.sketch.to_text(),
        }

    @classmethod
    def from_hash(cls, found: Mapping[str, str]) -> Window:
        """The window that `to_hash` wrote; an empty one for an empty hash."""
        if not found:
            return cls()
        return cls(
            count=int(found["count"]),
            rows=int(found["rows"]),
            errors=int(found["errors"]),
            sum_ms=float(found["sum_ms"]),
            min_ms=float(found["min_ms"]),
            max_ms=float(found["max_ms"]),
            sketch=Sketch.from_text(found["sketch"]),
        )


@dataclass
class Folded:
    """What a batch of stream entries amounts to."""

    windows: dict[Slot, Window] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    rejection: str = ""
    """Why the first of the rejected was."""


def fold(entries: Iterable[Mapping[str, str]], *, now: datetime, retention: timedelta) -> Folded:
    """Fold stream entries, each the fields of an event, into the windows where they count."""
    folded = Folded()
    counted: dict[Slot, list[PredictionServed | PredictionFailed]] = {}
    for entry in entries:
        try:
            outcome = _fold(entry, counted, latest=now + CLOCK_SKEW, oldest=now - retention)
        except (ValueError, OverflowError) as error:
            outcome = REJECTED
            folded.rejection = folded.rejection or str(error)
        folded.outcomes[outcome] += 1
    folded.windows = {slot: Window.of(events) for slot, events in counted.items()}
    return folded


def _fold(
    entry: Mapping[str, str],
    counted: dict[Slot, list[PredictionServed | PredictionFailed]],
    *,
    oldest: datetime,
    latest: datetime,
) -> str:
    """Put one entry's event among those `counted`, if it counts, and return its outcome.

    Raises:
        ValueError, OverflowError: for an event that cannot be read or cannot be true.
    """
    event = parse(entry)
    if not isinstance(event, PredictionServed | PredictionFailed):
        return IGNORED
    _expect("latency_ms", event.latency_ms, LONGEST_MS)
    _expect("version", event.version, LARGEST)
    if isinstance(event, PredictionServed):
        _expect("rows", event.rows, LARGEST)
    moment = datetime.fromisoformat(event.time)
    if moment.tzinfo is None or moment > latest:
        raise ValueError(f"time={event.time!r}; expected one with a time zone and not in the future")
    minute = minute_of(moment)
    if minute < oldest:
        return EXPIRED
    counted.setdefault(Slot(event.model, event.version, minute), []).append(event)
    return COUNTED


def _expect(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:  # false for NaN too
        raise ValueError(f"{name}={value}; expected a number from 0 to {most:.0f}")


def merged(windows: Iterable[Window]) -> Window:
    """All of `windows` as one."""
    together = Window()
    for window in windows:
        together.merge(window)
    return together


def minute_of(moment: datetime) -> datetime:
    """The beginning of the minute, in UTC, that `moment` lies in."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def minute_text(minute: datetime) -> str:
    """A minute as keys and answers spell it: `2026-11-23T23:47Z`."""
    return minute.strftime(MINUTE_FORMAT)
