"""The predictor's HTTP routes, and what is live as it is told to callers."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, g

from modelmill.http import app as http
from modelmill.http.app import redis_answers, reply
from modelmill.http.bodies import json_body
from modelmill.packages.package import Input
from services.predictor.inference import LiveModels
from services.predictor.predictor import Predictor
from services.predictor.settings import PredictorSettings


def create_app(settings: PredictorSettings, predictor: Predictor) -> Flask:
    """The predictor's Flask app."""
    live = predictor.live
    checks = {"models": live.check_ready, "redis": redis_answers(predictor.registry.redis)}
    app = http.create_app("predictor", settings, checks)

    @app.post("/models/<name>/predict")
    def predict(name: str) -> Response:
        """Predict with the live version of a model.

        The body is one object of join keys and request inputs, `{"user_id": "42"}`. A value for a feature goes
        before the stored one, and with all features of an entity given its key may be left out. Several at once:
        `{"instances": [{...}, {...}]}`; the id of the answer to instance i is then `{prediction_id}-{i}`.
        The answer says under `features` how old the stored features of each entity are.
        """
        return reply(predictor.answer(name, json_body, g.started))

    @app.get("/models")
    def models() -> Response:
        """What is live: of each model its version and what it takes, and why a champion could not be loaded."""
        return reply([describe(live, name) for name in sorted({*live.served, *live.problems})])

    @app.get("/models/<name>")
    def model(name: str) -> Response:
        """What is live of one model."""
        if name not in live.problems:
            predictor.model(name)
        return reply(describe(live, name))

    return app


# --- what is live, as it is told to callers.


def describe(live: LiveModels, name: str) -> dict[str, Any]:
    """A model's live version and what it takes, both absent where none is live, and why its champion is not."""
    served, problem = live.served.get(name), live.problems.get(name)
    about: dict[str, Any] = {"model": name, "version": None}
    if served is not None:
        manifest = served.manifest
        about |= {
            "version": served.version,
            "loaded": served.loaded,
            "run": manifest.run,
            "task": manifest.task,
            "runtime": manifest.runtime,
            "label": manifest.labels or manifest.label,
            "classes": manifest.classes,
            "entities": manifest.entities,
            "inputs": [_described(item) for item in manifest.inputs],
            "auxiliary": [_described(item) for item in manifest.auxiliary],
            "metrics": manifest.metrics,
            "example": manifest.example,
        }
    about["problem"] = problem and {
        "version": problem.version,
        "reason": problem.reason,
        "since": problem.since,
    }
    return about


def _described(item: Input) -> dict[str, Any]:
    about: dict[str, Any] = {"name": item.name, "dtype": item.dtype, "nullable": item.nullable, "entity": item.entity}
    if item.has_default:
        about["default"] = item.default
    if item.needs is not None:
        about |= {"needs": list(item.needs.values()), "version": item.version}
    return about
