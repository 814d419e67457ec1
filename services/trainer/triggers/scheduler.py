"""Trainings that nobody asks for: what fires a trigger is enqueued once, by the first scheduler that sees it.

How far each trigger has come lies in Redis. A scheduler moves it and enqueues the training in one transaction, which
is refused where another scheduler has moved it meanwhile; so neither does a crash lose a slot, a row or an event, nor
does a restart or another scheduler double one.

What becomes of a trigger, counted in `modelmill_triggers_total` and shown by `GET /schedules`:

- `fired`: a training waits in the queue.
- `skipped_late`: a slot was noticed more than a minute after its time or when the next had come already, because no
  scheduler ran; or an event waited for more than a day.
- `skipped_busy`, `skipped_full`: at a slot, a training of the model waited or ran already, or the queue was full.
- `skipped_cooldown`, `skipped_daily`: a slot or an event came when its trigger might not fire.
- `waits_busy`, `waits_full`, `waits_cooldown`, `waits_daily`: rows or an event, or a slot that is not to be missed, are
  to fire it as soon as that has passed. Counted when the waiting begins.
- `joined`: an event came while another one waited; one training is for both.

The first look at a new trigger only sets where it begins: what was before does not fire it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from threading import Event as Flag
from typing import Any

from prometheus_client import Counter
from redis.exceptions import WatchError

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions, model_features
from modelmill.declare.triggers import After, On, Slots, Trigger
from modelmill.errors import QueueFull
from modelmill.state import keys
from modelmill.state.connections import AWAY, Redis
from modelmill.times import iso
from services.trainer.jobs.queue import BACKFILL, TrainingQueue
from services.trainer.recipes import Recipes
from services.trainer.triggers.decisions import FIRED, NOTHING, Read, Step, Streams, TriggerState, decide

log = logging.getLogger(__name__)

OUTCOMES = Counter("modelmill_triggers_total", "What became of training triggers", ["model", "trigger", "outcome"])
MAX_BATCHES_PER_LOOK = 20
"""Batches of a stream that one look at a trigger reads; the next look goes on."""


class Scheduler:
    """Looks at the triggers of all models."""

    def __init__(self, recipes: Recipes, queue: TrainingQueue) -> None:
        self.recipes = recipes
        self.queue = queue

    def watch(self, stop: Flag, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Look every second until `stop` is set. Whatever goes wrong is logged once, and tried again."""
        failing = False
        while not stop.wait(1.0):
            problem = None
            try:
                self.look(clock())
            except Exception as error:  # a thread that died would stay dead
                problem = error
            if problem is not None and not failing:
                known = isinstance(problem, AWAY)
                log.warning(
                    "cannot look at triggers, trying every second: %s", problem, exc_info=None if known else problem
                )
            failing = problem is not None

    def look(self, now: datetime) -> None:
        """Carry out what has become due since anyone looked.

        What goes wrong with one model is raised when all have been looked at.
        """
        streams, errors = Streams(self.recipes.redis), []
        for model in self.recipes.definitions.models.values():
            try:
                if model.train:
                    states = self.recipes.redis.hgetall(keys.triggers(model.name))
                    for trigger in model.train:
                        self._look(model, trigger, states.get(str(trigger)), streams, now)
            except AWAY:
                raise
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _look(self, model: Model, trigger: Trigger, text: str | None, streams: Streams, now: datetime) -> None:
        """Look at one trigger, whose state was `text`."""
        sources = _sources(self.recipes.definitions, model, trigger)
        obstacle = partial(self._obstacle, model)
        for _ in range(MAX_BATCHES_PER_LOOK):
            state = TriggerState.read(text)
            read = _read(trigger, state, streams)
            step = decide(trigger, state, read, model=model.name, sources=sources, now=now, obstacle=obstacle)
            if step.state == state:
                return
            try:
                self._commit(model, trigger, text, step)
            except (WatchError, QueueFull):
                return  # another scheduler has it, or a queue that has just become full: the next look tells
            if not read.more:
                return
            text = str(step.state)

    def _obstacle(self, model: Model) -> str:
        if self.queue.is_pending(model.name, but=BACKFILL):
            return "busy"
        return "full" if self.queue.rq.count >= self.queue.limit else ""

    def _commit(self, model: Model, trigger: Trigger, before: str | None, step: Step) -> None:
        """Write the state and enqueue the training that the step asks for.

        Raises:
            WatchError: where another scheduler has changed the state meanwhile, or the same training waits by now.
            QueueFull: where no further training may wait.
        """
        key, name, firing = keys.triggers(model.name), str(trigger), step.firing
        with self.queue.redis.pipeline() as pipe:
            pipe.watch(key, keys.TRAININGS)
            found = pipe.hget(key, name)
            if (found and found.decode()) != before:
                raise WatchError
            if firing and self.queue.joinable(pipe, model.name, None, firing.end, ""):
                raise WatchError  # somebody has just asked for the same training
            pipe.multi()
            pipe.hset(key, name, str(step.state))
            if firing:
                self.queue.enqueue(model.name, trigger=trigger.kind, by=firing.by, end=firing.end, pipeline=pipe)
            pipe.execute()
        for outcome, times in step.outcomes.items():
            OUTCOMES.labels(model.name, trigger.kind, outcome).inc(times)
            log.info("%s, %s: %s", model.name, firing.by if firing else trigger, outcome)


def _sources(definitions: Definitions, model: Model, trigger: Trigger) -> Collection[str]:
    """The sources whose rows count: that of the trigger, or all from which the model has its label and features."""
    if not isinstance(trigger, After):
        return ()
    if trigger.source is not None:
        return (trigger.source,)
    features = model_features(definitions, model)
    read = {ref.source for ref in (*features.stored, *features.auxiliary)}
    return {definitions.label_source(model).name, *read}


def _read(trigger: Trigger, state: TriggerState, streams: Streams) -> Read:
    """What a trigger that follows a stream has not heard yet; where it was never looked at, nothing."""
    if not isinstance(trigger, After | On):
        return NOTHING
    stream = keys.EVENTS_FEATURES if isinstance(trigger, After) else trigger.stream
    return streams.after(stream, state.position, state.entries) if state.position else streams.end(stream)


# --- what people see of the triggers: when each fires next, when it fired last, and what became of it today


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
