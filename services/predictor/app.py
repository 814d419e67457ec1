"""The predictor's HTTP routes."""

from __future__ import annotations

from flask import Flask, Response, g

from modelmill.http import web
from services.predictor.catalogue import describe
from services.predictor.predictor import Predictor
from services.predictor.settings import PredictorSettings


def create_app(settings: PredictorSettings, predictor: Predictor) -> Flask:
    """The predictor's Flask app."""
    live = predictor.live
    checks = {"models": live.check_ready, "redis": web.redis_answers(predictor.registry.redis)}
    app = web.create_app("predictor", settings, checks)

    @app.post("/models/<name>/predict")
    def predict(name: str) -> Response:
        """Predict with the live version of a model.

        The body is one object of join keys and request inputs, `{"user_id": "42"}`. A value for a feature goes
        before the stored one, and with all features of an entity given its key may be left out. Several at once:
        `{"instances": [{...}, {...}]}`; the id of the answer to instance i is then `{prediction_id}-{i}`.
        The answer says under `features` how old the stored features of each entity are.
        """
        return web.reply(predictor.answer(name, web.json_body, g.started))

    @app.get("/models")
    def models() -> Response:
        """What is live: of each model its version and what it takes, and why a champion could not be loaded."""
        return web.reply([describe(live, name) for name in sorted({*live.served, *live.problems})])

    @app.get("/models/<name>")
    def model(name: str) -> Response:
        """What is live of one model."""
        if name not in live.problems:
            predictor.model(name)
        return web.reply(describe(live, name))

    return app
