"""The HTTP calls about features: which are in force, who uses each, and how other definitions come into force."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from flask import Flask, Response
from pydantic import Field

from modelmill.declare.declarations import About, Feature, Source
from modelmill.declare.definitions import Definitions, FeatureRef, model_features
from modelmill.http.app import reply
from modelmill.http.bodies import Switch, takes
from services.feature.definitions.catalogue import Catalogue
from services.feature.http.arguments import Asked
from services.feature.upkeep.statistics import FileStatistics, StatisticsFiles


class Application(Asked):
    """Which definitions are to come into force."""

    fingerprint: str | None = Field(None, description="the SHA-256 of a definitions file")
    versions: dict[str, str] | None = Field(None, description="an object of names to versions")
    dry_run: Switch = False


def add_definitions_routes(app: Flask, catalogue: Catalogue, files: StatisticsFiles) -> None:
    """Add them to the feature service."""

    @app.get("/features")
    def features() -> Response:
        """Every declared feature: type, source, version, owner, the models that use it, freshness and null share.

        `newest` is the newest event time of its source's rows, `null_share` the share of these without a value, which
        an aggregate has not. A request-time feature has neither, no entity and no source; it says what it `needs`.
        """
        return reply({"features": features_overview(catalogue.definitions, files.of)})

    @app.post("/features")
    @takes(Application)
    def apply(body: Application) -> Response:
        """Apply the definitions file: compute its new and changed features for all stored rows, then put it in force.

        202 where there is something to compute, which goes on in the background; `GET /features/backfill` tells how
        far it is. `{"dry_run": true}` only says what would change. `{"fingerprint": "..."}` insists on the file with
        this SHA-256; `{"versions": {"users.feature_3": "..."}}` on functions that are these versions, as another
        process has found: a function of which each process finds another one is refused.
        """
        fingerprint = body.fingerprint
        catalogue.require_versions(fingerprint, body.versions or {})
        if body.dry_run:
            return reply(asdict(catalogue.plan(fingerprint)))
        if catalogue.lacking(fingerprint):
            url = "/features/backfill"
            return reply(asdict(catalogue.begin(fingerprint)) | {"url": url}, 202, {"Location": url})
        return reply(asdict(catalogue.apply(fingerprint)))

    @app.get("/features/backfill")
    def backfill() -> Response:
        """How far the last application of definitions is: state (running, done, failed), rows, and why it failed."""
        return reply(catalogue.progress.read())


# --- every declared feature: its type and origin, who answers for it, who uses it, how fresh and how complete it is.


def features_overview(
    definitions: Definitions, statistics: Callable[[Source], FileStatistics]
) -> list[Mapping[str, object]]:
    """Every online feature with its type, origin, version, the models that use it, and what its source's rows show.

    After them come those that are computed at request time, which belong to no entity and have `needs`. `statistics`
    gives those of a source; it is asked once for each.
    """
    uses = _uses(definitions)
    refs = [ref for entity in definitions.entities for ref in definitions.features_of(entity).values()]
    known = {name: statistics(definitions.source(name)) for name in dict.fromkeys(ref.source for ref in refs)}
    return [
        {
            "entity": ref.entity,
            "name": ref.name,
            "dtype": ref.column.dtype,
            "nullable": ref.column.nullable,
            "source": ref.source,
            "kind": "aggregate" if ref.aggregate else "function" if derived else "column",
            "version": derived.version if derived else None,
            "models": uses.get((ref.entity, ref.name), []),
            **asdict(_about(definitions.sources[ref.source], ref, derived)),
            "newest": known[ref.source].newest or None,
            "null_share": None if ref.aggregate else known[ref.source].null_share(ref.field),
        }
        for ref in refs
        for derived in [None if ref.aggregate else definitions.features[ref.source].get(ref.name)]
    ] + _computed(definitions)


def _computed(definitions: Definitions) -> list[Mapping[str, object]]:
    """The features that are computed at request time; nothing of them is stored."""
    return [
        {
            "entity": None,
            "name": name,
            "dtype": feature.column.dtype,
            "nullable": feature.column.nullable,
            "source": None,
            "kind": "request",
            "version": feature.version,
            "models": [model.name for model in definitions.models.values() if name in model.features],
            "needs": list(feature.needs),
            **asdict(replace(feature.about, description=_described(feature.about, feature.function))),
            "newest": None,
            "null_share": None,
        }
        for name, feature in definitions.request_features.items()
    ]


def _uses(definitions: Definitions) -> dict[tuple[str, str], list[str]]:
    """Entity and feature to the models that read it."""
    uses: dict[tuple[str, str], list[str]] = {}
    for model in definitions.models.values():
        features = model_features(definitions, model)
        for ref in (*features.stored, *features.auxiliary):
            uses.setdefault((ref.entity, ref.column.name), []).append(model.name)
    return uses


def _about(source: Source, ref: FeatureRef, derived: Feature | None) -> About:
    """What a feature declares of itself, or else its function's first line, and whoever answers for its source."""
    if ref.aggregate is not None:
        own = ref.aggregate.about
        return About(own.description, own.owner or source.about.owner, own.tags or source.about.tags)
    if derived is None:
        return replace(source.about, description=ref.column.description)
    own = derived.about
    return About(
        _described(own, derived.function),
        own.owner or source.about.owner,
        own.tags or source.about.tags,
    )


def _described(about: About, function: Callable[..., object]) -> str:
    return about.description or (inspect.getdoc(function) or "").partition("\n")[0]
