"""The HTTP calls about trainings that wait, run or have ended, and about what triggers them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Self

from flask import Flask, Response
from pydantic import model_validator

from modelmill.errors import InvalidRequest, UnknownName
from modelmill.http import sse
from modelmill.http.app import reply
from modelmill.http.bodies import Body, Moment, Query, Text, takes
from modelmill.http.sse import Listeners
from modelmill.settings import Settings
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer.jobs import snapshot
from services.trainer.jobs.journal import Journal, read_log, readable
from services.trainer.jobs.queue import BACKFILL, TrainingQueue
from services.trainer.jobs.view import ENDED_NAMES, JobView
from services.trainer.recipes import Recipes
from services.trainer.triggers.scheduler import schedules


class Training(Body):
    """What a training is asked for with."""

    by: Text = ""
    start: Moment = None
    end: Moment = None
    as_of: Moment = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        start, end, as_of = self.start, self.end, self.as_of
        if as_of and (start or end):
            raise InvalidRequest("field 'as_of' is given; expected no 'start' and no 'end' beside it", field="as_of")
        if as_of and as_of > datetime.now(UTC):
            wrong = f"field 'as_of' is {as_of.isoformat()}"
            raise InvalidRequest(f"{wrong}; expected a time that has passed", field="as_of")
        if start and end and start >= end:
            wrong = f"field 'start' is {start.isoformat()} and 'end' is {end.isoformat()}"
            raise InvalidRequest(f"{wrong}; expected the start to be earlier", field="start")
        return self

    def span(self) -> tuple[str | None, str | None, str]:
        """The span of event times to train on, and what the training says that it was triggered by."""
        if self.as_of:
            return None, self.as_of.astimezone(UTC).isoformat().replace("+00:00", "Z"), BACKFILL
        start, end = (moment.isoformat() if moment else None for moment in (self.start, self.end))
        return start, end, "manual"


class Cancellation(Query):
    """What comes with a job's end."""

    by: Text = ""


def add_job_routes(
    app: Flask, queue: TrainingQueue, registry: Registry, recipes: Recipes, storage: Storage, settings: Settings
) -> None:
    """Add them to the trainer."""
    listeners = Listeners(settings.threads)
    wait = min(WAIT, settings.redis_timeout / 2)

    @app.post("/models/<model>/train")
    @takes(Training)
    def train(model: str, body: Training) -> Response:
        """Enqueue a training; answers 202 with the job to look at.

        `{"start": ..., "end": ...}` trains on the labelled rows with start <= event time < end, default all;
        `{"as_of": ...}`, a time that has passed, on those before it, which does not keep triggers from firing.
        `{"by": ...}` says who asks. Where a training of the same model and span waits already, or runs and nothing was
        ingested since, no second one is enqueued: 200 with its job, and `existing`. 429 while too many trainings wait.
        """
        start, end, trigger = body.span()
        definitions = recipes.definitions
        timeout = definitions.model(model).timeout
        data = snapshot.position(queue.redis, definitions, model)
        asked = queue.request(model, data, trigger=trigger, by=body.by, start=start, end=end, timeout=timeout)
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
    @takes(Cancellation)
    def cancel(job: str, query: Cancellation) -> Response:
        """Take a waiting job off the queue, or stop a running one; `?by=` says who asks. 409 once it has ended."""
        return reply(asdict(queue.cancel(job, registry, by=query.by)))

    @app.get("/jobs/<job>/events")
    def job_events(job: str) -> Response:
        """What a job does, as server-sent events: `state`, `stage` (with progress and rows), `log`, `again`, `end`.

        All that has happened comes first; `Last-Event-ID` goes on after that event. There are places for two fewer
        listeners than the server has threads.
        """
        return listeners.answer(lambda position: follow(queue, job, position, wait=wait))

    @app.get("/runs/<run>/log")
    def run_log(run: str) -> Response:
        """What a run has logged and printed so far, a line each with its time; the newest 10,000 lines."""
        found = registry.runs.get(run)
        text = read_log(storage, Journal(registry.redis, found.job), found.model, run)
        return Response(text, content_type="text/plain; charset=utf-8")


# --- a job's journal as server-sent events, live and again afterwards.
#
# `state` is the job as `GET /jobs/{id}` shows it, first of all and whenever its status or place changes; `stage`,
# `log` and `again` are the journal's entries; `end` is the job once it has ended, and the last of them.

WAIT = 1.0
"""Seconds that one read waits for entries; it must be below the time limit of a Redis call."""


def follow(queue: TrainingQueue, job: str, position: str | None, *, wait: float = WAIT) -> Iterator[str]:
    """The events of `job` after `position`, the id of one, or from its begin.

    Raises:
        InvalidRequest: for a position that is no id of an event.
        UnknownName: for a job that does not exist.
    """
    sse.require_position(position)
    return sse.stream(_turns(queue, queue.job(job), position or "0-0", wait))


def _turns(queue: TrainingQueue, view: JobView, position: str, wait: float) -> Iterator[list[str]]:
    journal, shown, closed = Journal(queue.redis, view.job), None, False
    again: dict[str, str] | None = None  # told by the attempt itself, before its worker has taken in its last lines
    while True:
        if (state := (view.status, view.position, view.attempt)) != shown:
            yield [sse.event("state", asdict(view))]
            shown = state
        found = queue.redis.xread({journal.key: position}, count=1000, block=max(1, int(wait * 1000)))
        entries, events = found[0][1] if found else [], []
        for number, fields in entries:
            position, entry = number.decode(), readable(fields)
            kind = entry.pop("kind")
            closed = kind == "closed"
            if again and kind in ("closed", "stage"):
                events.append(sse.event("again", again, position))
                again = None
            if kind == "again":
                again = entry
            elif kind not in ("closed", "end"):
                events.append(sse.event(kind, entry, position))
        if again and not entries:
            events.append(sse.event("again", again, position))
            again = None
        yield events
        try:
            view = queue.job(view.job)
        except UnknownName:
            return  # the client connects again, and is told so
        if view.status in ENDED_NAMES and (closed or not entries):
            yield [sse.event("end", asdict(view))]
            return


# --- the HTTP call about triggers


def add_trigger_routes(app: Flask, recipes: Recipes) -> None:
    """Add it to the trainer."""

    @app.get("/schedules")
    def triggers() -> Response:
        """Every trigger: when it fires next, when it fired last, what became of it and what it waits for.

        `today` counts the outcomes of the day in UTC; `rows` are those that came since it fired last, `lost` the
        entries of its stream that were trimmed before they were read.
        """
        found = schedules(recipes.redis, recipes.definitions, datetime.now(UTC))
        return reply({"schedules": found})
