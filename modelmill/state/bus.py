"""Append events to Redis streams, and follow a stream from a remembered position.

Events wake; the state in Redis is the truth. A follower therefore also hears, at each time-out, that nothing came,
and can compare its own state with the registry then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from threading import Event as Flag

from modelmill.state import keys
from modelmill.state.connections import AWAY, Redis
from modelmill.state.events import Event, parse

log = logging.getLogger(__name__)

MAX_LENGTH = 100_000
"""About how many entries a stream keeps; older ones are trimmed whether or not they were read."""

Entry = tuple[str, Event]
"""A stream entry: its id, which is the position after it, and its event."""
RawEntry = tuple[str, dict[str, str]]
"""A stream entry as it lies in Redis: its id and its fields."""


def append(redis: Redis, event: Event) -> None:
    """Append `event` to its stream; `redis` may be a pipeline, so that state and event change together."""
    redis.xadd(event.stream, event.to_fields(), maxlen=MAX_LENGTH, approximate=True)


APPEND_ONCE = """
-- KEYS: stream, marker, counter.
-- ARGV: batch number, length of the stream, then of each entry the count of its texts and they.
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 86400)
local at, added = 3, 0
while ARGV[at] do
  local n = tonumber(ARGV[at])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, at + 1, at + n))
  at, added = at + n + 1, added + 1
end
redis.call('INCRBY', KEYS[3], added)
return added
"""


def append_once(redis: Redis, stream: str, events: Sequence[Event], *, marker: str, batch: int) -> int:
    """Append a batch of events of one stream in one round trip and return how many; 0 if it had been appended before.

    So a batch whose answer was lost may be sent again. `marker` is a key of the only sender of these batches, and
    `batch` its number, another one for each batch. The entries are counted in the same script, so that who follows
    the stream can tell how many were trimmed unread: only Redis 7 and newer counts them itself (`entries-added`).
    """
    arguments: list[str | int] = [batch, MAX_LENGTH]
    for event in events:
        entry = event.to_fields()
        arguments.append(2 * len(entry))
        for pair in entry.items():
            arguments.extend(pair)
    return int(redis.register_script(APPEND_ONCE)(keys=[stream, marker, keys.entries_added(stream)], args=arguments))


def last_position(redis: Redis, stream: str) -> str:
    """The id of the newest entry, from which `follow` hears all that comes later."""
    newest = redis.xrevrange(stream, count=1)
    return newest[0][0] if newest else "0-0"


def newest(redis: Redis, stream: str, count: int) -> list[Entry]:
    """The last `count` known events of `stream`, oldest first."""
    return _parsed(reversed(redis.xrevrange(stream, count=count)))


def read_raw(redis: Redis, stream: str, position: str, *, wait: float, count: int = 1000) -> list[RawEntry]:
    """The entries after `position`, waiting up to `wait` seconds for the first; for who accounts for each of them.

    `wait` must be below the client's own time limit.
    """
    answer = redis.xread({stream: position}, count=count, block=max(1, int(wait * 1000)))
    return answer[0][1] if answer else []


def read(redis: Redis, stream: str, position: str, *, wait: float, count: int = 1000) -> tuple[str, list[Entry]]:
    """The events after `position` and the position after them, waiting up to `wait` seconds for the first.

    The position also moves past entries that are of unknown types or unreadable.
    """
    entries = read_raw(redis, stream, position, wait=wait, count=count)
    return (entries[-1][0] if entries else position), _parsed(entries)


def follow(redis: Redis, stream: str, position: str, stop: Flag, *, wait: float = 1.0) -> Iterator[list[Entry]]:
    """Yield batches of events after `position` until `stop` is set; an empty batch when `wait` seconds brought none.

    While Redis is away nothing is yielded and it is tried again every second.
    """
    away = False
    while not stop.is_set():
        try:
            position, entries = read(redis, stream, position, wait=wait)
            if away:
                log.info("following %s again", stream)
                away = False
        except AWAY as error:
            if not away:
                log.warning("cannot follow %s, trying every second: %s", stream, error)
                away = True
            stop.wait(1.0)
            continue
        yield entries


def _parsed(entries: Iterable[RawEntry]) -> list[Entry]:
    """The events in `entries`; one that cannot be read must not stop a follower, so it is logged and passed by."""
    parsed = []
    for position, fields in entries:
        try:
            if event := parse(fields):
                parsed.append((position, event))
        except ValueError as error:
            log.warning("passed by entry %s: %s", position, error)
    return parsed
