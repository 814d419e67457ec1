"""What a look at a trigger comes to: what is late, busy or limited, and what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from modelmill.declare.triggers import After, Missed, On, after, cron, every, on
from modelmill.state.events import DriftDetected, Event, QualityDegraded, RowsIngested
from modelmill.times import iso
from services.trainer.triggers.decisions import (
    GRACE,
    MAX_COUNTED_SLOTS,
    MAX_EVENT_WAIT,
    MAX_MADE_UP_SLOTS,
    Read,
    Step,
    TriggerState,
    look_at_events,
    look_at_rows,
    look_at_slots,
)

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOURLY = cron("0 * * * *")


def at(moment: datetime) -> TriggerState:
    """The state of a trigger that was looked at then, at a slot or an entry."""
    return TriggerState(position=iso(moment))


def read(*events: Event, lost: int = 0) -> Read:
    entries = [(f"{number}-0", event.to_fields()) for number, event in enumerate(events, 1)]
    return Read(entries, f"{len(entries)}-0", len(entries) + lost, lost)


def rows(accepted: int, source: str = "users") -> RowsIngested:
    return RowsIngested(table=source, accepted=accepted, rejected=0, failed_features=0)


def free() -> str:
    return ""


def busy() -> str:
    return "busy"


def outcomes(step: Step) -> dict[str, int]:
    return dict(step.outcomes)


def test_a_slot_in_time_fires_and_says_which_it_was() -> None:
    step = look_at_slots(HOURLY, at(NOON - MINUTE * 60), NOON + MINUTE / 2, free)
    assert step.firing is not None
    assert (step.firing.by, step.firing.end) == ("cron '0 * * * *' UTC, slot 2026-05-04T12:00:00Z", None)
    assert (step.state.position, step.state.fired) == (iso(NOON), iso(NOON))


def test_the_first_look_fires_nothing() -> None:
    step = look_at_slots(HOURLY, TriggerState(), NOON + MINUTE, free)
    assert (step.firing, step.state) == (None, at(NOON))


@pytest.mark.parametrize(
    "missed, fired, end, skipped",
    [
        ("skip", None, None, 4),
        ("latest", "12:00", None, 3),
        ("all", "09:00", "2026-05-04T09:00:00.000000Z", 0),
    ],
)
def test_slots_at_which_no_scheduler_ran_are_skipped_or_made_up_for(
    missed: Missed, fired: str | None, end: str | None, skipped: int
) -> None:
    trigger = cron("0 * * * *", missed=missed)
    step = look_at_slots(trigger, at(NOON - MINUTE * 240), NOON + GRACE + MINUTE, free)
    assert outcomes(step).get("skipped_late", 0) == skipped
    if fired is None:
        assert step.firing is None
    else:
        assert step.firing is not None
        assert step.firing.by.endswith(f"slot 2026-05-04T{fired}:00Z")
        assert step.firing.end == end


def test_all_missed_slots_are_made_up_for_one_after_another_as_of_their_times() -> None:
    trigger, state, now = cron("0 * * * *", missed="all"), at(NOON - MINUTE * 240), NOON + MINUTE / 2
    ends = []
    while (step := look_at_slots(trigger, state, now, free)).firing:
        ends.append(step.firing.end)
        state = step.state
    assert ends == [iso(NOON - MINUTE * 60 * hours) for hours in (3, 2, 1)] + [None]  # the last is in time


def test_what_is_made_up_for_and_counted_is_bounded() -> None:
    week = NOON + timedelta(days=7, seconds=30)
    step = look_at_slots(every(seconds=60, missed="all"), at(NOON), week, free)
    assert step.firing is not None
    assert step.firing.end == iso(NOON + timedelta(days=7) - (MAX_MADE_UP_SLOTS - 1) * MINUTE)
    assert outcomes(step) == {"skipped_late": MAX_COUNTED_SLOTS - MAX_MADE_UP_SLOTS, "fired": 1}


@pytest.mark.parametrize("missed, outcome", [("skip", "skipped_busy"), ("latest", "waits_busy"), ("all", "waits_busy")])
def test_a_slot_at_which_the_model_trains_is_skipped_or_waits(missed: Missed, outcome: str) -> None:
    trigger = cron("0 * * * *", missed=missed)
    before = at(NOON - MINUTE * 60)
    step = look_at_slots(trigger, before, NOON, busy)
    assert (outcomes(step), step.firing) == ({outcome: 1}, None)
    again = look_at_slots(trigger, step.state, NOON + timedelta(seconds=1), busy)
    assert outcomes(again) == {}, "waiting is counted once"
    later = look_at_slots(trigger, again.state, NOON + 5 * MINUTE, free)
    assert (later.firing is not None) == (missed != "skip")


def test_slots_within_the_cool_down_or_over_the_daily_limit_are_skipped() -> None:
    trigger = every(seconds=60, cooldown="3m", daily=3)
    state, seen = at(NOON), []
    for minute in range(1, 13):
        step = look_at_slots(trigger, state, NOON + minute * MINUTE, free)
        state = step.state
        seen += list(outcomes(step))
    expected = ["fired", "skipped_cooldown", "skipped_cooldown"] * 3
    assert seen == [*expected, "skipped_daily", "skipped_daily", "skipped_daily"]
    assert state.on(NOON) == {"fired": 3, "skipped_cooldown": 6, "skipped_daily": 3}
    assert look_at_slots(trigger, state, NOON + timedelta(days=1), free).firing, "the next day has a limit of its own"


def test_a_cool_down_counts_from_slot_to_slot_whenever_they_were_noticed() -> None:
    trigger = every(seconds=60, cooldown="1m")
    late = look_at_slots(trigger, at(NOON), NOON + MINUTE + timedelta(seconds=0.9), free)
    assert look_at_slots(trigger, late.state, NOON + 2 * MINUTE, free).firing is not None


def look(trigger: After, state: TriggerState, found: Read, moment: datetime = NOON, *, full: str = "") -> Step:
    return look_at_rows(trigger, state, found, {"users"}, moment, lambda: full)


def test_accepted_rows_of_the_sources_are_counted_and_enough_of_them_fire() -> None:
    step = look(after(rows=10), at(NOON), read(rows(4), rows(90, "others"), DriftDetected(model="m"), rows(5)))
    assert (step.firing, step.state.rows, step.state.position) == (None, 9, "4-0")
    step = look(after(rows=10), step.state, read(rows(3)))
    assert step.firing is not None
    assert (step.firing.by, step.state.rows) == ("after 10 rows: 12 came", 0)


def test_rows_that_are_enough_wait_for_what_is_in_the_way_and_are_not_lost() -> None:
    trigger = after(rows=10, cooldown="10m", daily=2)
    state, seen = at(NOON), []
    for minute, obstacle in ((0, "busy"), (1, "busy"), (2, ""), (3, ""), (11, ""), (12, ""), (13, "full"), (30, "")):
        step = look(trigger, state, read(rows(10)), NOON + minute * MINUTE, full=obstacle)
        seen.append((minute, *outcomes(step)))
        state = step.state
    assert seen == [
        (0, "waits_busy"), (1,), (2, "fired"), (3, "waits_cooldown"), (11,), (12, "fired"), (13, "waits_cooldown"), (30, "waits_daily"),
    ]  # fmt: skip
    assert state.rows == 20, "they are still there on the next day"
    assert look(trigger, state, read(), NOON + timedelta(days=1)).firing


def test_trimmed_entries_are_counted_as_lost() -> None:
    step = look(after(rows=10), TriggerState(position="1-0", lost=2), read(rows(1), lost=7))
    assert (step.state.lost, step.state.entries) == (9, 8)


def test_an_entry_without_a_number_counts_no_rows() -> None:
    broken = [("1-0", rows(5).to_fields() | {"accepted": "many"}), ("2-0", {"type": "rows.ingested", "table": "users"})]
    assert look(after(rows=1), at(NOON), Read(broken, "2-0", 2, 0)).state.rows == 0


def hear(
    trigger: On, state: TriggerState, events: Sequence[Event], moment: datetime = NOON, obstacle: str = ""
) -> Step:
    return look_at_events(trigger, state, read(*events), "user_target", moment, lambda: obstacle)


def drift() -> DriftDetected:
    return DriftDetected(model="user_target")


def test_an_event_about_the_model_fires_and_others_do_not() -> None:
    others = [DriftDetected(model="other"), QualityDegraded(model="user_target"), rows(5)]
    assert hear(on("drift.detected"), at(NOON), others).firing is None
    event = drift()
    step = hear(on("drift.detected"), at(NOON), [*others, event])
    assert step.firing is not None
    assert step.firing.by == f"on drift.detected, event {event.id}"


def test_an_event_waits_alone_for_the_end_of_a_training() -> None:
    trigger, first = on("drift.detected"), drift()
    step = hear(trigger, at(NOON), [first, drift()], obstacle="busy")
    assert outcomes(step) == {"joined": 1, "waits_busy": 1}
    step = hear(trigger, step.state, [drift()], NOON + MINUTE, "busy")
    assert outcomes(step) == {"joined": 1}
    step = hear(trigger, step.state, [], NOON + 2 * MINUTE)
    assert step.firing is not None
    assert step.firing.by.endswith(first.id)
    assert hear(trigger, step.state, [], NOON + 20 * MINUTE).firing is None, "one training was for all of them"


def test_an_event_does_not_wait_for_ever() -> None:
    step = hear(on("drift.detected"), at(NOON), [drift()], obstacle="full")
    step = hear(on("drift.detected"), step.state, [], NOON + MAX_EVENT_WAIT + MINUTE, "full")
    assert (outcomes(step), step.state.event, step.state.waits) == ({"skipped_late": 1}, "", "")


def test_events_within_the_cool_down_or_over_the_daily_limit_are_skipped() -> None:
    trigger = on("drift.detected", cooldown="10m", daily=2)
    state, seen = at(NOON), []
    for minute in (0, 9, 10, 25):
        step = hear(trigger, state, [drift()], NOON + minute * MINUTE)
        state = step.state
        seen += list(outcomes(step))
    assert seen == ["fired", "skipped_cooldown", "fired", "skipped_daily"]


def test_a_state_is_text_and_back() -> None:
    state = hear(on("drift.detected"), at(NOON), [drift(), drift()], obstacle="busy").state
    assert TriggerState.read(str(state)) == state
    assert TriggerState.read(None) == TriggerState()
    assert Counter(state.on(NOON)) == {"joined": 1, "waits_busy": 1}
