"""The HTTP calls that read what the feature store holds: entities, and statistics of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from flask import Flask, Response, request

from modelmill.columns.sketch import RELATIVE_ERROR
from modelmill.columns.statistics import ColumnStatistics
from modelmill.errors import InvalidRequest, MissingEntity, TooLarge, UnknownName
from modelmill.http.web import json_object, reply
from services.feature.arguments import entity_key, flag, query_flag
from services.feature.definitions.catalogue import Catalogue
from services.feature.store import online
from services.feature.store.details import details
from services.feature.store.statistics_files import StatisticsFiles

MAX_LOOKUP = 1000
"""Entities of one lookup."""


def add_store_routes(app: Flask, catalogue: Catalogue, files: StatisticsFiles) -> None:
    """Add them to the feature service."""

    @app.get("/sources/<source>/statistics")
    def statistics(source: str) -> Response:
        """Statistics of each column, a day (UTC) of the event times and all of them together.

        `?start=2013-01-01&end=2013-02-01` takes the days with start <= day < end, `?column=x` one column. `merged` has
        histogram and most frequent values too: each count of these is at most `top_error` too low. Quantiles are
        within `relative_error` of a value that was there.
        """
        definitions = catalogue.definitions
        of = definitions.source(source)
        fields = {**dict.fromkeys(of.columns), **{f.name: f.field for f in definitions.features[source].values()}}
        start, end = _day(request.args, "start"), _day(request.args, "end")
        column = request.args.get("column")
        if column is not None and column not in fields:
            raise UnknownName("column", column, fields)
        found = files.of(of).between(start, end)
        columns = {
            name: {
                "merged": ColumnStatistics.merged([*days.values()]).answer(detail=True) if days else None,
                "days": {day.isoformat(): one.answer(detail=False) for day, one in days.items()},
            }
            for name, field in fields.items()
            if column in (None, name)
            for days in [found.get(field or name, {})]
        }
        return reply({"source": source, "relative_error": RELATIVE_ERROR, "columns": columns})

    @app.get("/entities/<entity>")
    @app.get("/entities/<entity>/<key:key>")
    def entity(entity: str, key: str | None = None) -> Response:
        """The stored features of one entity, with event and ingest time of each source's row; expired ones are null.

        Of `?key=42`, whatever the key; it may also stand in the path, which proxies and some clients alter where it has
        slashes or is made of dots, and which has another meaning where it is `explain` or ends in `/explain`.
        `?detail=true` tells of each value its status (present, missing, expired, failed), age, times and source.
        """
        key, detail = entity_key(key, "detail"), query_flag(request.args, "detail")
        found = _entities(catalogue, entity, [key], detail)[0]
        if found is None:
            raise MissingEntity(entity, key)
        return reply({"entity": entity, "key": key, **found})

    @app.post("/entities/<entity>/lookup")
    def lookup(entity: str) -> Response:
        """The stored features of several entities: `{"keys": [...]}`; null for one that is not there.

        With `"detail": true` each value comes with its status, age, times and source.
        """
        catalogue.definitions.entity(entity)
        body = json_object()
        ids, detail = body.get("keys"), flag(body, "detail")
        if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
            raise InvalidRequest(f"keys is {ids!r}; expected a list of texts")
        if len(ids) > MAX_LOOKUP:
            raise TooLarge("keys", len(ids), MAX_LOOKUP)
        return reply({"entities": dict(zip(ids, _entities(catalogue, entity, ids, detail), strict=True))})


def _entities(catalogue: Catalogue, entity: str, ids: Sequence[str], detail: bool) -> list[dict[str, Any] | None]:
    """What is told of each entity; None for one that is not there."""
    definitions, now = catalogue.definitions, datetime.now(UTC)
    definitions.entity(entity)
    found = online.read(catalogue.redis, definitions, entity, ids, now)
    if not detail:
        return [None if one is None else one.answer() for one in found]
    refs = list(definitions.features_of(entity).values())
    return [None if one is None else {"features": details(one, refs, now)} for one in found]


def _day(arguments: Mapping[str, str], name: str) -> date | None:
    if (text := arguments.get(name)) is None:
        return None
    with suppress(ValueError):
        if (day := date.fromisoformat(text)).isoformat() == text:  # not 20130201, which is no time anywhere
            return day
    raise InvalidRequest(f"{name} is {text[:80]!r}; expected a day such as 2013-02-01")
