"""What is known about the predictions of one model version in one minute, and how events are folded into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple

from ddsketch.mapping import LogarithmicMapping

from modelmill.state.events import PredictionFailed, PredictionServed, parse

MINUTE = timedelta(minutes=1)
MINUTE_FORMAT = "%Y-%m-%dT%H:%MZ"
LONGEST_MS = 86_400_000.0
"""A day. No request takes longer, so an event that says so is wrong."""
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
    sketch: Sketch = field(default_factory=Counter)

    def add(self, event: PredictionServed | PredictionFailed) -> None:
        """Count one event whose latency is finite and not negative."""
        if isinstance(event, PredictionFailed):
            self.errors += 1
            return
        self.count += 1
        self.rows += event.rows
        self.sum_ms += event.latency_ms
        self.min_ms = min(self.min_ms, event.latency_ms)
        self.max_ms = max(self.max_ms, event.latency_ms)
        self.sketch[bucket(event.latency_ms)] += 1

    def merge(self, other: Window) -> None:
        """Count all that `other` counts too."""
        self.count += other.count
        self.rows += other.rows
        self.errors += other.errors
        self.sum_ms += other.sum_ms
        self.min_ms = min(self.min_ms, other.min_ms)
        self.max_ms = max(self.max_ms, other.max_ms)
        self.sketch.update(other.sketch)

    def summary(self, seconds: float) -> Summary:
        """What happened, for a window of this many seconds."""
        throughput = (self.count + self.errors) / seconds
        if not self.count:
            return Summary(self.count, self.rows, self.errors, throughput)
        mean = self.sum_ms / self.count
        # The exact extremes bound the quantiles: a p99 above the maximum would be absurd.
        found = percentiles(self.sketch, (50, 95, 99))
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
            "sketch": to_text(self.sketch),
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
            sketch=from_text(found["sketch"]),
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
    for entry in entries:
        try:
            outcome = _fold(entry, folded.windows, latest=now + CLOCK_SKEW, oldest=now - retention)
        except (ValueError, OverflowError) as error:
            outcome = REJECTED
            folded.rejection = folded.rejection or str(error)
        folded.outcomes[outcome] += 1
    return folded


def _fold(entry: Mapping[str, str], windows: dict[Slot, Window], *, oldest: datetime, latest: datetime) -> str:
    """Count one entry and return its outcome.

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
    windows.setdefault(Slot(event.model, event.version, minute), Window()).add(event)
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


# --- quantiles of many latencies in little space: a DDSketch, kept as what it is, the count of values in each bucket.
#
# The buckets are those of the `ddsketch` library: each is 2 % wide, so whatever lies in one is at most 1 % off its
# middle. As a plain `Counter` a sketch merges by addition, exactly and in any order, and prints as text.

RELATIVE_ERROR = 0.01
"""How far a quantile may be from the exact one, as a share of it."""
SMALLEST_MS = 1e-6
"""A nanosecond: what is shorter counts as this long."""

Sketch = Counter[int]
"""Bucket number to the count of values in it."""

_mapping = LogarithmicMapping(RELATIVE_ERROR)


def bucket(value_ms: float) -> int:
    """The number of the bucket that a finite `value_ms` of at least 0 falls into."""
    return int(_mapping.key(max(value_ms, SMALLEST_MS)))


def percentiles(sketch: Sketch, percents: Sequence[int]) -> list[float]:
    """The nearest-rank percentiles of a sketch that is not empty: of n values in order the ceil(n * percent / 100)th.

    `percents` are whole, above 0 and ascending.
    """
    total = sketch.total()
    ranks = iter([-(-total * percent // 100) for percent in percents])  # in integers, where ceil is exact
    rank = next(ranks)
    found: list[float] = []
    seen = 0
    for number in sorted(sketch):
        seen += sketch[number]
        while seen >= rank:
            found.append(_mapping.value(number))
            if len(found) == len(percents):
                return found
            rank = next(ranks)
    raise ValueError("the sketch is empty")


def to_text(sketch: Sketch) -> str:
    """`bucket:count` pairs in order, such as `-12:3 40:1`."""
    return " ".join(f"{number}:{sketch[number]}" for number in sorted(sketch))


def from_text(text: str) -> Sketch:
    """The sketch that `to_text` wrote."""
    pairs = (pair.split(":") for pair in text.split())
    return Counter({int(number): int(count) for number, count in pairs})
