"""Reads the hashes of entities from the online store, all that a request needs in one round trip."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import redis.exceptions
from redis.connection import Connection

from modelmill.state.connections import Redis

Stored = list[str | None]
"""The texts of the fields that were asked for; None for a field that is not there."""


class OnlineStore:
    """A connection for each thread that reads.

    A request spends a third of its time on this read. redis-py's pool, retries and dispatch would add a tenth of a
    request; its connections, which know about TLS, passwords and time limits, are what is used here.
    """

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._own = threading.local()

    def read(self, commands: Sequence[tuple[str, ...]]) -> list[Stored]:
        """What the HMGET `commands` answer; a connection that went stale is opened again, once.

        Raises:
            redis.exceptions.RedisError: where Redis is away, or a key holds no hash.
        """
        connection = self._connection()
        try:
            return _ask(connection, commands)
        except redis.exceptions.ConnectionError:
            return _ask(connection, commands)

    def close(self) -> None:
        """Close the calling thread's connection; that of a thread which ends is closed with it."""
        if (connection := getattr(self._own, "connection", None)) is not None:
            connection.disconnect()

    def _connection(self) -> Connection:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._pool.make_connection()
        return connection


def _ask(connection: Connection, commands: Sequence[tuple[str, ...]]) -> list[Stored]:
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response() for _ in commands]
    except BaseException:
        connection.disconnect()  # answers that were not read would be taken for those to the next question
        raise
