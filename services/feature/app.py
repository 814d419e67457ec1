"""The feature service's HTTP calls."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from flask import Flask, Response, request
from prometheus_client import Counter

from modelmill.column_statistics import ColumnStatistics
from modelmill.errors import InvalidRequest, InvalidRows, MissingEntity, TooLarge, UnknownName
from modelmill.settings import Settings
from modelmill.sketch import RELATIVE_ERROR
from modelmill.web import create_app, json_object, redis_answers, reply
from services.feature import online, quarantine
from services.feature.catalogue import Catalogue
from services.feature.decode import decode
from services.feature.frames import training_frame
from services.feature.ingest import ingest
from services.feature.overview import features_overview
from services.feature.statistics_files import StatisticsFiles

ROWS = Counter("modelmill_rows_total", "Rows of ingest requests by what became of them", ["source", "outcome"])
FAILED = Counter("modelmill_failed_features_total", "Values that a feature function failed to compute", ["feature"])
MAX_LOOKUP = 1000
"""Entities of one lookup."""
MAX_REQUEST_ID = 128
"""Characters of a client's request id that are kept."""
MAX_REJECTED = 1000
"""Rejected rows of one answer."""
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"


def feature_app(catalogue: Catalogue, settings: Settings, statistics_files: StatisticsFiles | None = None) -> Flask:
    """The routes of the feature service."""
    redis = catalogue.redis
    files = statistics_files or StatisticsFiles(catalogue.storage)
    app = create_app("feature", settings, {"redis": redis_answers(redis)})

    @app.post("/sources/<source>/rows")
    def add_rows(source: str) -> Response:
        """Ingest rows: CSV, JSON, NDJSON or Parquet, by content type.

        All rows or none, unless `?on_error=skip` asks to keep the good ones; the others go to the quarantine, with
        the `X-Request-ID` if there is one. The answer counts accepted and rejected rows, lists the first reasons, and
        counts failed feature functions.
        """
        on_error = request.args.get("on_error", "fail")
        if on_error not in ("fail", "skip"):
            raise InvalidRequest(f"on_error={on_error!r}; expected fail or skip")
        catalogue.definitions.source(source)
        raw = decode(request.get_data(cache=False), request.content_type or "none")
        try:
            request_id = request.headers.get("X-Request-ID", "")[:MAX_REQUEST_ID]
            done = ingest(catalogue, source, raw, skip_bad=on_error == "skip", request_id=request_id)
        except InvalidRows as error:
            ROWS.labels(source, "rejected").inc(error.fields["rejected"])
            raise
        ROWS.labels(source, "accepted").inc(done.accepted)
        ROWS.labels(source, "rejected").inc(done.rejected)
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
        found = quarantine.read(redis, source, count, _time(request.args, "since"))
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
        declared = definitions.columns(of)
        start, end = _day(request.args, "start"), _day(request.args, "end")
        column = request.args.get("column")
        found = files.of(of).between(start, end, column)
        if column is not None and not found:
            if column not in declared:
                raise UnknownName("column", column, declared)
            found = {column: {}}
        columns = {
            name: {
                "merged": ColumnStatistics.merged([*days.values()]).answer(detail=True) if days else None,
                "days": {day.isoformat(): one.answer(detail=False) for day, one in days.items()},
            }
            for name, days in found.items()
        }
        return reply({"source": source, "relative_error": RELATIVE_ERROR, "columns": columns})

    @app.get("/entities/<entity>/<path:key>")
    def entity(entity: str, key: str) -> Response:
        """The stored features of one entity, with the event time of each source."""
        definitions = catalogue.definitions
        definitions.entity(entity)
        found = online.read(redis, definitions, entity, [key])[0]
        if found is None:
            raise MissingEntity(entity, key)
        return reply({"entity": entity, "key": key, **asdict(found)})

    @app.post("/entities/<entity>/lookup")
    def lookup(entity: str) -> Response:
        """The stored features of several entities: `{"keys": [...]}`; null for one that is not there."""
        definitions = catalogue.definitions
        definitions.entity(entity)
        ids = json_object().get("keys")
        if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
            raise InvalidRequest(f"keys is {ids!r}; expected a list of texts")
        if len(ids) > MAX_LOOKUP:
            raise TooLarge("keys", len(ids), MAX_LOOKUP)
        found = online.read(redis, definitions, entity, ids)
        return reply({"entities": {key: asdict(e) if e else None for key, e in zip(ids, found, strict=True)}})

    @app.get("/features")
    def features() -> Response:
        """Every declared feature: type, source, version, owner, the models that use it, freshness and null share.

        `newest` is the newest event time of its source's rows, `null_share` the share of these without a value.
        """
        return reply({"features": features_overview(catalogue.definitions, files.of)})

    @app.post("/features")
    def apply() -> Response:
        """Apply the definitions file: register what it declares and backfill new and changed features.

        `{"dry_run": true}` only says what would change. `{"fingerprint": "..."}` insists on the file with this SHA-256.
        """
        body = json_object()
        fingerprint = body.get("fingerprint")
        if body.get("dry_run"):
            return reply(asdict(catalogue.plan(fingerprint)))
        return reply(asdict(catalogue.apply(fingerprint)))

    @app.post("/training-frames")
    def frame() -> Response:
        """A model's point-in-time-correct training frame: `{"model": ..., "start": ..., "end": ...}`.

        Streams Parquet, or an Arrow stream where `Accept` asks for `application/vnd.apache.arrow.stream`. Rows are
        those of the label's source with start <= event time < end, ordered by event time.
        """
        body = json_object()
        definitions = catalogue.definitions
        model = definitions.model(_text(body, "model"))
        start, end = _time(body, "start"), _time(body, "end")
        table = training_frame(catalogue.storage, definitions, model, start=start, end=end)
        kind = ARROW if request.accept_mimetypes.best == ARROW else PARQUET
        return Response(_stream(table, kind), content_type=kind)

    return app


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {value!r}; expected a text")
    return value


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


def _time(body: Mapping[str, Any], name: str) -> datetime | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{name} is {value!r}; expected a time such as 2013-02-01T00:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stream(table: pa.Table, kind: str) -> Iterator[bytes]:
    """The table in pieces of a megabyte, by way of a file, so that it is in memory once."""
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  the generator below closes it
    if kind == ARROW:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, file)
    file.seek(0)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(1 << 20):
                yield piece

    return pieces()
