"""Run the trainer's HTTP process: `python -m services.trainer.main`. Trainings themselves run in workers."""

from __future__ import annotations

import sys
from threading import Event as Flag
from threading import Thread

from flask import Flask

from modelmill import logs
from modelmill.declare.definitions_file import load
from modelmill.errors import ModelmillError
from modelmill.http.app import serve
from modelmill.state import bus, keys
from modelmill.state.connections import connect, once_it_answers
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer.app import trainer_app
from services.trainer.jobs import recovery
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs.index import RunIndex
from services.trainer.settings import TrainerSettings
from services.trainer.triggers.scheduler import Scheduler

PORT = 8002


def build() -> Flask:
    """The app of one worker process, and its threads: definitions, schedules, recovery of abandoned jobs, runs."""
    logs.configure("trainer")
    settings = TrainerSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    registry = Registry(redis)
    # Before the definitions are read: nothing is missed between.
    position = once_it_answers(lambda: bus.last_position(redis, keys.EVENTS_FEATURES))
    recipes = once_it_answers(lambda: Recipes(redis, settings.definitions))
    queue = TrainingQueue(
        connect(settings.redis_url, timeout=settings.redis_timeout, text=False),
        timeout=settings.train_timeout,
        limit=settings.train_queue_limit,
    )
    storage = Storage(settings.storage_url)
    stop = Flag()
    Thread(target=recipes.follow, args=(position, stop), name="definitions", daemon=True).start()
    scheduler = Scheduler(recipes, queue)
    Thread(target=scheduler.watch, args=(stop,), name="schedules", daemon=True).start()
    Thread(target=recovery.watch, args=(queue.rq, registry, storage, stop), name="recovery", daemon=True).start()
    runs = RunIndex(registry.runs)
    Thread(target=runs.follow, args=(stop,), name="runs", daemon=True).start()
    overview = Overview(registry, storage)
    return trainer_app(queue, registry, overview, recipes, runs, settings)


def main() -> None:
    """Check the definitions, then serve; a mistake in the file stops here."""
    try:
        settings = TrainerSettings.read()
        load(settings.definitions)
    except ModelmillError as error:
        sys.exit(str(error))
    serve("services.trainer.main:build", settings, PORT)


if __name__ == "__main__":
    main()
