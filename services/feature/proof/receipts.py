"""Receipts of what was forgotten: what was erased, when, for whom and why; of whom only by a digest of the key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import EntityForgotten
from modelmill.state.records import from_hash, to_hash
from modelmill.times import utc_now


@dataclass(frozen=True)
class Counts:
    """What was found of an entity."""

    rows: dict[str, int] = field(default_factory=dict)
    """Source to its rows of history."""
    files: dict[str, int] = field(default_factory=dict)
    """Source to the history files that held them, which were rewritten."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Source to its rejected rows."""
    fields: int = 0
    """Of the online hash."""
    tiles: int = 0
    """Hashes with tiles of aggregates: its own, and those of others that held its rows, which were made anew."""
    predictions: int = 0
    """Entries of the log of predictions that name it."""

    @property
    def empty(self) -> bool:
        """Whether there was nothing."""
        return not any(getattr(self, item.name) for item in fields(self))

    def at_least(self, other: Counts) -> Counts:
        """The greater of each: a second attempt no longer finds what the first, which was killed, had erased."""
        return Counts(
            rows=_greater(self.rows, other.rows),
            files=_greater(self.files, other.files),
            quarantined=_greater(self.quarantined, other.quarantined),
            fields=max(self.fields, other.fields),
            tiles=max(self.tiles, other.tiles),
            predictions=max(self.predictions, other.predictions),
        )


@dataclass(frozen=True)
class Receipt:
    """One entity that is being forgotten, or was. Times are ISO texts."""

    entity: str
    digest: str
    """SHA-256 of its key, in hexadecimal."""
    by: str
    reason: str
    begun: str
    counts: Counts
    ended: str = ""
    """When all was erased; empty until then, and where that was killed."""

    def begin(self, redis: Redis) -> Receipt:
        """Keep it before anything is erased, with what an attempt had found that was killed."""
        former = read(redis, self.entity, self.digest)
        killed = former is not None and not former.ended
        receipt = replace(self, counts=self.counts.at_least(former.counts)) if former and killed else self
        with redis.pipeline() as pipe:
            pipe.delete(_key(receipt))
            pipe.hset(_key(receipt), mapping=_to_hash(receipt))
            pipe.execute()
        return receipt

    def end(self, redis: Redis) -> Receipt:
        """Record, in one transaction with the event, that all is erased."""
        done = replace(self, ended=utc_now())
        event = EntityForgotten(
            source="feature",
            entity=self.entity,
            digest=self.digest,
            rows=sum(self.counts.rows.values()),
            by=self.by,
            reason=self.reason,
        )
        with redis.pipeline() as pipe:
            pipe.hset(_key(done), mapping=_to_hash(done))
            bus.append(pipe, event)
            pipe.execute()
        return done


def digest_of(key: str) -> str:
    """What stands for a key in a receipt."""
    return hashlib.sha256(key.encode()).hexdigest()


def read(redis: Redis, entity: str, digest: str) -> Receipt | None:
    """The last receipt of an entity, if it was ever forgotten."""
    found = redis.hgetall(keys.forgotten(entity, digest))
    if not found:
        return None
    counts = from_hash(Counts, found)
    return Receipt(entity, digest, found["by"], found["reason"], found["begun"], counts, found["ended"])


def was_forgotten(redis: Redis, entity: str, key: str, *, since: str) -> bool:
    """Whether an entity was forgotten at or after the ISO time `since`, or is being forgotten."""
    receipt = read(redis, entity, digest_of(key))
    return receipt is not None and (not receipt.ended or receipt.ended >= since)


def last_erasure(redis: Redis, source: str) -> str:
    """When rows of a source were erased last, as an ISO time; "" where never, "~" where they are being erased."""
    last = ""
    for name in redis.scan_iter(match=keys.forgotten("*", "*"), count=1000):
        rows, ended = redis.hmget(name, f"rows.{source}", "ended")
        if rows:
            last = max(last, ended or "~")
    return last


def _greater(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {source: max(one.get(source, 0), other.get(source, 0)) for source in sorted(one.keys() | other.keys())}


def _key(receipt: Receipt) -> str:
    return keys.forgotten(receipt.entity, receipt.digest)


def _to_hash(receipt: Receipt) -> dict[str, str]:
    said = {"begun": receipt.begun, "ended": receipt.ended, "by": receipt.by, "reason": receipt.reason}
    return said | to_hash(receipt.counts)
