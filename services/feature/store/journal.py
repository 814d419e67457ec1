"""The journal of ingest requests in Redis: each gets an ingest time that no other has, and takes effect once.

An entry is a hash under the request's digest (of its content, or of the Idempotency-Key that its sender chose):

    begun    the entry is made, with the next ingest time of the source (from Redis's clock, always increasing)
    done     rows are in the history and online; the answer is kept for `REMEMBERED_SECONDS`

Whoever records the answer is told of its rows as accepted, and nobody else. A request that comes again finds its entry:
done, it gets the same answer, of the rows that are in the history still; only begun (a sender gave up waiting, or a
service was killed), it goes through the same steps with the same ingest time, which changes nothing that was done
before. What nobody sends again is brought to its end from its history file by `services.feature.upkeep.rebuild`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from threading import Event as Flag
from threading import Thread
from typing import Any

import orjson
from redis.exceptions import LockError

from modelmill import times
from modelmill.errors import Conflict, InvalidRequest, Unavailable
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY, Redis
from modelmill.state.events import RowsIngested
from modelmill.times import iso

REMEMBERED_SECONDS = 3600
"""Seconds for which a request that was done is recognised when it comes again."""
BEGUN = 24 * 3600
"""Seconds after which a request that nobody brings to its end is forgotten."""
INGEST_WAIT_SECONDS = 60.0
"""Seconds to wait for requests to end; those of a killed service are ended by others within 40."""

BEGIN = """
-- KEYS: entry, clock, open entries, pause. ARGV: digest, seconds that the entry is kept, draft of the answer, digest of
-- the content. Returns the entry's ingest time in microseconds since 1970, whether it was there before, its draft, its
-- answer and the digest of its content; no time where it was not there and none may begin.
local found = redis.call('HMGET', KEYS[1], 'time', 'draft', 'answer', 'content')
if found[1] then return {found[1], 1, found[2], found[3] or '', found[4] or ''} end
if redis.call('EXISTS', KEYS[4]) == 1 then return {'', 0, '', '', ''} end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if now <= last then now = last + 1 end
local time = string.format('%.0f', now)
redis.call('SET', KEYS[2], time)
redis.call('HSET', KEYS[1], 'time', time, 'draft', ARGV[3], 'content', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[3], clock[1], ARGV[1])
return {time, 0, ARGV[3], '', ARGV[4]}
"""
FINISH = """
-- KEYS: entry, open entries, the event's stream. ARGV: digest, answer, seconds that it is kept, length of the stream,
-- then the event's fields and values. Returns 1, or 0 where another has recorded an answer.
if redis.call('HEXISTS', KEYS[1], 'answer') == 1 then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'answer', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', unpack(ARGV, 5))
return 1
"""


TICK = """
-- KEYS: clock. Returns the next ingest time, which no request will have.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if now <= last then now = last + 1 end
local time = string.format('%.0f', now)
redis.call('SET', KEYS[1], time)
return time
"""


@dataclass(frozen=True)
class Entry:
    """A request in the journal."""

    source: str
    digest: str
    ingested: datetime
    """Its ingest time: unique and increasing in a source."""
    repeated: bool
    """Whether it had been begun before."""
    draft: dict[str, Any]
    """What is to be answered, as far as it was known at the begin."""
    answer: dict[str, Any] | None
    """What it was answered, if it is done."""

    @property
    def key(self) -> str:
        """Its hash in Redis."""
        return keys.ingest(self.source, self.digest)


def digest_of(source: str, *parts: bytes) -> str:
    """The digest of a request to `source` that consists of `parts`."""
    digest = hashlib.sha256(source.encode())
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:32]


def begin(redis: Redis, source: str, digest: str, draft: Mapping[str, Any], content: str = "") -> Entry:
    """Enter a request with the draft of its answer, or find it as it was entered before.

    `content` is the digest of what it consists of, where `digest` is not.

    Raises:
        InvalidRequest: where it was entered with another content.
        Unavailable: while requests of this source are paused.
    """
    names = (keys.ingest(source, digest), keys.ingest_clock(source), keys.ingest_open(source))
    arguments = [digest, BEGUN, orjson.dumps(draft), content]
    script = redis.register_script(BEGIN)
    moment, repeated, draft_text, answer, former = script(keys=[*names, keys.ingest_paused(source)], args=arguments)
    if not moment:
        raise Unavailable(f"{source!r} takes no rows while its tiles are made anew, some seconds; send it again")
    if former != content:
        raise InvalidRequest(
            f"the Idempotency-Key was used at {iso(times.moment(int(moment)))} for a request to"
            f" {source!r} with another body, content type or on_error; nothing of this one was stored, send it with a"
            " key of its own"
        )
    return _entry(source, digest, moment, bool(repeated), draft_text, answer)


@contextmanager
def paused(redis: Redis, source: str) -> Iterator[str]:
    """Let no further request of a source begin, wait until all that have begun have ended, then run the block.

    Yields what the key of the pause holds as long as it lasts: a process that was stopped for long has lost it.

    Raises:
        Conflict: where they, or another pause, do not end within `INGEST_WAIT_SECONDS`.
    """
    token, key = secrets.token_hex(16), keys.ingest_paused(source)
    with alone(redis, key, f"making tiles of {source} anew", patience=INGEST_WAIT_SECONDS, token=token):
        deadline = time.monotonic() + INGEST_WAIT_SECONDS
        while oldest_open(redis, source) is not None:
            if time.monotonic() > deadline:
                raise Conflict(f"requests to {source} that have begun do not end; try again later")
            time.sleep(0.1)
        yield token


def tick(redis: Redis, source: str) -> int:
    """An ingest time that no request has: those begun before have earlier ones, those to come later ones."""
    return int(redis.register_script(TICK)(keys=[keys.ingest_clock(source)]))


def is_open(redis: Redis, entry: Entry) -> bool:
    """Whether the request is still to be brought to its end."""
    return redis.zscore(keys.ingest_open(entry.source), entry.digest) is not None


def current(redis: Redis, entry: Entry) -> Entry | None:
    """The entry as it is by now, maybe done by another process; None where the request was given up."""
    moment, draft, answer = redis.hmget(entry.key, "time", "draft", "answer")
    if moment is None or int(moment) != times.micros(entry.ingested):
        return None
    return _entry(entry.source, entry.digest, moment, True, draft, answer)


def finish(redis: Redis, entry: Entry, answer: Mapping[str, Any], event: RowsIngested) -> bool:
    """Record that all of a request is done, in one transaction with its event; False where another has done so."""
    fields = [text for pair in event.to_fields().items() for text in pair]
    arguments = [entry.digest, orjson.dumps(answer), REMEMBERED_SECONDS, bus.MAX_LENGTH, *fields]
    names = [entry.key, keys.ingest_open(entry.source), event.stream]
    return bool(redis.register_script(FINISH)(keys=names, args=arguments))


def drop(redis: Redis, entry: Entry) -> None:
    """Forget a request of which nothing was stored."""
    with redis.pipeline() as pipe:
        pipe.delete(entry.key)
        pipe.zrem(keys.ingest_open(entry.source), entry.digest)
        pipe.execute()


def open_entries(redis: Redis, source: str, *, older_than: float) -> list[Entry]:
    """The requests that were begun more than `older_than` seconds ago, by Redis's clock, and have not ended."""
    seconds, _ = redis.time()
    found = []
    for digest in redis.zrangebyscore(keys.ingest_open(source), "-inf", seconds - older_than):
        moment, draft, answer = redis.hmget(keys.ingest(source, digest), "time", "draft", "answer")
        if moment is None:  # nobody brought it to its end for a day
            redis.zrem(keys.ingest_open(source), digest)
        else:
            found.append(_entry(source, digest, moment, True, draft, answer))
    return found


def oldest_open(redis: Redis, source: str) -> datetime | None:
    """The earliest ingest time at which rows may still come into the history; None where nothing is open."""
    return min((entry.ingested for entry in open_entries(redis, source, older_than=-1)), default=None)


def _entry(source: str, digest: str, moment: str, repeated: bool, draft: str, answer: str | None) -> Entry:
    ingested = times.moment(int(moment))
    return Entry(source, digest, ingested, repeated, orjson.loads(draft), orjson.loads(answer) if answer else None)


# --- a lock in Redis that is renewed while its holder lives, for work that must not be done twice at the same time.

LEASE_SECONDS = 10.0
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
    lock = redis.lock(key, timeout=LEASE_SECONDS, thread_local=False)
    if not lock.acquire(blocking_timeout=patience, token=token):
        raise Conflict(f"others are {what} at this moment; try again later")
    done = Flag()

    def renew() -> None:
        while not done.wait(LEASE_SECONDS / 3):
            with suppress(LockError, *AWAY):
                lock.reacquire()

    Thread(target=renew, name="lock", daemon=True).start()
    try:
        yield lock.owned
    finally:
        done.set()
        with suppress(LockError, *AWAY):
            lock.release()
