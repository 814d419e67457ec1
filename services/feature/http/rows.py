"""The HTTP calls that take rows in, tell which were refused, and read what is stored."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from flask import Flask, Response, request
from prometheus_client import Counter
from pydantic import Field

from modelmill.columns.sketch import RELATIVE_ERROR
from modelmill.columns.statistics import ColumnStatistics
from modelmill.declare.declarations import Source
from modelmill.errors import InvalidRequest, InvalidRows, MissingEntity, TooLarge, UnknownName
from modelmill.http.app import reply
from modelmill.http.bodies import Flag, Number, Query, Switch, asked, describes, takes
from services.feature.definitions.catalogue import Catalogue
from services.feature.http.arguments import Asked, Day, KeyQuery, Moment, entity_key
from services.feature.intake import quarantine
from services.feature.intake.decode import decode
from services.feature.intake.ingest import ingest
from services.feature.store import online
from services.feature.store.journal import digest_of
from services.feature.store.online import details
from services.feature.upkeep.statistics import StatisticsFiles

ROWS = Counter("modelmill_rows_total", "Rows of ingest requests by what became of them", ["source", "outcome"])
FAILED = Counter("modelmill_failed_features_total", "Values that a feature function failed to compute", ["feature"])
MAX_REQUEST_ID = 128
"""Characters of a client's request id that are kept."""
MAX_REJECTED = 1000
"""Rejected rows of one answer."""


class Ingestion(Query):
    """What becomes of rows that are wrong."""

    on_error: Literal["fail", "skip"] = Field("fail", description="fail or skip")


class RejectedQuery(Query):
    """Which refused rows are asked for."""

    count: Number = Field(100, ge=1, le=MAX_REJECTED, description=f"a whole number from 1 to {MAX_REJECTED}")
    since: Moment = None


class StatisticsQuery(Query):
    """Which statistics are asked for."""

    start: Day = None
    end: Day = None
    column: str | None = Field(None, description="the name of a column")


class EntityQuery(KeyQuery):
    """What is asked for of an entity."""

    detail: Flag = False


class Lookup(Asked):
    """The entities that are asked for."""

    keys: list[str] = Field(description="a list of texts")
    detail: Switch = False


def add_intake_routes(app: Flask, catalogue: Catalogue) -> None:
    """Add them to the feature service."""

    @app.post("/sources/<source>/rows")
    @takes(Ingestion)
    def add_rows(source: str, query: Ingestion) -> Response:
        """Ingest rows: CSV, JSON, NDJSON or Parquet, by content type.

        All rows or none, unless `?on_error=skip` asks to keep the good ones; the others go to the quarantine, with
        the `X-Request-ID` if there is one. The answer counts accepted and rejected rows, those that came late (a newer
        row of their entity is online) and those of a request that was done before, lists the first reasons, and counts
        failed feature functions.

        A request with the same `Idempotency-Key`, or, for a source with event times, the same content, is done once:
        within an hour it gets the same answer, with its rows counted as `duplicate`; those that were forgotten since
        are taken again. 422 where a request with that key had another body, content type or `on_error`.
        """
        catalogue.definitions.source(source)
        body, kind = request.get_data(cache=False), request.content_type or "none"
        raw = decode(body, kind)
        digest, content = _digests(catalogue.definitions.source(source), body, kind, query.on_error)
        try:
            request_id = request.headers.get("X-Request-ID", "")[:MAX_REQUEST_ID]
            skip_bad = query.on_error == "skip"
            done = ingest(catalogue, source, raw, digest, content=content, skip_bad=skip_bad, request_id=request_id)
        except InvalidRows as error:
            ROWS.labels(source, "rejected").inc(error.fields["rejected"])
            raise
        ROWS.labels(source, "accepted").inc(done.accepted)
        for outcome in ("rejected", "late", "duplicate"):
            ROWS.labels(source, outcome).inc(getattr(done, outcome))
        for feature, count in done.failed_features.items():
            FAILED.labels(feature).inc(count)
        return reply(asdict(done), 201 if done.accepted else 200)

    @app.get("/sources/<source>/rejected")
    @takes(RejectedQuery)
    def rejected(source: str, query: RejectedQuery) -> Response:
        """The quarantine: rows that `?on_error=skip` left out, the newest first, each with its reason.

        `?count=100` rows at most, `?since=2013-02-01T00:00:00Z` only those kept from then on. `rejected` counts those
        that there were ever, `kept` those that can still be read.
        """
        catalogue.definitions.source(source)
        found = quarantine.read(catalogue.redis, source, query.count, query.since)
        return reply({"source": source, **asdict(found)})


def _digests(source: Source, body: bytes, kind: str, on_error: str) -> tuple[str, str]:
    """What tells a request that comes again from a new one; and what it consists of, if that is something else.

    The same rows sent twice to a source without event times are two observations, unless their sender says otherwise.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None and not source.event_time:
        return secrets.token_hex(16), ""
    content = digest_of(source.name, body, kind.encode(), on_error.encode())
    if key is None:
        return content, ""
    if not key.strip():
        raise InvalidRequest("the Idempotency-Key is empty; expected a text that no other request has")
    return digest_of(source.name, b"key", key.encode()), content


# --- the HTTP calls that read what the feature store holds: entities, and statistics of columns.

MAX_LOOKUP = 1000
"""Entities of one lookup."""


def add_store_routes(app: Flask, catalogue: Catalogue, files: StatisticsFiles) -> None:
    """Add them to the feature service."""

    @app.get("/sources/<source>/statistics")
    @takes(StatisticsQuery)
    def statistics(source: str, query: StatisticsQuery) -> Response:
        """Statistics of each column, a day (UTC) of the event times and all of them together.

        `?start=2013-01-01&end=2013-02-01` takes the days with start <= day < end, `?column=x` one column. `merged` has
        histogram and most frequent values too: each count of these is at most `top_error` too low. Quantiles are
        within `relative_error` of a value that was there.
        """
        definitions = catalogue.definitions
        of = definitions.source(source)
        fields = {**dict.fromkeys(of.columns), **{f.name: f.field for f in definitions.features[source].values()}}
        column = query.column
        if column is not None and column not in fields:
            raise UnknownName("column", column, fields)
        found = files.of(of).between(query.start, query.end)
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
    @takes(EntityQuery)
    def entity(entity: str, query: EntityQuery, key: str | None = None) -> Response:
        """The stored features of one entity, with event and ingest time of each source's row; expired ones are null.

        Of `?key=42`, whatever the key; it may also stand in the path, which proxies and some clients alter where it has
        slashes or is made of dots, and which has another meaning where it is `explain` or ends in `/explain`.
        `?detail=true` tells of each value its status (present, missing, expired, failed), age, times and source.
        """
        key = entity_key(key)
        found = _entities(catalogue, entity, [key], query.detail)[0]
        if found is None:
            raise MissingEntity(entity, key)
        return reply({"entity": entity, "key": key, **found})

    @app.post("/entities/<entity>/lookup")
    @describes(Lookup)
    def lookup(entity: str) -> Response:
        """The stored features of several entities: `{"keys": [...]}`; null for one that is not there.

        With `"detail": true` each value comes with its status, age, times and source.
        """
        catalogue.definitions.entity(entity)
        body = asked(Lookup)
        ids, detail = body.keys, body.detail
        if len(ids) > MAX_LOOKUP:
            raise TooLarge("keys", len(ids), MAX_LOOKUP)
        return reply({"entities": dict(zip(ids, _entities(catalogue, entity, ids, detail), strict=True))})


def _entities(catalogue: Catalogue, entity: str, ids: Sequence[str], detail: bool) -> list[dict[str, Any] | None]:
    """What is told of each entity; None for one that is not there."""
    definitions, now = catalogue.definitions, datetime.now(UTC)
    definitions.entity(entity)
    found = online.read(catalogue.redis, definitions, entity, ids, now)
    if not detail:
        return [one.answer() if one.there else None for one in found]
    refs = list(definitions.features_of(entity).values())
    return [{"features": details(one, refs, now)} if one.there else None for one in found]
