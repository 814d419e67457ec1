"""What was appended to event streams after a trigger's position, and how much of it was trimmed before it was read."""

from __future__ import annotations

from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from modelmill.state.bus import RawEntry
from modelmill.state.connections import Redis

BATCH = 1000
"""Entries that are read at once."""
START = "0-0"
"""The position before every entry."""


@dataclass(frozen=True)
class Read:
    """Some entries of a stream."""

    entries: list[RawEntry]
    position: str
    """After them."""
    passed: int
    """How many entries the stream has had up to there."""
    lost: int
    """How many before them were trimmed unread. Known where Redis counts a stream's entries: from version 7 on."""

    @property
    def more(self) -> bool:
        """Whether there may be further entries."""
        return len(self.entries) == BATCH


NOTHING = Read([], START, 0, 0)


@dataclass
class Streams:
    """Reads streams for one look of a scheduler; what several triggers read from the same position is read once."""

    redis: Redis
    """A client that decodes to text."""
    known: dict[tuple[str, str, int], Read] = field(default_factory=dict)

    def end(self, stream: str) -> Read:
        """No entries, and the position after the newest."""
        try:
            info = self.redis.xinfo_stream(stream)
        except ResponseError:  # there is no such stream yet
            return NOTHING
        return Read([], info["last-generated-id"], info.get("entries-added", 0), 0)

    def after(self, stream: str, position: str, passed: int) -> Read:
        """The next entries after `position`, up to which the stream had `passed` entries."""
        key = (stream, position, passed)
        if key not in self.known:
            self.known[key] = self._after(stream, position, passed)
        return self.known[key]

    def _after(self, stream: str, position: str, passed: int) -> Read:
        with self.redis.pipeline() as pipe:  # a transaction: nothing is trimmed between the two
            pipe.xinfo_stream(stream)
            pipe.xrange(stream, min=f"({position}", count=BATCH)
            info, entries = pipe.execute(raise_on_error=False)
        if isinstance(info, ResponseError):
            return Read([], position, passed, 0)
        first = info["first-entry"][0] if info["first-entry"] else None
        lost = 0
        if "entries-added" in info and (first is None or _order(first) > _order(position)):
            lost = max(0, info["entries-added"] - info["length"] - passed)
        return Read(entries, entries[-1][0] if entries else position, passed + lost + len(entries), lost)


def _order(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))
