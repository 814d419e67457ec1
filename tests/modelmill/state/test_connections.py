from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread

import pytest

from modelmill.local import free_port
from modelmill.state.connections import AWAY, Redis, connect, once_it_answers
from tests.conftest import RedisServer

TIMEOUT = 0.2


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def test_nothing_connects_before_it_is_used() -> None:
    connect("redis://nowhere.invalid:6379/0", timeout=TIMEOUT)


def test_a_redis_that_is_away_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(AWAY):
        connect(f"redis://127.0.0.1:{free_port()}/0", timeout=30).ping()
    assert time.monotonic() - began < 5


def test_a_redis_that_does_not_answer_is_given_up(silent: str) -> None:
    began = time.monotonic()
    with pytest.raises(AWAY):
        connect(silent, timeout=TIMEOUT).ping()
    assert time.monotonic() - began < 10 * TIMEOUT


@pytest.mark.redis
def test_a_connection_that_went_stale_is_made_anew(real_redis: RedisServer) -> None:
    client = real_redis.client()
    client.set("key", "value")
    real_redis.stop()
    real_redis.start()
    assert client.get("key") == "value"


@pytest.mark.redis
def test_a_broken_byte_leaves_the_rest_readable(real_redis: RedisServer) -> None:
    real_redis.client(text=False).hset("hash", mapping={"whole": b"value", "broken": b"\xff"})
    assert real_redis.client().hgetall("hash") == {"whole": "value", "broken": "\N{REPLACEMENT CHARACTER}"}


@pytest.mark.redis
def test_a_reader_waits_for_a_redis_that_is_not_there_yet(real_redis: RedisServer) -> None:
    client = real_redis.client()
    real_redis.stop()
    thread = Thread(target=real_redis.start)
    thread.start()
    assert once_it_answers(client.ping, patience=20)
    thread.join()


def test_a_reader_waits_no_longer_than_it_may() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)
    with pytest.raises(AWAY):
        once_it_answers(client.ping, patience=0)


def run_endless_script(client: Redis) -> None:
    """Let Redis run a script as long as it lives, and answer all others that it is busy."""

    def run() -> None:
        with suppress(*AWAY):
            client.eval("while true do end", 0)

    client.config_set("lua-time-limit", 10)
    Thread(target=run, daemon=True).start()
    time.sleep(0.1)


REFUSING: dict[str, Callable[[Redis], object]] = {
    "runs a script": run_endless_script,
    "has no memory left": lambda client: client.config_set("maxmemory", 1),
    "is a replica by now": lambda client: client.replicaof("127.0.0.1", 1),
    "has too few replicas": lambda client: client.config_set("min-replicas-to-write", 1),
}


@pytest.mark.redis
@pytest.mark.parametrize("refuse", REFUSING.values(), ids=REFUSING)
def test_a_redis_that_takes_nothing_for_now_counts_as_away(
    refuse: Callable[[Redis], object], real_redis: RedisServer
) -> None:
    refuse(real_redis.client())
    with pytest.raises(AWAY):
        real_redis.client().set("key", "value")
    real_redis.stop(kill=True)  # no other way ends the script for sure
