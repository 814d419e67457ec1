"""The HTTP calls about models, their versions and aliases, their tags and notes, cards and evaluations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from flask import Flask, Response
from pydantic import ConfigDict, Field, model_validator

from modelmill.declare.declarations import KEEP, NAME
from modelmill.errors import InvalidRequest, shortened
from modelmill.http.app import reply
from modelmill.http.bodies import MAX_TEXT, Body, Number, Query, Switch, Text, takes
from modelmill.state.registry import CHAMPION, Registry
from services.trainer.cards.cards import Cards
from services.trainer.evaluation import evaluation
from services.trainer.models import Moves, Overview, Retention
from services.trainer.recipes import Recipes

Version = Annotated[int, Field(ge=1, description="a version number such as 3")]
Expected = Annotated[Annotated[Number, Field(ge=0)] | None, Field(description="a version number, or 0 for none")]
"""The version that an alias must name by now."""
Alias = Annotated[
    str, Field(pattern=f"^{NAME.pattern}$", description="letters, digits and _, not starting with a digit")
]
MAX_LIMIT = 1000
Limit = Annotated[Number, Field(ge=1, le=MAX_LIMIT, description=f"a number from 1 to {MAX_LIMIT}")]


class Reasoned(Body):
    """Who asks for a move of an alias, and why."""

    by: Text = ""
    reason: Text = ""
    expected: Expected = None


class Promotion(Reasoned):
    """What an alias is to name."""

    version: Version
    force: Switch = False


class Rollback(Reasoned):
    """What an alias is to name again."""

    alias: Alias = CHAMPION
    to: Annotated[Version | None, Field(description="a version number such as 3")] = None
    force: Switch = False


class AliasDeletion(Query):
    """What comes with the end of an alias."""

    by: Text = ""
    reason: Text = ""
    expected: Expected = None


class History(Query):
    """Which moves are asked for."""

    alias: str | None = Field(None, description="the name of an alias")
    limit: Limit = 50


class Pruning(Body):
    """Whether old versions are removed or only told."""

    dry_run: Switch = False
    by: Text = ""


class Note(Body):
    """What is noted, and by whom."""

    text: Annotated[str, Field(max_length=MAX_TEXT, pattern=r"\S", description="what is to be noted, in 500 letters")]
    by: Text = ""


class Tags(Body):
    """Tags, each with its value; null takes one away."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[str, Field(max_length=MAX_TEXT)] | None] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _tags(cls, given: Any) -> Any:
        if not given:
            raise InvalidRequest('the body is empty; expected tags such as {"stage": "reviewed"}')
        for name, value in given.items():
            if value is not None and (not isinstance(value, str) or len(value) > MAX_TEXT):
                wrong = f"tag {name!r} is {shortened(value)}"
                raise InvalidRequest(f"{wrong}; expected a text of at most {MAX_TEXT} letters, or null", field=name)
        return given

    def values(self) -> dict[str, str]:
        """Tag to value, which is empty where the tag is taken away."""
        return {name: value or "" for name, value in (self.model_extra or {}).items()}


class CardOf(Query):
    """Which version's card is asked for."""

    alias: Alias = CHAMPION


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
    @takes(Pruning)
    def prune(model: str, body: Pruning) -> Response:
        """Remove packages and run files of old versions, as the model's `keep` says: `{"dry_run": true, "by": ...}`.

        Never what an alias names, what five rollbacks return to, or what the monitor counts predictions of. With
        `dry_run` the answer says what would go and how many bytes. The records of versions and runs stay.
        """
        overview.require(recipes.definitions, model)
        recipe = recipes.definitions.models.get(model)
        done = retention.prune(model, recipe.keep if recipe else KEEP, by=body.by, dry_run=body.dry_run)
        return reply({**asdict(done), "bytes": done.bytes})


# --- the HTTP calls about aliases


def add_alias_routes(app: Flask, overview: Overview, moves: Moves, recipes: Recipes) -> None:
    """Add them to the trainer."""
    registry = moves.registry

    @app.put("/models/<model>/aliases/<alias>")
    @takes(Promotion)
    def promote(model: str, alias: str, body: Promotion) -> Response:
        """Let an alias name a version: `{"version": 3, "by": ..., "reason": ...}`; predictors serve `champion`.

        With `"expected": 2` the alias must name version 2 by now (0: none yet), otherwise the answer is 409 with the
        `present` one. The version's package is checked first; a broken one is never promoted. A version that failed a
        gate does not become champion (409), unless `"force": true` comes with a reason, which is kept.
        """
        overview.require(recipes.definitions, model)
        if not NAME.fullmatch(alias):
            raise InvalidRequest(f"alias {alias!r}: expected letters, digits and _, not starting with a digit")
        return reply(asdict(moves.promote(model, alias=alias, **body.model_dump())))

    @app.delete("/models/<model>/aliases/<alias>")
    @takes(AliasDeletion)
    def delete_alias(model: str, alias: str, query: AliasDeletion) -> Response:
        """Let an alias name nothing, `?expected=` a version, `&by=`, `&reason=`; its history stays.

        A model without `champion` is not served.
        """
        overview.require(recipes.definitions, model)
        return reply(asdict(registry.delete_alias(model, alias, **query.model_dump())))

    @app.post("/models/<model>/rollback")
    @takes(Rollback)
    def rollback(model: str, body: Rollback) -> Response:
        """Let the champion be the version that it was before: `{"by": ..., "reason": ...}`; again, the one before that.

        `"to": 3` goes back to version 3 at once, `"alias": ...` rolls another alias back, `"expected": ...` is as for
        a promotion. 409 where there is no earlier version, where its package was pruned, or where its features are not
        stored any more, which `"force": true` accepts.
        """
        overview.require(recipes.definitions, model)
        return reply(asdict(moves.rollback(recipes.definitions, model, **body.model_dump())))

    @app.get("/models/<model>/history")
    @takes(History)
    def history(model: str, query: History) -> Response:
        """Every move of every alias of a model, or of `?alias=`, newest first: the newest `?limit=` (default 50)."""
        overview.require(recipes.definitions, model)
        found = registry.history(model, query.alias)
        return reply({"history": [asdict(move) for move in found[: -query.limit - 1 : -1]]})


# --- the HTTP calls that add tags and notes to versions and runs


def add_remark_routes(app: Flask, registry: Registry) -> None:
    """Add them to the trainer."""

    @app.patch("/models/<model>/versions/<version>/tags")
    @takes(Tags)
    def tag_version(model: str, version: str, body: Tags) -> Response:
        """Tag a version, by its number or an alias: `{"stage": "reviewed", "old": null}`; null takes a tag away."""
        number = registry.named(model, version).version
        registry.remarks.tag_version(model, number, body.values())
        return reply(asdict(registry.version(model, number)))

    @app.post("/models/<model>/versions/<version>/notes")
    @takes(Note)
    def note_version(model: str, version: str, body: Note) -> Response:
        """Add a note to a version, by its number or an alias: `{"text": ..., "by": ...}`."""
        number = registry.named(model, version).version
        registry.remarks.note_version(model, number, body.text, by=body.by)
        return reply(asdict(registry.version(model, number)))

    @app.patch("/runs/<run>/tags")
    @takes(Tags)
    def tag_run(run: str, body: Tags) -> Response:
        """Tag a run: `{"stage": "reviewed", "old": null}`; null takes a tag away, other tags stay."""
        registry.remarks.tag_run(run, body.values())
        return reply(asdict(registry.runs.get(run)))

    @app.post("/runs/<run>/notes")
    @takes(Note)
    def note_run(run: str, body: Note) -> Response:
        """Add a note to a run: `{"text": ..., "by": ...}`."""
        registry.remarks.note_run(run, body.text, by=body.by)
        return reply(asdict(registry.runs.get(run)))


# --- the HTTP calls about evaluations, and the model cards that show them


def add_card_routes(app: Flask, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    cards = Cards(overview.registry, overview.storage)

    @app.get("/models/<model>/card")
    @takes(CardOf)
    def champion_card(model: str, query: CardOf) -> Response:
        """The card of a model's champion, or of `?alias=`: one HTML page that asks for nothing else."""
        overview.require(recipes.definitions, model)
        return _page(cards.of_alias(model, query.alias))

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
