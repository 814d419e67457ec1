"""What people see of the triggers: when each fires next, when it fired last, and what became of it today."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions
from modelmill.declare.triggers import After, On, Slots, Trigger
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import iso
from services.trainer.triggers.state import FIRED, TriggerState


def schedules(redis: Redis, definitions: Definitions, now: datetime) -> list[dict[str, Any]]:
    """Every trigger of every model, in the order of their declaration; `redis` decodes to text."""
    models = [model for model in definitions.models.values() if model.train]
    with redis.pipeline(transaction=False) as pipe:
        for model in models:
            pipe.hgetall(keys.triggers(model.name))
        states = pipe.execute()
    return [
        _view(model, trigger, TriggerState.read(found.get(str(trigger))), now)
        for model, found in zip(models, states, strict=True)
        for trigger in model.train
    ]


def _view(model: Model, trigger: Trigger, state: TriggerState, now: datetime) -> dict[str, Any]:
    today = state.on(now)
    return {
        "model": model.name,
        "trigger": str(trigger),
        "kind": trigger.kind,
        "next": iso(trigger.next_slot(now)) if isinstance(trigger, Slots) else None,
        "fired": state.fired or None,
        "outcome": state.outcome or None,
        "outcome_at": state.outcome_at or None,
        "waits": state.waits or None,
        "fired_today": today.get(FIRED, 0),
        "today": today,
        "cooldown": trigger.cooldown,
        "daily": trigger.daily,
        "missed": trigger.missed if isinstance(trigger, Slots) else None,
        "rows": state.rows if isinstance(trigger, After) else None,
        "event": state.event or None,
        "lost": state.lost if isinstance(trigger, After | On) else None,
    }
