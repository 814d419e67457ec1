"""The HTTP calls about aliases."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response, request

from modelmill.http.web import json_object, reply
from modelmill.state.registry import CHAMPION
from services.trainer import requests
from services.trainer.models.moves import Moves
from services.trainer.models.overview import Overview
from services.trainer.recipes import Recipes


def add_alias_routes(app: Flask, overview: Overview, moves: Moves, recipes: Recipes) -> None:
    """Add them to the trainer."""
    registry = moves.registry

    @app.put("/models/<model>/aliases/<alias>")
    def promote(model: str, alias: str) -> Response:
        """Let an alias name a version: `{"version": 3, "by": ..., "reason": ...}`; predictors serve `champion`.

        With `"expected": 2` the alias must name version 2 by now (0: none yet), otherwise the answer is 409 with the
        `present` one. The version's package is checked first; a broken one is never promoted. A version that failed a
        gate does not become champion (409), unless `"force": true` comes with a reason, which is kept.
        """
        body = json_object()
        requests.require_fields(body, ("version", "expected", "force", "by", "reason"))
        number = requests.version(body)
        by, reason = requests.text(body, "by"), requests.text(body, "reason")
        expected, force = requests.expected(body.get("expected")), requests.switch(body, "force")
        overview.require(recipes.definitions, model)
        name = requests.alias(alias)
        return reply(
            asdict(moves.promote(model, number, alias=name, by=by, reason=reason, expected=expected, force=force))
        )

    @app.delete("/models/<model>/aliases/<alias>")
    def delete_alias(model: str, alias: str) -> Response:
        """Let an alias name nothing, `?expected=` a version, `&by=`, `&reason=`; its history stays.

        A model without `champion` is not served.
        """
        requests.require_fields(request.args, ("expected", "by", "reason"))
        by, reason = requests.text(request.args, "by"), requests.text(request.args, "reason")
        expected = requests.expected(request.args.get("expected"))
        overview.require(recipes.definitions, model)
        return reply(asdict(registry.delete_alias(model, alias, by=by, reason=reason, expected=expected)))

    @app.post("/models/<model>/rollback")
    def rollback(model: str) -> Response:
        """Let the champion be the version that it was before: `{"by": ..., "reason": ...}`; again, the one before that.

        `"to": 3` goes back to version 3 at once, `"alias": ...` rolls another alias back, `"expected": ...` is as for
        a promotion. 409 where there is no earlier version, where its package was pruned, or where its features are not
        stored any more, which `"force": true` accepts.
        """
        body = json_object()
        requests.require_fields(body, ("alias", "to", "expected", "force", "by", "reason"))
        alias = requests.alias(requests.text(body, "alias") or CHAMPION)
        by, reason = requests.text(body, "by"), requests.text(body, "reason")
        to = requests.version({"version": body["to"]}) if body.get("to") is not None else None
        expected, force = requests.expected(body.get("expected")), requests.switch(body, "force")
        overview.require(recipes.definitions, model)
        return reply(
            asdict(
                moves.rollback(
                    recipes.definitions, model, alias=alias, by=by, reason=reason, to=to, expected=expected, force=force
                )
            )
        )

    @app.get("/models/<model>/history")
    def history(model: str) -> Response:
        """Every move of every alias of a model, or of `?alias=`, newest first: the newest `?limit=` (default 50)."""
        requests.require_fields(request.args, ("alias", "limit"))
        limit = requests.limit(request.args.get("limit"))
        overview.require(recipes.definitions, model)
        found = registry.history(model, request.args.get("alias"))
        return reply({"history": [asdict(move) for move in found[: -limit - 1 : -1]]})
