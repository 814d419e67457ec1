from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from modelmill.errors import Conflict, Unavailable
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import RowsIngested
from services.feature.store import journal
from services.feature.store.journal import Entry
from tests.conftest import RedisServer

EVENT = RowsIngested(table="users", accepted=1, rejected=0, failed_features=0)


def begin(redis: Redis, digest: str = "a") -> Entry:
    return journal.begin(redis, "users", digest, {"accepted": 1})


def test_a_request_gets_the_time_of_its_ingest(fake_redis: Redis) -> None:
    entry = begin(fake_redis)
    assert abs(entry.ingested - datetime.now(UTC)) < timedelta(minutes=1)
    assert (entry.repeated, entry.answer) == (False, None)


def test_a_request_that_comes_again_has_the_same_time_and_the_first_draft(fake_redis: Redis) -> None:
    first = begin(fake_redis)
    again = journal.begin(fake_redis, "users", "a", {"accepted": 2})
    assert (again.ingested, again.repeated, again.draft) == (first.ingested, True, {"accepted": 1})


def test_a_request_that_was_done_has_its_answer(fake_redis: Redis) -> None:
    journal.finish(fake_redis, begin(fake_redis), {"late": 0}, EVENT)
    assert begin(fake_redis).answer == {"late": 0}


def test_times_increase_even_where_the_clock_does_not(fake_redis: Redis) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    fake_redis.set(keys.ingest_clock("users"), int(ahead.timestamp() * 1e6))
    one, two = begin(fake_redis, "a"), begin(fake_redis, "b")
    assert timedelta(0) < two.ingested - one.ingested == timedelta(microseconds=1)


@pytest.mark.redis
def test_however_many_begin_at_once_each_has_a_time_of_its_own(real_redis: RedisServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        clients = [real_redis.client() for _ in range(8)]
        entries = list(pool.map(lambda n: begin(clients[n % 8], str(n)), range(400)))
    assert len({entry.ingested for entry in entries}) == 400


def test_a_request_is_open_until_it_is_done(fake_redis: Redis) -> None:
    entry = begin(fake_redis)
    assert journal.is_open(fake_redis, entry)
    assert journal.oldest_open(fake_redis, "users") == entry.ingested
    journal.finish(fake_redis, entry, {}, EVENT)
    assert not journal.is_open(fake_redis, entry)
    assert journal.oldest_open(fake_redis, "users") is None


def test_open_requests_are_found_by_age(fake_redis: Redis) -> None:
    entry = begin(fake_redis)
    assert journal.open_entries(fake_redis, "users", older_than=60) == []
    [found] = journal.open_entries(fake_redis, "users", older_than=-1)
    assert (found.digest, found.ingested, found.draft) == (entry.digest, entry.ingested, {"accepted": 1})


def test_what_nobody_finished_for_a_day_is_forgotten(fake_redis: Redis) -> None:
    fake_redis.delete(begin(fake_redis).key)
    assert journal.open_entries(fake_redis, "users", older_than=-1) == []
    assert fake_redis.zcard(keys.ingest_open("users")) == 0


def test_a_dropped_request_may_begin_anew(fake_redis: Redis) -> None:
    entry = begin(fake_redis)
    journal.drop(fake_redis, entry)
    assert not begin(fake_redis).repeated


def test_entries_expire(fake_redis: Redis) -> None:
    entry = begin(fake_redis)
    assert 0 < fake_redis.ttl(entry.key) <= journal.BEGUN
    journal.finish(fake_redis, entry, {}, EVENT)
    assert 0 < fake_redis.ttl(entry.key) <= journal.REMEMBERED_SECONDS


def test_digests_tell_parts_apart() -> None:
    assert journal.digest_of("users", b"ab", b"c") != journal.digest_of("users", b"a", b"bc")
    assert journal.digest_of("users", b"a") != journal.digest_of("visits", b"a")


def test_a_pause_is_not_ended_by_another(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "INGEST_WAIT_SECONDS", 0.2)
    with journal.paused(fake_redis, "users"):
        with (
            pytest.raises(Conflict, match="others are making tiles of users anew at this moment"),
            journal.paused(fake_redis, "users"),
        ):
            pass
        with pytest.raises(Unavailable, match="'users' takes no rows"):
            begin(fake_redis)
    assert not begin(fake_redis).repeated
