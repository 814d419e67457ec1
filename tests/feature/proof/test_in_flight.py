from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import RowsIngested
from services.feature.proof import served
from services.feature.proof.served import Ingests, Sighting, candidates, ingests
from services.feature.store import journal


def t(minute: int) -> str:
    return f"2026-11-25T12:{minute:02}:00.000000Z"


GOING_ON = Ingests({t(10): t(12), t(20): t(22)}, frozenset({t(30)}))


@pytest.mark.parametrize(
    ("ingested", "since", "until", "expected"),
    [
        (10, 11, 11, True),
        (10, 12, 13, True),
        (10, 13, 14, False),
        (10, 8, 9, False),
        (10, 9, 10, True),
        (30, 40, 41, True),
        (30, 28, 29, False),
        (15, 16, 17, False),
    ],
    ids=["within", "at its end", "after it", "before it", "at its begin", "open", "before it opened", "long ended"],
)
def test_an_ingest_goes_on_from_its_ingest_time_until_its_rows_are_online(
    ingested: int, since: int, until: int, expected: bool
) -> None:
    assert GOING_ON.around(t(ingested), t(since), t(until)) is expected


OLD, FIRST, SECOND = Sighting(t(1), t(2), 1), Sighting(t(5), t(10), 2), Sighting(t(4), t(20), 3)


def test_without_ingests_the_newest_row_was_seen() -> None:
    assert candidates([OLD, FIRST, SECOND], GOING_ON, t(25), t(26)) == [FIRST]


def test_a_row_that_was_coming_may_have_been_seen_or_not() -> None:
    assert candidates([OLD, FIRST], GOING_ON, t(11), t(11)) == [OLD, FIRST]
    assert candidates([FIRST], GOING_ON, t(11), t(11)) == [None, FIRST]


def test_a_row_that_was_coming_and_is_older_was_not_seen() -> None:
    assert candidates([OLD, FIRST, SECOND], GOING_ON, t(21), t(21)) == [FIRST]


def test_a_row_of_later_was_not_seen() -> None:
    assert candidates([FIRST], GOING_ON, t(8), t(9)) == [None]
    assert candidates([Sighting(t(50), t(2), 1)], GOING_ON, t(8), t(9)) == [None]


def test_ingests_are_known_from_their_events_and_the_journal(fake_redis: Redis) -> None:
    bus.append(fake_redis, RowsIngested(table="users", accepted=1, rejected=0, failed_features=0, ingest_time=t(1)))
    bus.append(fake_redis, RowsIngested(table="others", accepted=1, rejected=0, failed_features=0, ingest_time=t(2)))
    entry = journal.begin(fake_redis, "users", "digest", {})
    found, known_since = ingests(fake_redis, ["users"], datetime.now(UTC) - timedelta(hours=1))
    assert found["users"].ended.keys() == {t(1)}
    assert found["users"].opened == {entry.ingested.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    assert known_since == ""


def test_where_events_were_trimmed_it_is_known_since_when_they_are_all_there(
    fake_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.bus, "MAX_LENGTH", 1)
    bus.append(fake_redis, RowsIngested(table="users", accepted=1, rejected=0, failed_features=0, ingest_time=t(1)))
    [(_, event)] = bus.newest(fake_redis, keys.EVENTS_FEATURES, 1)
    assert ingests(fake_redis, ["users"], datetime.now(UTC))[1] == event.time
