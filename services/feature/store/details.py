"""Why each feature value of an entity is there or not, how old it is, and which row it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from modelmill.declare.definitions import FeatureRef
from services.feature.store.online import OnlineEntity

Status = Literal["present", "missing", "expired", "failed"]


@dataclass(frozen=True, slots=True)
class Detail:
    """One feature value; times and age are those of its source's row, None without one and for aggregates."""

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
    return {ref.name: _of_window(found, ref) if ref.aggregate else _of_row(found, ref, ages) for ref in refs}


def _of_row(found: OnlineEntity, ref: FeatureRef, ages: Mapping[str, float]) -> Detail:
    value, error = found.features[ref.name], found.failed.get(ref.name)
    status: Status = "missing" if value is None else "present"
    if ref.source in found.expired:
        status = "expired"
    elif error is not None:
        status = "failed"
    event_time, ingest_time = found.event_times.get(ref.source), found.ingest_times.get(ref.source)
    return Detail(value, status, ages.get(ref.source), event_time, ingest_time, ref.source, error)


def _of_window(found: OnlineEntity, ref: FeatureRef) -> Detail:
    """An aggregate is of many rows: it has no time of its own, and its window says what is too old."""
    value = found.features[ref.name]
    return Detail(value, "missing" if value is None else "present", None, None, None, ref.source, None)
