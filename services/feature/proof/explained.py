"""One value and why it is so, whatever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Explained:
    """One value and why it is so."""

    value: Any
    status: str
    """present, missing, expired or failed."""
    why: str
    source: str
    field: str
    """Under which it is stored; of a derived feature with its version, of an aggregate the group of its tiles."""
    event_time: str | None
    ingest_time: str | None
    age_seconds: float | None
    """Of the row that it comes from; of an aggregate, of the newest row in its window."""
