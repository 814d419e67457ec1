"""The feature service's HTTP calls."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from flask import Flask, Response, request
from prometheus_client import Counter

from modelmill.column_statistics import ColumnStatistics
from modelmill.declarations import Source
from modelmill.errors import InvalidRequest, InvalidRows, MissingEntity, TooLarge, UnknownName
from modelmill.settings import Settings
from modelmill.sketch import RELATIVE_ERROR
from modelmill.web import create_app, json_object, redis_answers, reply, spooled_body, streams_body
from services.feature.definitions.catalogue import Catalogue
from services.feature.definitions.overview import features_overview
from services.feature.intake import quarantine
from services.feature.intake.decode import decode
from services.feature.intake.ingest import ingest
from services.feature.intake.journal import digest_of
from services.feature.proof.routes import add_proof_routes
from services.feature.store import online
from services.feature.store.details import details
from services.feature.store.statistics_files import StatisticsFiles
from services.feature.training.encode import ARROW_STREAM, PARQUET, encoded
from services.feature.training.frame_requests import flag, frame_of_model, frame_of_spine, moment, query_flag
from services.feature.training.uploads import READERS

ROWS = Counter("modelmill_rows_total", "Rows of ingest requests by what became of them", ["source", "outcome"])
FAILED = Counter("modelmill_failed_features_total", "Values that a feature function failed to compute", ["feature"])
MAX_LOOKUP = 1000
"""Entities of one lookup."""
MAX_REQUEST_ID = 128
"""Characters of a client's request id that are kept."""
MAX_REJECTED = 1000
"""Rejected rows of one answer."""


def feature_app(catalogue: Catalogue, settings: Settings, statistics_files: StatisticsFiles | None = None) -> Flask:
    """The routes of the feature service."""
    redis = catalogue.redis
    files = statistics_files or StatisticsFiles(catalogue.storage)
    app = create_app("feature", settings, {"redis": redis_answers(redis)})

    @app.post("/sources/<source>/rows")
    def add_rows(source: str) -> Response:
        """Ingest rows: CSV, JSON, NDJSON or Parquet, by content type.

        All rows or none, unless `?on_error=skip` asks to keep the good ones; the others go to the quarantine, with
        the `X-Request-ID` if there is one. The answer counts accepted and rejected rows, those that came late (a newer
        row of their entity is online) and those of a request that was done before, lists the first reasons, and counts
        failed feature functions.

        A request with the same `Idempotency-Key`, or, for a source with event times, the same content, is done once:
        within an hour it gets the same answer, with its rows counted as `duplicate`.
        """
        on_error = request.args.get("on_error", "fail")
        if on_error not in ("fail", "skip"):
            raise InvalidRequest(f"on_error={on_error!r}; expected fail or skip")
        catalogue.definitions.source(source)
        body, kind = request.get_data(cache=False), request.content_type or "none"
        raw = decode(body, kind)
        digest = _digest(catalogue.definitions.source(source), body, kind, on_error)
        try:
            request_id = request.headers.get("X-Request-ID", "")[:MAX_REQUEST_ID]
            done = ingest(catalogue, source, raw, digest, skip_bad=on_error == "skip", request_id=request_id)
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
    def rejected(source: str) -> Response:
        """The quarantine: rows that `?on_error=skip` left out, the newest first, each with its reason.

        `?count=100` rows at most, `?since=2013-02-01T00:00:00Z` only those kept from then on. `rejected` counts those
        that there were ever, `kept` those that can still be read.
        """
        catalogue.definitions.source(source)
        count = _count(request.args.get("count", "100"), MAX_REJECTED)
        found = quarantine.read(redis, source, count, moment(request.args, "since"))
        return reply({"source": source, **asdict(found)})

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

    @app.get("/entities/<entity>/<path:key>")
    def entity(entity: str, key: str) -> Response:
        """The stored features of one entity, with event and ingest time of each source's row; expired ones are null.

        `?detail=true` tells of each value its status (present, missing, expired, failed), age, times and source.
        """
        detail = query_flag(request.args, "detail")
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

    @app.get("/features")
    def features() -> Response:
        """Every declared feature: type, source, version, owner, the models that use it, freshness and null share.

        `newest` is the newest event time of its source's rows, `null_share` the share of these without a value, which
        an aggregate has not. A request-time feature has neither, no entity and no source; it says what it `needs`.
        """
        return reply({"features": features_overview(catalogue.definitions, files.of)})

    @app.post("/features")
    def apply() -> Response:
        """Apply the definitions file: compute its new and changed features for all stored rows, then put it in force.

        202 where there is something to compute, which goes on in the background; `GET /features/backfill` tells how
        far it is. `{"dry_run": true}` only says what would change. `{"fingerprint": "..."}` insists on the file with
        this SHA-256.
        """
        body = json_object()
        fingerprint = body.get("fingerprint")
        if body.get("dry_run"):
            return reply(asdict(catalogue.plan(fingerprint)))
        if catalogue.lacking(fingerprint):
            url = "/features/backfill"
            return reply(asdict(catalogue.begin(fingerprint)) | {"url": url}, 202, {"Location": url})
        return reply(asdict(catalogue.apply(fingerprint)))

    @app.get("/features/backfill")
    def backfill() -> Response:
        """How far the last application of definitions is: state (running, done, failed), rows, and why it failed."""
        return reply(catalogue.progress.read())

    @app.post("/training-frames")
    @streams_body
    def frame() -> Response:
        """A training frame: rows joined with the features that were visible at each row's time.

        A model's, of the labelled rows with start <= event time < end, ordered by event time:
        `{"model": ..., "start": ..., "end": ..., "as_of": "event", "detail": false}`. `{"definitions": "..."}` insists
        on definitions with this SHA-256 being in force; 409 where others are.

        Or that of a spine in the body, as CSV or Parquet by content type, with a time column, join keys and any other
        columns, which are carried through: `?model=NAME` or `?features=user.f1,f2&entities=user`, `&time=COLUMN`
        (default `event_time`), `&as_of=`, `&detail=`.

        `as_of=known` hides what had not been ingested by the row's time; `detail=true` adds a column
        `{feature}.status`: present, missing, expired or failed. Streams Parquet, or an Arrow stream where `Accept` asks
        for `application/vnd.apache.arrow.stream`.
        """
        definitions, kind = catalogue.definitions, request.mimetype
        if kind in READERS:
            with spooled_body() as body:
                found = frame_of_spine(catalogue.storage, definitions, body, kind, request.args)
        else:
            found = frame_of_model(catalogue.storage, definitions, json_object())
        answer_kind = ARROW_STREAM if request.accept_mimetypes.best == ARROW_STREAM else PARQUET
        response = Response(encoded(found, answer_kind), content_type=answer_kind)
        response.call_on_close(found.close)  # also where the client goes away before the first piece
        return response

    add_proof_routes(app, catalogue, files)
    return app


def _entities(catalogue: Catalogue, entity: str, ids: Sequence[str], detail: bool) -> list[dict[str, Any] | None]:
    """What is told of each entity; None for one that is not there."""
    definitions, now = catalogue.definitions, datetime.now(UTC)
    definitions.entity(entity)
    found = online.read(catalogue.redis, definitions, entity, ids, now)
    if not detail:
        return [None if one is None else one.answer() for one in found]
    refs = list(definitions.features_of(entity).values())
    return [None if one is None else {"features": details(one, refs, now)} for one in found]


def _digest(source: Source, body: bytes, kind: str, on_error: str) -> str:
    """What tells a request that comes again from a new one.

    The same rows sent twice to a source without event times are two observations, unless their sender says otherwise.
    """
    if key := request.headers.get("Idempotency-Key"):
        return digest_of(source.name, b"key", key.encode())
    if source.event_time:
        return digest_of(source.name, body, kind.encode(), on_error.encode())
    return secrets.token_hex(16)


def _count(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= limit):
        raise InvalidRequest(f"count={text!r}; expected a whole number from 1 to {limit}")
    return int(text)


def _day(arguments: Mapping[str, str], name: str) -> date | None:
    if (text := arguments.get(name)) is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{name} is {text!r}; expected a day such as 2013-02-01") from None
