"""Runs and versions for tests of the registry, made without training anything."""

from __future__ import annotations

from typing import Any

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry, Version
from modelmill.state.runs import Run, new_run_id
from modelmill.times import utc_now

MODEL = "user_target"


def begin(registry: Registry, model: str = MODEL, **known: Any) -> Run:
    run = Run(id=new_run_id(), model=model, started=utc_now(), **known)
    registry.runs.start(run)
    return run


def release(registry: Registry, model: str = MODEL, **known: Any) -> Version:
    """A new version of the model, promoted."""
    champion = registry.aliases(model).get("champion")
    return registry.register(begin(registry, model, **known), "packages/p", promote=True, champion=champion)


def events(redis: Redis) -> list[object]:
    return [event for _, event in bus.newest(redis, keys.EVENTS_MODELS, 100)]
