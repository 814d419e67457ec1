"""How far the monitor has counted a stream, and how it notices that entries were trimmed before it came to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from services.monitor.windows import LOST, OUTCOMES

START = "0-0"
"""The position before every entry."""


@dataclass(frozen=True)
class Progress:
    """All entries up to `position` have their outcome, and the windows hold those that were counted."""

    position: str = START
    entries: int = 0
    """How many entries the stream has had up to `position`, the lost ones included."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Each of `windows.OUTCOMES` to its count since the monitor first ran."""

    def after(self, position: str, outcomes: Counter[str]) -> Progress:
        """The progress once the entries up to `position` have had these outcomes."""
        entries = self.entries + outcomes.total()
        return Progress(position, entries, Counter(self.outcomes) + outcomes)

    def after_trimming(self, stream: Mapping[str, Any]) -> Progress:
        """The progress with what was lost to trimming, from what XINFO STREAM says (nothing for no stream).

        Trimming takes the oldest entries and waits for no reader. Where the number of entries still to come is
        plain, because the position is the last entry or older than the first, it and the number ever added tell
        how many there were up to the position.
        """
        if not stream:
            return self
        first = stream["first-entry"][0] if stream["first-entry"] else None
        if first is not None and _order(first) > _order(self.position):
            to_come = stream["length"]
        elif first is None or self.position == stream["last-generated-id"]:
            to_come = 0
        else:
            return self
        passed = stream["entries-added"] - to_come
        lost = Counter({LOST: max(0, passed - self.entries)})
        return replace(self, entries=passed, outcomes=Counter(self.outcomes) + lost)

    def to_hash(self) -> dict[str, str]:
        """The progress as the fields of a hash of plain text."""
        counts = {outcome: str(self.outcomes.get(outcome, 0)) for outcome in OUTCOMES}
        return {"position": self.position, "entries": str(self.entries), **counts}

    @classmethod
    def from_hash(cls, found: Mapping[str, str]) -> Progress:
        """The progress that `to_hash` wrote; the beginning for an empty hash."""
        if not found:
            return cls()
        return cls(found["position"], int(found["entries"]), {o: int(found[o]) for o in OUTCOMES if int(found[o])})


@dataclass(frozen=True)
class Lag:
    """How much is still to be counted."""

    seconds: float
    """Age of the oldest entry that is not counted yet; 0 where there is none."""
    entries: int
    """How many there are."""


def _order(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))
