"""The HTTP calls about triggers, and about training as of past days."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response

from modelmill.errors import InvalidRequest
from modelmill.http.web import json_object, reply
from services.trainer import requests
from services.trainer.recipes import Recipes
from services.trainer.triggers.backfill import Backfill, Backfills
from services.trainer.triggers.overview import schedules
from services.trainer.triggers.points import STEP, Point, points, when


def add_trigger_routes(app: Flask, recipes: Recipes, backfills: Backfills) -> None:
    """Add them to the trainer."""

    @app.get("/schedules")
    def triggers() -> Response:
        """Every trigger: when it fires next, when it fired last, what became of it and what it waits for.

        `today` counts the outcomes of the day in UTC; `rows` are those that came since it fired last, `lost` the
        entries of its stream that were trimmed before they were read.
        """
        found = schedules(recipes.redis, recipes.definitions, datetime.now(UTC))
        return reply({"schedules": found})

    @app.post("/models/<model>/backfill")
    def backfill(model: str) -> Response:
        """Train a model as of past days: `{"from": "2013-02-01", "to": "2013-12-01", "step": "month"}`; answers 202.

        As of `from` and every `step` later (default `1d`) up to `to`, on the rows with event times before, one training
        after another. Asked again, it goes on with the points for which none has succeeded; with `{"again": true}` it
        begins anew. 409 while it does so for other points.
        """
        body = json_object()
        requests.require_fields(body, ("from", "to", "step", "again", "by"))
        wanted = _wanted(model, body)
        again = body.get("again", False)
        if not isinstance(again, bool):
            raise InvalidRequest(f"field 'again' is {again!r}; expected true or false", field="again")
        recipes.definitions.model(model)
        return reply(backfills.ask(wanted, again=again).view(), 202, {"Location": f"/models/{model}/backfill"})

    @app.get("/models/<model>/backfill")
    def backfilled(model: str) -> Response:
        """How far the training of a model as of past days has come, and each point's run and version."""
        return reply(backfills.get(model).view())

    @app.delete("/models/<model>/backfill")
    def cancel_backfill(model: str) -> Response:
        """End the training of a model as of past days, and cancel its job; 409 once it has ended."""
        return reply(backfills.cancel(model).view())


def _wanted(model: str, body: dict[str, Any]) -> Backfill:
    start, end = _moment(body, "from"), _moment(body, "to")
    step = requests.text(body, "step") or STEP
    if end > datetime.now(UTC):
        raise InvalidRequest(f"field 'to' is {when(end)}; expected a time that has passed", field="to")
    found = {name: Point(as_of=name) for name in map(when, points(start, end, step))}
    by = requests.text(body, "by")
    return Backfill(model=model, start=when(start), end=when(end), step=step, by=by, points=found)


def _moment(body: dict[str, Any], name: str) -> datetime:
    text = requests.moment(body, name)
    if text is None:
        raise InvalidRequest(f"field {name!r} is missing; expected a time such as 2013-02-01T00:00:00Z", field=name)
    return datetime.fromisoformat(text)
