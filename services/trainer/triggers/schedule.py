"""Trainings that nobody asks for: each due slot of a model is enqueued once, by the first scheduler that sees it.

The newest slot that anyone has looked at is the model's position in Redis. A scheduler moves it and enqueues the
training in one transaction, so that neither a crash loses a slot, nor a restart or another scheduler doubles one.

What happens to a slot, also counted in `modelmill_schedule_slots_total`:

- `enqueued`: a training waits in the queue.
- `skipped_late`: it was noticed more than `GRACE` after its time, because no scheduler ran. The next one comes in time.
- `skipped_busy`: a training of this model waited or ran already; they do not pile up.
- `skipped_full`: the queue is full.

A model's very first look only sets the position: a slot from before it had a schedule is not due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event as Flag

from prometheus_client import Counter
from redis.exceptions import WatchError

from modelmill import keys
from modelmill.connections import AWAY
from modelmill.declarations import Model
from modelmill.errors import QueueFull
from modelmill.events import iso
from modelmill.schedules import Schedule
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.recipes import Recipes

log = logging.getLogger(__name__)

SLOTS = Counter("modelmill_schedule_slots_total", "Due slots of training schedules", ["model", "outcome"])
GRACE = timedelta(seconds=60)
"""How late a slot may be noticed and still be carried out: longer than a restart of the trainer takes."""


class Scheduler:
    """Looks for due slots of all models."""

    def __init__(self, recipes: Recipes, queue: TrainingQueue) -> None:
        self.recipes = recipes
        self.queue = queue

    def watch(self, stop: Flag, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Look every second until `stop` is set."""
        away = False
        while not stop.wait(1.0):
            try:
                self.look(clock())
                away = False
            except AWAY as error:
                if not away:
                    log.warning("cannot look for due trainings, trying every second: %s", error)
                away = True

    def look(self, now: datetime) -> None:
        """Carry out the newest due slot of each model, unless someone has."""
        for model in self.recipes.definitions.models.values():
            if model.train:
                slot, schedule = max(((s.slot_at(now), s) for s in model.train), key=lambda due: due[0])
                self._take(model, slot, schedule, now)

    def _take(self, model: Model, slot: datetime, schedule: Schedule, now: datetime) -> None:
        key, name = keys.schedule_position(model.name), iso(slot)
        with self.queue.redis.pipeline() as pipe:
            pipe.watch(key)
            position = pipe.get(key)
            if position is not None and position.decode() >= name:
                return
            outcome = "first_look" if position is None else self._obstacle(model, slot, now)
            pipe.multi()
            pipe.set(key, name)
            try:
                if outcome == "enqueued":
                    self.queue.enqueue(model.name, trigger="schedule", by=str(schedule), pipeline=pipe)
            except QueueFull:
                outcome = "skipped_full"
            try:
                pipe.execute()
            except WatchError:
                return  # another scheduler has it
        if outcome != "first_look":
            SLOTS.labels(model.name, outcome).inc()
            log.info("%s, slot %s of %s: %s", model.name, name, schedule, outcome)

    def _obstacle(self, model: Model, slot: datetime, now: datetime) -> str:
        if now - slot > GRACE:
            return "skipped_late"
        return "skipped_busy" if self.queue.is_pending(model.name) else "enqueued"
