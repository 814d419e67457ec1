"""What triggers a training: slots are the same for every scheduler, also where clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.declare.declarations import Entity, Source
from modelmill.declare.triggers import After, Cron, Every, On, Slots, Trigger, after, cron, every, on

BERLIN = "Europe/Berlin"
SPRING = datetime(2026, 3, 29, tzinfo=UTC)
"""The day on which Berlin's clocks go from 02:00 to 03:00, at 01:00 UTC."""
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)
"""The day on which Berlin's clocks go from 03:00 back to 02:00, at 01:00 UTC."""


def slots(schedule: Slots, start: datetime, hours: float, step: timedelta = timedelta(minutes=5)) -> list[str]:
    """The slots that become due from `start` on, as a scheduler sees that looks every `step`."""
    found, last = [], schedule.slot_at(start)
    now = start
    while now < start + timedelta(hours=hours):
        now += step
        slot = schedule.slot_at(now)
        assert slot >= last, f"slots went back from {last} to {slot} at {now}"
        if slot > last:
            found.append(f"{slot:%d %H:%M}")
            last = slot
    return found


def test_every_is_due_at_multiples_since_1970_so_that_all_schedulers_name_the_same_slots() -> None:
    at = datetime(2026, 5, 4, 12, 0, 59, tzinfo=UTC)
    assert every(seconds=60).slot_at(at) == datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def test_a_slot_is_due_from_its_very_moment_on() -> None:
    noon = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
    assert cron("0 12 * * *").slot_at(noon) == noon
    assert cron("0 12 * * *").slot_at(noon - timedelta(microseconds=1)) == noon - timedelta(days=1)


def test_cron_follows_the_clocks_of_its_time_zone() -> None:
    assert slots(cron("0 3 * * *", tz=BERLIN), datetime(2026, 1, 10, tzinfo=UTC), 24) == ["10 02:00"]
    assert slots(cron("0 3 * * *", tz=BERLIN), datetime(2026, 7, 10, tzinfo=UTC), 24) == ["10 01:00"]


def test_a_time_that_clocks_skip_is_due_an_hour_later_once() -> None:
    assert slots(cron("30 2 * * *", tz=BERLIN), SPRING - timedelta(hours=2), 24) == ["29 01:30"]


def test_a_time_that_clocks_repeat_is_due_once() -> None:
    assert slots(cron("30 2 * * *", tz=BERLIN), AUTUMN - timedelta(hours=2), 24) == ["25 00:30"]


def test_a_line_of_every_quarter_keeps_its_quarters_where_clocks_go_back() -> None:
    quarters = slots(cron("*/15 * * * *", tz=BERLIN), AUTUMN - timedelta(minutes=1), 3)
    assert quarters == [f"25 {h:02}:{m:02}" for h in range(3) for m in (0, 15, 30, 45)]


def test_a_line_of_every_quarter_keeps_its_quarters_where_clocks_go_forward() -> None:
    quarters = slots(cron("*/15 * * * *", tz=BERLIN), SPRING - timedelta(minutes=1), 3)
    assert quarters == [f"29 {h:02}:{m:02}" for h in range(3) for m in (0, 15, 30, 45)]


@given(
    line=st.sampled_from(["0 3 * * *", "30 2 * * *", "*/20 * * * *", "0 * * * *", "15 1-4 * * 0", "0 0 1 * *"]),
    day=st.sampled_from([SPRING, AUTUMN, datetime(2026, 6, 1, tzinfo=UTC)]),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"]),
    minutes=st.lists(st.integers(-3000, 3000), min_size=2, max_size=6),
)
def test_slots_never_go_back_and_are_never_in_the_future(
    line: str, day: datetime, zone: str, minutes: list[int]
) -> None:
    schedule = Cron(line, zone)
    moments = [day + timedelta(minutes=m) for m in sorted(minutes)]
    found = [schedule.slot_at(moment) for moment in moments]
    assert all(slot <= moment for slot, moment in zip(found, moments, strict=True))
    assert found == sorted(found)


@given(
    line=st.sampled_from(["0 3 * * *", "30 2 * * *", "*/20 * * * *", "0 * * * *", "15 1-4 * * 0", "0 0 1 * *"]),
    day=st.sampled_from([SPRING, AUTUMN, datetime(2026, 6, 1, tzinfo=UTC)]),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"]),
    minutes=st.integers(-3000, 3000),
)
def test_the_next_slot_is_the_first_that_comes(line: str, day: datetime, zone: str, minutes: int) -> None:
    schedule, now = Cron(line, zone), day + timedelta(minutes=minutes)
    following = schedule.next_slot(now)
    assert now < following == schedule.slot_at(following)
    assert schedule.slot_at(following - timedelta(microseconds=1)) == schedule.slot_at(now)


def test_the_next_slot_of_an_interval_is_its_next_multiple() -> None:
    noon = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
    assert every(seconds=60).next_slot(noon) == noon + timedelta(minutes=1)
    assert every(seconds=60).next_slot(noon - timedelta(seconds=1)) == noon


def test_slots_between_two_times_are_the_newest_of_them_oldest_first() -> None:
    noon = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
    hours = cron("0 * * * *").between(noon - timedelta(hours=4), noon, 3)
    assert hours == [noon - timedelta(hours=2), noon - timedelta(hours=1), noon]
    assert every(seconds=3600).between(noon, noon + timedelta(minutes=59), 3) == []


@given(minute=st.integers(0, 7 * 24 * 60))
def test_away_from_clock_changes_a_slot_is_what_the_clock_says(minute: int) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(minutes=minute)
    local = now.astimezone(ZoneInfo(BERLIN))
    expected = local.replace(minute=30) if local.minute >= 30 else local.replace(minute=30) - timedelta(hours=1)
    assert cron("30 * * * *", tz=BERLIN).slot_at(now) == expected


@pytest.mark.parametrize("line", ["0 3 * *", "0 3 * * * *", "", "@daily"])
def test_a_line_that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="expected five fields"):
        cron(line)


@pytest.mark.parametrize("line", ["61 * * * *", "0 3 * * mox"])
def test_a_field_that_cannot_be_read_is_refused_with_what_each_takes(line: str) -> None:
    with pytest.raises(ValueError, match=r"expected minute \(0-59\), hour"):
        cron(line)


def test_a_date_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="no date ever matches"):
        cron("0 0 30 2 *")


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="IANA time zone"):
        cron("0 3 * * *", tz="Europe/Atlantis")


@pytest.mark.parametrize("seconds", [0, -60, 1.5, "60", True])
def test_an_interval_that_is_no_whole_number_of_seconds_is_refused(seconds: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        every(seconds=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "trigger, name",
    [
        (every(seconds=60, cooldown="10m", daily=24), "every 60 s"),
        (cron("0 3 * * *", tz=BERLIN, missed="all"), "cron '0 3 * * *' Europe/Berlin"),
        (after(rows=1000), "after 1000 rows"),
        (after(rows=1000, source="users"), "after 1000 rows of users"),
        (on("drift.detected"), "on drift.detected"),
    ],
)
def test_a_trigger_is_named_by_what_fires_it_whatever_its_limits_are(trigger: Trigger, name: str) -> None:
    assert str(trigger) == name


def test_slots_have_no_limits_and_what_comes_from_outside_has_some_unless_declared_otherwise() -> None:
    slots: list[Trigger] = [every(seconds=60), cron("0 3 * * *")]
    outside: list[Trigger] = [after(rows=1), on("drift.detected")]
    assert {(t.cooldown, t.daily) for t in slots} == {(None, None)}
    assert {(t.cooldown, t.daily) for t in outside} == {("10m", 24)}
    assert on("drift.detected", cooldown=None, daily=None).pause == timedelta(0)
    assert every(seconds=60, cooldown="2h").pause == timedelta(hours=2)


def test_a_source_may_be_named_by_its_declaration() -> None:
    users = Source("users", entity=Entity("user", key="user_id"), columns={"target": int})
    assert after(rows=5, source=users).source == "users"


@pytest.mark.parametrize(
    "line", ["0 3 * * *", "*/15 0-6,22 1,15 jan-mar,12 mon-fri", "5/20 3 * * 7", "0 0 29 2 *", "1-59/2 * * * sun,3"]
)
def test_a_line_of_numbers_ranges_steps_and_lists_names_the_same_slots_each_time(line: str) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    assert {cron(line).next_slot(now) for _ in range(5)} == {cron(line).next_slot(now)}


@pytest.mark.parametrize(
    "line",
    [
        "R R * * *", "R(0-10) 3 * * *", "H H * * *", "H(0-9) * * * *", "0 3 L * *", "0 3 * * L5", "0 3 * * 5#2", "0 3 ? * *",
        "0 3 15W * *", "0 3 * * r", "0, 3 * * *", ",0 3 * * *", "0 3 * * mon-", "0 */ * * *", "0 24 * * *", "0 3 * 13 *",
        "0 3 * foo *", "\u0660 3 * * *", "0 3 * * @daily",
    ],
)  # fmt: skip
def test_a_line_of_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="expected minute \\(0-59\\)"):
        cron(line)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: every(seconds=60, cooldown="soon"), "every\\(cooldown=...\\): 'soon' is no length of time"),
        (lambda: after(rows=10, daily=0), "after\\(daily=0\\): expected a whole number of at least 1"),
        (lambda: cron("0 3 * * *", missed="some"), "cron\\(missed='some'\\): expected one of 'skip', 'latest', 'all'"),
        (lambda: after(rows=0), "after\\(rows=0\\): expected a whole number of at least 1"),
        (lambda: after(rows=True), "after\\(rows=True\\): expected a whole number"),
        (lambda: after(rows=10, source=7), "after\\(source=7\\): expected a source or its name"),
        (lambda: on("drift.detect"), "on\\('drift.detect'\\).*did you mean 'drift.detected'"),
        (lambda: on("rows.ingested"), "expected the type of an event about a model"),
        (lambda: on("prediction.served"), "expected the type of an event about a model"),
        (lambda: on(7), "expected the type of an event about a model"),
        (lambda: Every("60"), "whole number"),
        (lambda: Cron("every day", "UTC"), "five fields"),
        (lambda: After(-1, None), "whole number"),
        (lambda: On("never"), "expected the type of an event"),
    ],
)
def test_a_trigger_that_cannot_be_is_refused_by_a_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()
