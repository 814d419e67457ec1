"""The HTTP calls about models, their versions and aliases, their tags and notes, cards and evaluations."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response, request

from modelmill.declare.declarations import KEEP
from modelmill.errors import InvalidRequest
from modelmill.http.app import reply
from modelmill.http.bodies import json_object
from modelmill.state.registry import CHAMPION, Registry
from services.trainer import requests
from services.trainer.cards.cards import Cards
from services.trainer.evaluation import evaluation
from services.trainer.models import Moves, Overview, Retention
from services.trainer.recipes import Recipes


def add_model_routes(app: Flask, overview: Overview, retention: Retention, recipes: Recipes) -> None:
    """Add them to the trainer."""

    @app.get("/models")
    def models() -> Response:
        """Every declared or trained model: policy, schedules, aliases and newest version."""
        return reply({"models": overview.models(recipes.definitions)})

    @app.get("/models/<model>")
    def model(model: str) -> Response:
        """A model: recipe, newest versions, aliases and their newest moves."""
        return reply(overview.model(recipes.definitions, model))

    @app.get("/models/<model>/versions/<int:version>")
    def version(model: str, version: int) -> Response:
        """A version with all that is recorded of it: metrics, gates, tags, notes, and whether it was pruned."""
        return reply(asdict(overview.registry.version(model, version)))

    @app.post("/models/<model>/prune")
    def prune(model: str) -> Response:
        """Remove packages and run files of old versions, as the model's `keep` says: `{"dry_run": true, "by": ...}`.

        Never what an alias names, what five rollbacks return to, or what the monitor counts predictions of. With
        `dry_run` the answer says what would go and how many bytes. The records of versions and runs stay.
        """
        body = json_object()
        requests.require_fields(body, ("dry_run", "by"))
        overview.require(recipes.definitions, model)
        recipe = recipes.definitions.models.get(model)
        done = retention.prune(
            model,
            recipe.keep if recipe else KEEP,
            by=requests.text(body, "by"),
            dry_run=requests.switch(body, "dry_run"),
        )
        return reply({**asdict(done), "bytes": done.bytes})


# --- the HTTP calls about aliases


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


# --- the HTTP calls that add tags and notes to versions and runs


def add_remark_routes(app: Flask, registry: Registry) -> None:
    """Add them to the trainer."""

    @app.patch("/models/<model>/versions/<version>/tags")
    def tag_version(model: str, version: str) -> Response:
        """Tag a version, by its number or an alias: `{"stage": "reviewed", "old": null}`; null takes a tag away."""
        number = registry.named(model, version).version
        registry.remarks.tag_version(model, number, requests.tags(json_object()))
        return reply(asdict(registry.version(model, number)))

    @app.post("/models/<model>/versions/<version>/notes")
    def note_version(model: str, version: str) -> Response:
        """Add a note to a version, by its number or an alias: `{"text": ..., "by": ...}`."""
        number = registry.named(model, version).version
        text, by = _note()
        registry.remarks.note_version(model, number, text, by=by)
        return reply(asdict(registry.version(model, number)))

    @app.patch("/runs/<run>/tags")
    def tag_run(run: str) -> Response:
        """Tag a run: `{"stage": "reviewed", "old": null}`; null takes a tag away, other tags stay."""
        registry.remarks.tag_run(run, requests.tags(json_object()))
        return reply(asdict(registry.runs.get(run)))

    @app.post("/runs/<run>/notes")
    def note_run(run: str) -> Response:
        """Add a note to a run: `{"text": ..., "by": ...}`."""
        text, by = _note()
        registry.remarks.note_run(run, text, by=by)
        return reply(asdict(registry.runs.get(run)))


def _note() -> tuple[str, str]:
    """Text and author in the body."""
    body = json_object()
    requests.require_fields(body, ("text", "by"))
    text = requests.text(body, "text")
    if not text.strip():
        raise InvalidRequest("field 'text' is empty; expected what is to be noted")
    return text, requests.text(body, "by")


# --- the HTTP calls about evaluations, and the model cards that show them


def add_card_routes(app: Flask, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    cards = Cards(overview.registry, overview.storage)

    @app.get("/models/<model>/card")
    def champion_card(model: str) -> Response:
        """The card of a model's champion, or of `?alias=`: one HTML page that asks for nothing else."""
        overview.require(recipes.definitions, model)
        return _page(cards.of_alias(model, requests.alias(request.args.get("alias", CHAMPION))))

    @app.get("/models/<model>/versions/<int:version>/card")
    def version_card(model: str, version: int) -> Response:
        """The card of a version."""
        overview.require(recipes.definitions, model)
        return _page(cards.of_version(model, version))

    @app.get("/runs/<run>/card")
    def run_card(run: str) -> Response:
        """The card of a run; of one that failed it says how."""
        return _page(cards.of_run(run))

    @app.get("/runs/<run>/evaluation")
    def run_evaluation(run: str) -> Response:
        """How good a run's model is on its held-out rows: metrics, 95 % intervals, baseline, segments."""
        model = overview.registry.runs.get(run).model
        return reply(evaluation.read(overview.storage, model, run))


def _page(html: str) -> Response:
    return Response(html, content_type="text/html; charset=utf-8")
