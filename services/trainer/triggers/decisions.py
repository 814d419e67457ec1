"""What a look at a trigger comes to, without Redis: its state afterwards, and the training that it asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta

import orjson
from redis.exceptions import ResponseError

from modelmill.declare.triggers import After, On, Slots, Trigger
from modelmill.state.bus import RawEntry
from modelmill.state.connections import Redis
from modelmill.state.events import RowsIngested
from modelmill.times import iso

GRACE = timedelta(seconds=60)
"""How late a slot may be noticed and still be in time: longer than a restart of the trainer takes."""
MAX_MADE_UP_SLOTS = 100
"""Missed slots that are made up for at most, the newest ones."""
MAX_COUNTED_SLOTS = 1000
"""Missed slots that are counted at most."""
MAX_EVENT_WAIT = timedelta(days=1)
"""How long an event waits at most to fire its trigger."""
LONGEST_ID = 100
"""Letters of an event's id that are told."""

Obstacle = Callable[[], str]
"""What keeps a model from being trained now: `busy` where it is already, `full` for the queue, or nothing."""


@dataclass(frozen=True)
class Firing:
    """A training that a trigger asks for."""

    by: str
    """What fired it, for people."""
    end: str | None = None
    """The time before which its rows' event times are to lie; None for all rows."""


@dataclass(frozen=True)
class Step:
    """What one look at a trigger comes to."""

    state: TriggerState
    outcomes: Counter[str] = field(default_factory=Counter)
    """What is counted: outcome to how often."""
    firing: Firing | None = None

    def noting(self, outcome: str, now: datetime, times: int = 1) -> Step:
        """The step with an outcome more, unless it still waits for the same."""
        state = self.state.noting(outcome, now, times)
        if state is self.state:
            return self
        return replace(self, state=state, outcomes=self.outcomes + Counter({outcome: times}))

    def firing_by(self, by: str, now: datetime, end: str | None = None) -> Step:
        """The step with a training asked for."""
        return replace(self.noting(FIRED, now), firing=Firing(by, end))


def decide(
    trigger: Trigger,
    state: TriggerState,
    read: Read,
    *,
    model: str,
    sources: Collection[str],
    now: datetime,
    obstacle: Obstacle,
) -> Step:
    """What a look at a trigger of `model` comes to.

    Args:
        read: for a trigger that follows a stream, what came after the state's position.
        sources: those whose rows count.
    """
    if isinstance(trigger, Slots):
        return look_at_slots(trigger, state, now, obstacle)
    if not state.position:  # what came before there was such a trigger does not fire it
        return Step(_read(state, read))
    if isinstance(trigger, After):
        return look_at_rows(trigger, state, read, sources, now, obstacle)
    assert isinstance(trigger, On)
    return look_at_events(trigger, state, read, model, now, obstacle)


def look_at_slots(trigger: Slots, state: TriggerState, now: datetime, obstacle: Obstacle) -> Step:
    """Carry out the slot that is due, if any."""
    if not state.position:  # a slot from before there was such a trigger is not due
        return Step(replace(state, position=iso(trigger.slot_at(now))))
    if iso(trigger.slot_at(now)) <= state.position:
        return Step(state)
    due = trigger.between(datetime.fromisoformat(state.position), now, MAX_COUNTED_SLOTS)
    wanted = due[-MAX_MADE_UP_SLOTS:] if trigger.missed == "all" else due[-1:]
    if trigger.missed == "skip" and now - wanted[-1] > GRACE:
        wanted = []
    step = _passing_by(Step(state), due[: len(due) - len(wanted)], now)
    if not wanted:
        return step
    slot = wanted[0]
    if limit := step.state.limit(trigger, now, slot=slot):
        return _at(step.noting(f"skipped_{limit}", now), slot)
    if reason := obstacle():
        if trigger.missed == "skip":
            return _at(step.noting(f"skipped_{reason}", now), slot)
        return step.noting(f"{WAITS}{reason}", now)
    made_up = trigger.missed == "all" and now - slot > GRACE
    by = f"{trigger}, slot {slot:%Y-%m-%dT%H:%M:%SZ}"
    fired = _at(step.firing_by(by, now, end=iso(slot) if made_up else None), slot)
    return replace(fired, state=replace(fired.state, fired=iso(slot)))


def look_at_rows(
    trigger: After, state: TriggerState, read: Read, sources: Collection[str], now: datetime, obstacle: Obstacle
) -> Step:
    """Count accepted rows of `sources`; ask for a training where enough have come, which waits for what is in its way.

    `read` is what came after the state's position.
    """
    came = sum(_rows(entry) for _, entry in read.entries if entry.get("table") in sources)
    step = Step(replace(_read(state, read), rows=state.rows + came))
    if step.state.rows < trigger.rows:
        return step
    if reason := step.state.limit(trigger, now) or obstacle():
        return step.noting(f"{WAITS}{reason}", now)
    fired = step.firing_by(f"{trigger}: {step.state.rows} came", now)
    return replace(fired, state=replace(fired.state, rows=0))


def look_at_events(trigger: On, state: TriggerState, read: Read, model: str, now: datetime, obstacle: Obstacle) -> Step:
    """Ask for a training where an event about `model` has come; it waits for what is in its way, alone.

    `read` is what came after the state's position.
    """
    step = Step(_read(state, read))
    for position, entry in read.entries:
        if entry.get("type") == trigger.event and entry.get("model") == model:
            step = _hear(trigger, step, (entry.get("id") or position)[:LONGEST_ID], now)
    if not step.state.event:
        return step
    by = f"{trigger}, event {step.state.event}"
    settled = replace(step.state, event="", since="")
    if iso(now - MAX_EVENT_WAIT) > step.state.since:
        return replace(step, state=settled).noting("skipped_late", now)
    if reason := obstacle():
        return step.noting(f"{WAITS}{reason}", now)
    return replace(step, state=settled).firing_by(by, now)


def _hear(trigger: On, step: Step, event: str, now: datetime) -> Step:
    if step.state.event:
        return step.noting(JOINED, now)
    if limit := step.state.limit(trigger, now):
        return step.noting(f"skipped_{limit}", now)
    return replace(step, state=replace(step.state, event=event, since=iso(now)))


def _passing_by(step: Step, missed: list[datetime], now: datetime) -> Step:
    return _at(step.noting("skipped_late", now, len(missed)), missed[-1]) if missed else step


def _at(step: Step, slot: datetime) -> Step:
    return replace(step, state=replace(step.state, position=iso(slot)))


def _read(state: TriggerState, read: Read) -> TriggerState:
    return replace(state, position=read.position, entries=read.passed, lost=state.lost + read.lost)


def _rows(entry: dict[str, str]) -> int:
    """The accepted rows that an entry tells of."""
    if entry.get("type") != RowsIngested.type:
        return 0
    accepted = entry.get("accepted", "")
    return int(accepted) if accepted.isdecimal() else 0  # no event of ours; there is nothing to count


# --- how far one trigger of a model has come, and what became of it: its field in the hash `triggers:{model}`

FIRED = "fired"
"""The outcome of a trigger whose training waits in the queue."""
JOINED = "joined"
"""The outcome of an event that came while another one waited."""
WAITS = "waits_"
"""How outcomes begin that are not final."""


@dataclass(frozen=True, kw_only=True)
class TriggerState:
    """All that is remembered of a trigger. Times are ISO 8601 in UTC, empty where there are none."""

    position: str = ""
    """The newest slot that has had its outcome, or the last entry of the stream that was counted."""
    entries: int = 0
    """How many entries the stream has had up to there, the lost ones included."""
    lost: int = 0
    """Entries that were trimmed from the stream before they were read."""
    rows: int = 0
    """Accepted rows since it fired last."""
    event: str = ""
    """Id of the event that waits to fire it."""
    since: str = ""
    """When that came."""
    fired: str = ""
    """When it fired last; for a slot, its time."""
    waits: str = ""
    """What is in its way, where it would fire: `waits_busy`, ..."""
    outcome: str = ""
    """What became of it last; see `services.trainer.triggers.scheduler`."""
    outcome_at: str = ""
    day: str = ""
    """The day of UTC that `today` is about."""
    today: dict[str, int] = field(default_factory=dict)
    """Outcome to how often it came on that day."""

    @classmethod
    def read(cls, text: str | None) -> TriggerState:
        """The state that `str` wrote; that of a trigger that was never looked at for None."""
        return cls(**orjson.loads(text)) if text else cls()

    def __str__(self) -> str:
        known = {name: value for name, value in asdict(self).items() if value}
        return orjson.dumps(known).decode()

    def on(self, day: datetime) -> dict[str, int]:
        """Outcome to how often it came on the day of `day`."""
        return self.today if self.day == iso(day)[:10] else {}

    def limit(self, trigger: Trigger, now: datetime, *, slot: datetime | None = None) -> str:
        """The limit of `trigger` that keeps it from firing now: `cooldown`, `daily`, or nothing.

        The cool-down of a `slot` counts from slot to slot, whenever they were noticed.
        """
        if self.fired and iso((slot or now) - trigger.pause) < self.fired:
            return "cooldown"
        if trigger.daily is not None and self.on(now).get(FIRED, 0) >= trigger.daily:
            return "daily"
        return ""

    def noting(self, outcome: str, now: datetime, times: int = 1) -> TriggerState:
        """The state after an outcome came so often; one that only waits as before is noted once."""
        if not times or outcome == self.waits:
            return self
        today = self.on(now)
        waits = outcome if outcome.startswith(WAITS) else ""
        return replace(
            self,
            waits=self.waits if outcome == JOINED else waits,
            fired=iso(now) if outcome == FIRED else self.fired,
            outcome=outcome,
            outcome_at=iso(now),
            day=iso(now)[:10],
            today=today | {outcome: today.get(outcome, 0) + times},
        )


# --- what was appended to event streams after a trigger's position, and how much of it was trimmed before it was read

ENTRIES_PER_READ = 1000
"""Entries that are read at once."""
START = "0-0"
"""The position before every entry."""


@dataclass(frozen=True)
class Read:
    """Some entries of a stream."""

    entries: list[RawEntry]
    position: str
    """After them."""
    passed: int
    """How many entries the stream has had up to there."""
    lost: int
    """How many before them were trimmed unread. Known where Redis counts a stream's entries: from version 7 on."""

    @property
    def more(self) -> bool:
        """Whether there may be further entries."""
        return len(self.entries) == ENTRIES_PER_READ


NOTHING = Read([], START, 0, 0)


@dataclass
class Streams:
    """Reads streams for one look of a scheduler; what several triggers read from the same position is read once."""

    redis: Redis
    """A client that decodes to text."""
    known: dict[tuple[str, str, int], Read] = field(default_factory=dict)

    def end(self, stream: str) -> Read:
        """No entries, and the position after the newest."""
        try:
            info = self.redis.xinfo_stream(stream)
        except ResponseError:  # there is no such stream yet
            return NOTHING
        return Read([], info["last-generated-id"], info.get("entries-added", 0), 0)

    def after(self, stream: str, position: str, passed: int) -> Read:
        """The next entries after `position`, up to which the stream had `passed` entries."""
        key = (stream, position, passed)
        if key not in self.known:
            self.known[key] = self._after(stream, position, passed)
        return self.known[key]

    def _after(self, stream: str, position: str, passed: int) -> Read:
        with self.redis.pipeline() as pipe:  # a transaction: nothing is trimmed between the two
            pipe.xinfo_stream(stream)
            pipe.xrange(stream, min=f"({position}", count=ENTRIES_PER_READ)
            info, entries = pipe.execute(raise_on_error=False)
        if isinstance(info, ResponseError):
            return Read([], position, passed, 0)
        first = info["first-entry"][0] if info["first-entry"] else None
        lost = 0
        if "entries-added" in info and (first is None or _order(first) > _order(position)):
            lost = max(0, info["entries-added"] - info["length"] - passed)
        return Read(entries, entries[-1][0] if entries else position, passed + lost + len(entries), lost)


def _order(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))
