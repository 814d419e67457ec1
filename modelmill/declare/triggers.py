"""When a model is trained without being asked: at slots of time, after so many rows, on an event.

    Model(..., train=[every(seconds=60), cron("0 3 * * *", tz="Europe/Berlin"), after(rows=1000), on("drift.detected")])

Each may have a cool-down, in which it does not fire again, and a daily limit, counted by days of UTC. Slots of time are
spaced by themselves and have neither unless they are given; what comes from outside has both unless it says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, Protocol, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, croniter

from modelmill import times
from modelmill.errors import did_you_mean
from modelmill.state import keys
from modelmill.state.events import EVENTS
from modelmill.times import EPOCH

TRANSITION = timedelta(hours=3)
"""Longer than any clock change."""
FIELD = re.compile(r"(?:(?:\*|(?:[0-9]+|[A-Za-z]{3})(?:-(?:[0-9]+|[A-Za-z]{3}))?)(?:/[0-9]+)?(?:,(?=[^,])|$))+")
"""What a field of a cron line looks like. `croniter` reads more: random times (R), hashed ones (H), last days (L)."""
INSTANT = timedelta(microseconds=1)
COOLDOWN, DAILY = "10m", 24
"""The limits of triggers that are fired from outside, unless they say otherwise."""

Missed = Literal["skip", "latest", "all"]
"""What becomes of slots at which no scheduler ran or the model trained already: they are skipped, the latest of them is
made up for, or all are, one after another."""


class Named(Protocol):
    """A declared thing, such as a source."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """What all triggers have. `str()` names one among those of its model, whatever its limits are.

    Raises:
        ValueError: for a limit that is none, naming it and what was expected.
    """

    kind: ClassVar[str]

    cooldown: str | None = None
    """How long it does not fire again after it has fired, such as `10m`."""
    daily: int | None = None
    """How often it may fire in a day of UTC."""

    def __post_init__(self) -> None:
        if self.cooldown is not None:
            try:
                times.seconds(self.cooldown)
            except ValueError as error:
                raise ValueError(f"{self.kind}(cooldown=...): {error}") from None
        if self.daily is not None:
            self._require_count("daily")

    @property
    def pause(self) -> timedelta:
        """The cool-down."""
        return timedelta(seconds=times.seconds(self.cooldown) if self.cooldown else 0)

    def _require_count(self, field: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{self.kind}({field}={value!r}): expected a whole number of at least 1")


@dataclass(frozen=True, kw_only=True)
class Slots(Trigger):
    """A trigger that fires at slots of time, the same ones for every scheduler that looks."""

    missed: Missed = "skip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missed not in get_args(Missed):
            raise ValueError(
                f"{self.kind}(missed={self.missed!r}): expected one of {', '.join(map(repr, get_args(Missed)))}"
            )

    def slot_at(self, now: datetime) -> datetime:
        """The newest slot that is due at `now`."""
        raise NotImplementedError

    def next_slot(self, now: datetime) -> datetime:
        """The first slot that is due later than `now`."""
        raise NotImplementedError

    def between(self, start: datetime, end: datetime, most: int) -> list[datetime]:
        """The slots with start < slot <= end, oldest first; of more than `most` the newest."""
        found: list[datetime] = []
        slot = self.slot_at(end)
        while slot > start and len(found) < most:
            found.append(slot)
            slot = self.slot_at(slot - INSTANT)
        return found[::-1]


@dataclass(frozen=True)
class Every(Slots):
    """A slot at every multiple of `seconds` since 1970, so that all schedulers name the same slots."""

    kind: ClassVar[str] = "every"

    seconds: int

    def __post_init__(self) -> None:
        self._require_count("seconds")
        super().__post_init__()

    def slot_at(self, now: datetime) -> datetime:
        """The newest slot that is due at `now`."""
        step = timedelta(seconds=self.seconds)
        return EPOCH + (now - EPOCH) // step * step

    def next_slot(self, now: datetime) -> datetime:
        """The first slot that is due later than `now`."""
        return self.slot_at(now) + timedelta(seconds=self.seconds)

    def __str__(self) -> str:
        return f"every {self.seconds} s"


@dataclass(frozen=True)
class Cron(Slots):
    """A slot at each time that a five-field cron line matches on the clocks of time zone `tz`.

    Where clocks go forward, a slot in the hour that they skip is due an hour later. Where they go back, a slot in the
    hour that they repeat is due once, in the first of the two; a line for every hour (`*`) is due in both.
    """

    kind: ClassVar[str] = "cron"

    line: str
    tz: str

    def __post_init__(self) -> None:
        if not isinstance(self.line, str) or len(self.line.split()) != 5:
            raise ValueError(f"cron({self.line!r}): expected five fields such as '0 3 * * *'")
        if not all(map(FIELD.fullmatch, self.line.split())) or not croniter.is_valid(self.line):
            raise ValueError(
                f"cron({self.line!r}): expected minute (0-59), hour (0-23), day (1-31), month (1-12, or jan-dec) and"
                " day of week (0-6, or sun-sat), each *, a number, a range, a step such as */15, or several with commas"
                " between them; such as '0 3 * * *'"
            )
        try:
            croniter(self.line, EPOCH).get_next()
        except CroniterBadDateError:
            raise ValueError(f"cron({self.line!r}): no date ever matches it") from None
        try:
            ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, TypeError):
            raise ValueError(f"cron(tz={self.tz!r}): expected an IANA time zone such as 'Europe/Berlin'") from None
        super().__post_init__()

    def slot_at(self, now: datetime) -> datetime:
        """The newest slot that is due at `now`."""
        zone = ZoneInfo(self.tz)
        reading = now.astimezone(zone).replace(tzinfo=None)
        earlier = (now - TRANSITION).astimezone(zone).replace(tzinfo=None)
        change = abs(reading - earlier - TRANSITION)
        times = croniter(self.line, reading + change + INSTANT)  # get_prev() excludes its start
        due: list[datetime] = []
        wall = reading
        while not due or (change and wall > earlier - change):  # around a change, clocks tell times out of order
            wall = times.get_prev(datetime)
            due.extend(slot for slot in self._slots(wall, zone) if slot <= now)
        return max(due)

    def next_slot(self, now: datetime) -> datetime:
        """The first slot that is due later than `now`."""
        zone = ZoneInfo(self.tz)
        times = croniter(self.line, now.astimezone(zone).replace(tzinfo=None) - TRANSITION)
        coming: list[datetime] = []
        wall = last = datetime.max
        while not coming or wall < last:  # clocks may tell those of the next hours in another order
            wall = times.get_next(datetime)
            later = [slot for slot in self._slots(wall, zone) if slot > now]
            if later and not coming:
                last = wall + TRANSITION
            coming.extend(later)
        return min(coming)

    def _slots(self, wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """When clocks show `wall`: once, or for a line of every hour twice where they repeat it."""
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        yield first
        if second > first and self.line.split()[1].startswith("*"):
            yield second

    def __str__(self) -> str:
        return f"cron {self.line!r} {self.tz}"


@dataclass(frozen=True)
class After(Trigger):
    """Fires when `rows` accepted rows have come since it fired last: of `source`, or of all sources of the model."""

    kind: ClassVar[str] = "after"

    rows: int
    source: str | None

    def __post_init__(self) -> None:
        self._require_count("rows")
        if not isinstance(self.source, str | None):
            raise ValueError(f"after(source={self.source!r}): expected a source or its name")
        super().__post_init__()

    def __str__(self) -> str:
        return f"after {self.rows} rows{f' of {self.source}' if self.source else ''}"


@dataclass(frozen=True)
class On(Trigger):
    """Fires when an event of this type tells of the model."""

    kind: ClassVar[str] = "on"

    event: str

    def __post_init__(self) -> None:
        known = [
            name
            for name, event in EVENTS.items()
            if "model" in {item.name for item in fields(event)} and event.stream != keys.EVENTS_PREDICTIONS
        ]
        if self.event not in known:
            near = did_you_mean(self.event, known) if isinstance(self.event, str) else ""
            raise ValueError(f"on({self.event!r}): expected the type of an event about a model{near}")
        super().__post_init__()

    @property
    def stream(self) -> str:
        """Where its events are told."""
        return EVENTS[self.event].stream

    def __str__(self) -> str:
        return f"on {self.event}"


def all_of(model: str, given: Trigger | Sequence[Trigger]) -> tuple[Trigger, ...]:
    """One trigger or several, as a model declares them.

    Raises:
        ValueError: for anything else, and for two that only their limits tell apart.
    """
    triggers = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    for trigger in triggers:
        if not isinstance(trigger, Trigger):
            raise ValueError(f"model {model!r}: train={trigger!r}; expected every(seconds=60), cron(...), or a list")
    names = [str(trigger) for trigger in triggers]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"model {model!r}: train has {', '.join(sorted(map(repr, repeated)))} twice; expected it once")
    return triggers


def every(*, seconds: int, missed: Missed = "skip", cooldown: str | None = None, daily: int | None = None) -> Every:
    """Train every so many seconds.

    Raises:
        ValueError: naming the argument and what was expected.
    """
    return Every(seconds, missed=missed, cooldown=cooldown, daily=daily)


def cron(
    line: str, *, tz: str = "UTC", missed: Missed = "skip", cooldown: str | None = None, daily: int | None = None
) -> Cron:
    """Train when the cron `line` (minute, hour, day of month, month, day of week) says so, in time zone `tz`.

    Raises:
        ValueError: for a line that cannot be read or never comes, a time zone that does not exist, and other arguments,
            with what was expected.
    """
    return Cron(line, tz, missed=missed, cooldown=cooldown, daily=daily)


def after(
    *, rows: int, source: Named | str | None = None, cooldown: str | None = COOLDOWN, daily: int | None = DAILY
) -> After:
    """Train when so many rows have been accepted since it did so last, of one source or of all that the model reads.

    Raises:
        ValueError: naming the argument and what was expected.
    """
    name: Any = getattr(source, "name", source)
    return After(rows, name, cooldown=cooldown, daily=daily)


def on(event: str, *, cooldown: str | None = COOLDOWN, daily: int | None = DAILY) -> On:
    """Train when an event of type `event`, such as `drift.detected`, tells of the model.

    Raises:
        ValueError: naming the argument and what was expected.
    """
    return On(event, cooldown=cooldown, daily=daily)
