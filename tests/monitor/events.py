"""Events and windows for the monitor's tests."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionFailed, PredictionServed
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, new_run_id
from modelmill.times import iso
from services.monitor.aggregates import STREAM, Aggregates

NOW = datetime(2026, 11, 23, 23, 47, 30, tzinfo=UTC)
"""What the tests' clock says."""


def served(latency_ms: float = 1.0, *, ago: float = 0, **fields: Any) -> PredictionServed:
    """A prediction of version 1 of `m`, `ago` seconds before `NOW`."""
    time = iso(NOW - timedelta(seconds=ago))
    given = {"model": "m", "version": 1, "rows": 1, "features": {}, "predictions": [1], "time": time}
    return PredictionServed(latency_ms=latency_ms, **(given | fields))


def failed(*, ago: float = 0, **fields: Any) -> PredictionFailed:
    """A request to version 1 of `m` that was answered with 404."""
    time = iso(NOW - timedelta(seconds=ago))
    given = {"model": "m", "version": 1, "latency_ms": 0.1, "status": 404, "error": "no such user", "time": time}
    return PredictionFailed(**(given | fields))


def aggregates_of(redis: Redis, *, hours: int = 48) -> Aggregates:
    """Aggregates whose clock stands at `NOW`."""
    return Aggregates(redis, timedelta(hours=hours), clock=lambda: NOW)


def count_all(redis: Redis) -> Aggregates:
    """Aggregates after all that is in the stream."""
    aggregates = aggregates_of(redis)
    while aggregates.advance(0.001)[0]:
        pass
    return aggregates


def append_live(redis: Redis, count: int) -> None:
    """Append `count` predictions of this moment, as a predictor does."""
    events = [
        PredictionServed(
            model="m",
            version=1,
            latency_ms=random.lognormvariate(0, 0.5),
            rows=1,
            features={"x": [0.5]},
            predictions=[1],
        )
        for _ in range(count)
    ]
    bus.append_once(redis, STREAM, events, marker=keys.report_batch("test"), batch=random.getrandbits(63))


def counted(redis: Redis) -> int:
    """How many predictions of `m` the stored windows hold."""
    windows = Aggregates(redis, timedelta(hours=48)).windows("m", datetime(2020, 1, 1, tzinfo=UTC))
    return sum(window.count for window in windows.values())


def train(redis: Redis, model: str, *, accuracy: float = 0.9) -> None:
    """Register a version of `model` and let it be champion."""
    registry = Registry(redis)
    run = Run(id=new_run_id(), model=model, started=iso(NOW), metrics={"accuracy": accuracy}, decision="the first")
    registry.runs.start(run)
    registry.register(run, "package", promote=True, champion=registry.aliases(model).get("champion"))
