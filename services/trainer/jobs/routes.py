"""The HTTP calls about trainings that wait, run or have ended."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response, request

from modelmill.registry import Registry
from modelmill.web import json_object, reply
from services.trainer import requests
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.recipes import Recipes


def add_job_routes(app: Flask, queue: TrainingQueue, registry: Registry, recipes: Recipes) -> None:
    """Add them to the trainer."""

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
