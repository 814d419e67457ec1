"""The position of a model's data."""

from __future__ import annotations

from modelmill.declare.definitions_file import load
from modelmill.state import keys
from modelmill.state.connections import Redis
from services.trainer.jobs.snapshot import position
from tests.conftest import USERS_MILL


def test_it_changes_with_what_is_ingested_and_with_nothing_else(fake_redis: Redis) -> None:
    definitions = load(USERS_MILL)
    first = position(fake_redis, definitions, "user_target")
    assert position(fake_redis, definitions, "user_target") == first
    fake_redis.set(keys.ingest_clock("other"), "1")
    assert position(fake_redis, definitions, "user_target") == first
    fake_redis.set(keys.ingest_clock("users"), "1")
    second = position(fake_redis, definitions, "user_target")
    fake_redis.zadd(keys.ingest_open("users"), {"digest": 1.0})
    third = position(fake_redis, definitions, "user_target")
    fake_redis.delete(keys.ingest_open("users"))
    assert len({first, second, third}) == 3
    assert position(fake_redis, definitions, "user_target") == second
