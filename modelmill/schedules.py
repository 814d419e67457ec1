"""When a model is trained by itself: `every(seconds=60)` or a cron line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, croniter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TRANSITION = timedelta(hours=3)
"""Longer than any clock change."""


@dataclass(frozen=True)
class Every:
    """A slot at every multiple of `seconds` since 1970, so that all schedulers name the same slots."""

    seconds: int

    def slot_at(self, now: datetime) -> datetime:
        """The newest slot that is due at `now`."""
        step = timedelta(seconds=self.seconds)
        return EPOCH + (now - EPOCH) // step * step

    def __str__(self) -> str:
        return f"every {self.seconds} s"


@dataclass(frozen=True)
class Cron:
    """A slot at each time that a five-field cron line matches on the clocks of time zone `tz`.

    Where clocks go forward, a slot in the hour that they skip is due an hour later. Where they go back, a slot in the
    hour that they repeat is due once, in the first of the two; a line for every hour (`*`) is due in both.
    """

    line: str
    tz: str

    def slot_at(self, now: datetime) -> datetime:
        """The newest slot that is due at `now`."""
        zone = ZoneInfo(self.tz)
        reading = now.astimezone(zone).replace(tzinfo=None)
        earlier = (now - TRANSITION).astimezone(zone).replace(tzinfo=None)
        change = abs(reading - earlier - TRANSITION)
        times = croniter(self.line, reading + change + timedelta(microseconds=1))  # get_prev() excludes its start
        due: list[datetime] = []
        wall = reading
        while not due or (change and wall > earlier - change):  # around a change, clocks tell times out of order
            wall = times.get_prev(datetime)
            due.extend(slot for slot in self._slots(wall, zone) if slot <= now)
        return max(due)

    def _slots(self, wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """When clocks show `wall`: once, or for a line of every hour twice where they repeat it."""
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        yield first
        if second > first and self.line.split()[1].startswith("*"):
            yield second

    def __str__(self) -> str:
        return f"cron {self.line!r} {self.tz}"


Schedule = Every | Cron


def every(*, seconds: int) -> Every:
    """Train every so many seconds.

    Raises:
        ValueError: for anything but a whole number of at least 1.
    """
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
        raise ValueError(f"every(seconds={seconds!r}): expected a whole number of at least 1")
    return Every(seconds)


def cron(line: str, *, tz: str = "UTC") -> Cron:
    """Train when the cron `line` (minute, hour, day of month, month, day of week) says so, in time zone `tz`.

    Raises:
        ValueError: for a line that cannot be read or never comes, or a time zone that does not exist.
    """
    if not isinstance(line, str) or len(line.split()) != 5 or not croniter.is_valid(line):
        raise ValueError(f"cron({line!r}): expected five fields such as '0 3 * * *'")
    try:
        croniter(line, EPOCH).get_next()
    except CroniterBadDateError:
        raise ValueError(f"cron({line!r}): no date ever matches it") from None
    try:
        ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"cron(tz={tz!r}): expected an IANA time zone such as 'Europe/Berlin'") from None
    return Cron(line, tz)
