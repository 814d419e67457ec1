"""A lock in Redis that is renewed while its holder lives, for work that must not be done twice at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event as Flag
from threading import Thread

from redis.exceptions import LockError

from modelmill.errors import Conflict
from modelmill.state.connections import AWAY, Redis

LEASE = 10.0
"""Seconds after which a process that was killed no longer keeps others from the work."""


@contextmanager
def alone(
    redis: Redis, key: str, what: str, *, patience: float, token: str | None = None
) -> Iterator[Callable[[], bool]]:
    """Hold the lock `key` until the block ends; yields a function that says whether it is still held.

    A holder that was stopped for longer than the lease has lost it, and asks before it makes its work visible. `token`
    is what the key holds meanwhile, for a script that asks.

    Raises:
        Conflict: where others hold it for longer than `patience` seconds, saying that they do `what`.
    """
    lock = redis.lock(key, timeout=LEASE, thread_local=False)
    if not lock.acquire(blocking_timeout=patience, token=token):
        raise Conflict(f"others are {what} at this moment; try again later")
    done = Flag()

    def renew() -> None:
        while not done.wait(LEASE / 3):
            with suppress(LockError, *AWAY):
                lock.reacquire()

    Thread(target=renew, name="lock", daemon=True).start()
    try:
        yield lock.owned
    finally:
        done.set()
        with suppress(LockError, *AWAY):
            lock.release()
