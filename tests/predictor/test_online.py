"""Reads of the online store, by themselves and after trouble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis.exceptions

from modelmill.state.connections import Redis
from services.predictor.features import OnlineStore
from tests.conftest import RedisServer


def test_fields_that_are_not_there_are_none(fake_redis: Redis) -> None:
    fake_redis.hset("a", mapping={"x": "1"})
    assert OnlineStore(fake_redis).read([("HMGET", "a", "x", "y"), ("HMGET", "b", "z")]) == [["1", None], [None]]


@pytest.fixture
def store(real_redis: RedisServer) -> Iterator[OnlineStore]:
    with closing(OnlineStore(real_redis.client())) as store:
        yield store


@pytest.mark.redis
def test_a_connection_that_went_stale_is_opened_again(real_redis: RedisServer, store: OnlineStore) -> None:
    client = real_redis.client()
    client.hset("a", "x", "1")
    store.read([("HMGET", "a", "x")])
    client.client_kill_filter(_type="normal", skipme=False)
    assert store.read([("HMGET", "a", "x")]) == [["1"]]


@pytest.mark.redis
def test_answers_stay_with_their_questions_after_an_error(real_redis: RedisServer, store: OnlineStore) -> None:
    client = real_redis.client()
    client.set("text", "no hash")
    client.hset("a", "x", "1")
    client.hset("b", "x", "2")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        store.read([("HMGET", "text", "x"), ("HMGET", "b", "x")])
    assert store.read([("HMGET", "a", "x")]) == [["1"]]


@pytest.mark.redis
def test_a_redis_that_is_away_is_said_and_comes_back(real_redis: RedisServer, store: OnlineStore) -> None:
    client = real_redis.client()
    client.hset("a", "x", "1")
    store.read([("HMGET", "a", "x")])
    real_redis.stop()
    with pytest.raises(redis.exceptions.ConnectionError):
        store.read([("HMGET", "a", "x")])
    real_redis.start()
    assert store.read([("HMGET", "a", "x")]) == [["1"]]
