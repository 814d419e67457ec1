"""The trainer's HTTP calls, put together from those of its rooms."""

from __future__ import annotations

from flask import Flask

from modelmill.http.app import create_app, redis_answers
from modelmill.settings import Settings
from modelmill.state.registry import Registry
from services.trainer.exchange.routes import Uploads, add_exchange_routes
from services.trainer.http.jobs import add_job_routes, add_trigger_routes
from services.trainer.http.models import (
    add_alias_routes,
    add_card_routes,
    add_model_routes,
    add_remark_routes,
)
from services.trainer.http.runs import add_run_routes, add_trace_routes
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.models import Moves, Overview, Retention
from services.trainer.recipes import Recipes
from services.trainer.runs.index import RunIndex


def trainer_app(
    queue: TrainingQueue,
    registry: Registry,
    overview: Overview,
    recipes: Recipes,
    runs: RunIndex,
    settings: Settings,
) -> Flask:
    """The trainer's app."""
    app = create_app("trainer", settings, {"redis": redis_answers(registry.redis)})
    add_job_routes(app, queue, registry, recipes, overview.storage, settings)
    add_run_routes(app, runs, overview, recipes)
    add_model_routes(app, overview, Retention(registry, overview.storage), recipes)
    add_alias_routes(app, overview, Moves(registry, overview.storage), recipes)
    add_remark_routes(app, registry)
    add_card_routes(app, overview, recipes)
    add_exchange_routes(app, Uploads(queue, overview.storage), registry, recipes)
    add_trigger_routes(app, recipes)
    add_trace_routes(app, queue, overview, recipes)
    return app
