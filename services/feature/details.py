"""Why each feature value of an entity is there or not, how old it is, and which row it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from modelmill.definitions import FeatureRef
from services.feature.online import OnlineEntity

Status = Literal["present", "missing", "expired", "failed"]


@dataclass(frozen=True, slots=True)
class Detail:
    """One feature value. Times and age are those of its source's row, None where none has arrived."""

    value: Any
    status: Status
    """`missing`: no row has arrived, or it has no value; `expired`: it is too old; `failed`: the function failed."""
    age_seconds: float | None
    event_time: str | None
    ingest_time: str | None
    source: str
    error: str | None
    """Why the function failed."""


def details(found: OnlineEntity, refs: Iterable[FeatureRef], now: datetime) -> dict[str, Detail]:
    """Each of the features `refs` of an entity, as `now` sees it."""
    ages = {
        source: round((now - datetime.fromisoformat(time)).total_seconds(), 3)
        for source, time in found.event_times.items()
    }
    return {
        ref.name: Detail(
            found.features[ref.name],
            _status(found, ref),
            ages.get(ref.source),
            found.event_times.get(ref.source),
            found.ingest_times.get(ref.source),
            ref.source,
            found.failed.get(ref.name),
        )
        for ref in refs
    }


def _status(found: OnlineEntity, ref: FeatureRef) -> Status:
    if ref.source in found.expired:
        return "expired"
    if ref.name in found.failed:
        return "failed"
    return "missing" if found.features[ref.name] is None else "present"
