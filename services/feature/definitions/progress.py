"""How far an application of definitions has come, in Redis, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import utc_now
from services.feature.store.backfill import Tell


@dataclass(frozen=True)
class Progress:
    """Writes and reads the hash `definitions:backfill`."""

    redis: Redis

    def begin(self, fingerprint: str) -> None:
        """Record that definitions with this fingerprint are going to be applied."""
        begun = {
            "fingerprint": fingerprint,
            "state": "running",
            "started": utc_now(),
            "rows": 0,
            "total": 0,
            "error": "",
        }
        self.redis.hset(keys.BACKFILL, mapping=begun)

    @contextmanager
    def recording(self, fingerprint: str) -> Iterator[Tell]:
        """Record that they are applied inside the block; yields what tells how many rows are computed."""
        self.begin(fingerprint)
        try:
            yield lambda rows, total: self.redis.hset(keys.BACKFILL, mapping={"rows": rows, "total": total})
        except Exception as error:
            self.redis.hset(keys.BACKFILL, mapping={"state": "failed", "error": str(error), "ended": utc_now()})
            raise
        self.redis.hset(keys.BACKFILL, mapping={"state": "done", "ended": utc_now()})

    def read(self) -> dict[str, str | int]:
        """The last one: fingerprint, state (running, done or failed), rows done and in all, times, error."""
        found: dict[str, str] = self.redis.hgetall(keys.BACKFILL)
        return {name: int(text) if name in ("rows", "total") else text for name, text in found.items()}
