"""Redis clients with time limits on every call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis.exceptions
from redis import Redis as Redis
from redis._parsers.base import BaseParser
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

log = logging.getLogger(__name__)

AWAY = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)
"""What redis-py raises when Redis is away, slow, still loading its file, or takes nothing for now."""
# For these states of Redis, in which it refuses whatever is asked, redis-py has no errors of their own.
BaseParser.EXCEPTION_CLASSES |= dict.fromkeys(
    ("BUSY", "MISCONF", "MASTERDOWN", "NOREPLICAS"), redis.exceptions.BusyLoadingError
)

START_PATIENCE = 60.0
"""Seconds that a starting worker process waits for Redis."""

T = TypeVar("T")


def once_it_answers(read: Callable[[], T], *, patience: float = START_PATIENCE) -> T:
    """What `read` reads from Redis, as soon as that is there: tried every half second for `patience` seconds.

    For worker processes that start: one that ended because Redis is away would take its whole service with it.

    Raises:
        redis.exceptions.RedisError: one of `AWAY`, where Redis is still away then.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return read()
        except AWAY as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting for Redis: %s", error)
        time.sleep(0.5)


def connect(url: str, *, timeout: float, text: bool = True) -> Redis:
    """A client for `url`; connects at first use, gives up on any call after `timeout` seconds.

    One immediate retry covers a connection that went stale while it lay in the pool; a Redis that is away is
    reported at once instead of waited for. `text=False` is for RQ, which decodes by itself.
    """
    client: Redis = Redis.from_url(
        url,
        protocol=2,
        decode_responses=text,
        encoding_errors="replace",  # one broken byte in an entry must not make the rest of a stream unreadable
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
    )
    return client


# --- several commands on their way at once. redis-py's pipeline takes twice as long for a hundred of them.


def ask(connection: AbstractConnection, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers to `commands`, which are sent in one packet."""
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response() for _ in commands]
    except BaseException:
        connection.disconnect()  # answers that were not read would be taken for those to the next question
        raise


def ask_ahead(redis: Redis, commands: Iterable[Sequence[Any]], in_flight: int) -> Iterator[Any]:
    """The answers to `commands` in their order; up to `in_flight` are on their way while the next is made."""
    with pooled(redis) as connection:
        waiting = 0
        for command in commands:
            connection.send_command(*command)
            waiting += 1
            if waiting == in_flight:
                waiting -= 1
                yield connection.read_response()
        for _ in range(waiting):
            yield connection.read_response()


@contextmanager
def pooled(redis: Redis) -> Iterator[AbstractConnection]:
    """A connection of the client's pool; closed after an error, as `ask` does."""
    connection = redis.connection_pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        redis.connection_pool.release(connection)
