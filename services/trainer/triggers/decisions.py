"""What a look at a trigger comes to, without Redis: its state afterwards, and the training that it asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from modelmill.declare.triggers import After, On, Slots, Trigger
from modelmill.state.events import RowsIngested, iso
from services.trainer.triggers.state import FIRED, JOINED, WAITS, TriggerState
from services.trainer.triggers.streams import Read

GRACE = timedelta(seconds=60)
"""How late a slot may be noticed and still be in time: longer than a restart of the trainer takes."""
MOST_MISSED = 100
"""Missed slots that are made up for at most, the newest ones."""
MOST_COUNTED = 1000
"""Missed slots that are counted at most."""
PATIENCE = timedelta(days=1)
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
    due = trigger.between(datetime.fromisoformat(state.position), now, MOST_COUNTED)
    wanted = due[-MOST_MISSED:] if trigger.missed == "all" else due[-1:]
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
    if iso(now - PATIENCE) > step.state.since:
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
