"""The trainer's HTTP calls."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response, request

from modelmill.registry import CHAMPION, Registry
from modelmill.settings import Settings
from modelmill.web import create_app, json_object, redis_answers, reply
from services.trainer import requests
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.overview import Overview
from services.trainer.recipes import Recipes


def trainer_app(
    queue: TrainingQueue, registry: Registry, overview: Overview, recipes: Recipes, settings: Settings
) -> Flask:
    """The routes of the trainer."""
    app = create_app("trainer", settings, {"redis": redis_answers(registry.redis)})

    @app.post("/models/<model>/train")
    def train(model: str) -> Response:
        """Enqueue a training; answers 202 with the job to look at.

        `{"start": ..., "end": ...}` trains on the labelled rows with start <= event time < end, default all.
        `{"by": ...}` says who asks. 429 while too many trainings wait.
        """
        body = json_object()
        requests.require_fields(body, ("by", "start", "end"))
        start, end = requests.span(body)
        by = requests.text(body, "by")
        recipes.definitions.model(model)
        job = queue.enqueue(model, by=by, start=start, end=end)
        url = f"/jobs/{job}"
        return reply({"job": job, "url": url, "model": model, "status": "queued"}, 202, {"Location": url})

    @app.get("/jobs")
    def jobs() -> Response:
        """Jobs that wait or run, then those that ended last, newest first."""
        return reply({"jobs": [asdict(job) for job in queue.jobs()]})

    @app.get("/jobs/<job>")
    def job(job: str) -> Response:
        """A job: its status, stage, progress, the run that it made, and why it failed."""
        return reply(asdict(queue.job(job)))

    @app.delete("/jobs/<job>")
    def cancel(job: str) -> Response:
        """Take a waiting job off the queue, or stop a running one; `?by=` says who asks. 409 once it has ended."""
        return reply(asdict(queue.cancel(job, registry, by=requests.text(request.args, "by"))))

    @app.get("/runs")
    def runs() -> Response:
        """The newest runs, of all models or of `?model=`, `?limit=` of them (default 50), without tracebacks."""
        model = request.args.get("model")
        limit = requests.limit(request.args.get("limit"))
        if model is not None:
            overview.require(recipes.definitions, model)
        found = [asdict(run) for run in registry.runs.newest(model, limit)]
        return reply({"runs": [{name: run[name] for name in run if name != "traceback"} for run in found]})

    @app.get("/runs/<run>")
    def run(run: str) -> Response:
        """A run with all that is recorded of it."""
        return reply(asdict(registry.runs.get(run)))

    @app.get("/models")
    def models() -> Response:
        """Every declared or trained model: policy, schedules, aliases and newest version."""
        return reply({"models": overview.models(recipes.definitions)})

    @app.get("/models/<model>")
    def model(model: str) -> Response:
        """A model: recipe, newest versions, aliases and their history."""
        return reply(overview.model(recipes.definitions, model))

    @app.put("/models/<model>/aliases/<alias>")
    def promote(model: str, alias: str) -> Response:
        """Let an alias name a version: `{"version": 3, "by": ..., "reason": ...}`; predictors serve `champion`.

        The version's package is checked first; a broken one is never promoted.
        """
        body = json_object()
        requests.require_fields(body, ("version", "by", "reason"))
        number = requests.version(body)
        by, reason = requests.text(body, "by"), requests.text(body, "reason")
        overview.require(recipes.definitions, model)
        return reply(asdict(overview.promote(model, number, alias=requests.alias(alias), by=by, reason=reason)))

    @app.post("/models/<model>/rollback")
    def rollback(model: str) -> Response:
        """Let the champion be the version that it was before: `{"by": ..., "reason": ...}`.

        `{"alias": ...}` rolls another alias back. 409 where there is no earlier version.
        """
        body = json_object()
        requests.require_fields(body, ("alias", "by", "reason"))
        alias = requests.alias(requests.text(body, "alias") or CHAMPION)
        by, reason = requests.text(body, "by"), requests.text(body, "reason")
        overview.require(recipes.definitions, model)
        return reply(asdict(overview.rollback(model, alias=alias, by=by, reason=reason)))

    return app
