"""The HTTP calls about trainings that wait, run or have ended."""

from __future__ import annotations

from dataclasses import asdict
from threading import BoundedSemaphore
from typing import cast

from flask import Flask, Response, request

from modelmill.errors import Unavailable
from modelmill.http.web import json_object, reply
from modelmill.settings import Settings
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer import requests
from services.trainer.jobs import feed, snapshot
from services.trainer.jobs.journal import Journal, read_log
from services.trainer.jobs.priority import PRIORITIES, Priority
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.recipes import Recipes


def add_job_routes(
    app: Flask, queue: TrainingQueue, registry: Registry, recipes: Recipes, storage: Storage, settings: Settings
) -> None:
    """Add them to the trainer."""
    most_listeners = max(0, settings.threads - 2)  # two threads remain for everybody else
    places = BoundedSemaphore(most_listeners)
    wait = min(feed.WAIT, settings.redis_timeout / 2)

    @app.post("/models/<model>/train")
    def train(model: str) -> Response:
        """Enqueue a training; answers 202 with the job to look at.

        `{"start": ..., "end": ...}` trains on the labelled rows with start <= event time < end, default all.
        `{"by": ...}` says who asks, `{"priority": "high"}` (or normal, low) which job comes first. Where a training
        of the same model and span waits already, or runs and nothing was ingested since, no second one is enqueued:
        200 with its job, and `existing`. 429 while too many trainings wait.
        """
        body = json_object()
        requests.require_fields(body, ("by", "start", "end", "priority"))
        start, end = requests.span(body)
        by = requests.text(body, "by")
        priority = cast(Priority, requests.one_of(body, "priority", PRIORITIES, "normal"))
        definitions = recipes.definitions
        timeout = definitions.model(model).timeout
        data = snapshot.position(queue.redis, definitions, model)
        asked = queue.request(model, data, by=by, start=start, end=end, priority=priority, timeout=timeout)
        url = f"/jobs/{asked.job}"
        answer = {"job": asked.job, "url": url, "model": model, "existing": asked.existing}
        return reply(
            {**answer, "status": queue.job(asked.job).status}, 200 if asked.existing else 202, {"Location": url}
        )

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

    @app.get("/jobs/<job>/events")
    def job_events(job: str) -> Response:
        """What a job does, as server-sent events: `state`, `stage` (with progress and rows), `log`, `again`, `end`.

        All that has happened comes first; `Last-Event-ID` goes on after that event. There are places for two fewer
        listeners than the server has threads.
        """
        if not places.acquire(blocking=False):
            raise Unavailable(f"all {most_listeners} places for listeners are taken; raise MODELMILL_THREADS")
        try:
            events = feed.follow(queue, job, request.headers.get("Last-Event-ID"), wait=wait)
        except BaseException:
            places.release()
            raise
        response = Response(events, content_type="text/event-stream", headers={"Cache-Control": "no-store"})
        response.call_on_close(places.release)
        return response

    @app.get("/runs/<run>/log")
    def run_log(run: str) -> Response:
        """What a run has logged and printed so far, a line each with its time; the newest 10,000 lines."""
        found = registry.runs.get(run)
        text = read_log(storage, Journal(registry.redis, found.job), found.model, run)
        return Response(text, content_type="text/plain; charset=utf-8")
