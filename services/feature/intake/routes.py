"""The HTTP calls that take rows in and tell which were refused."""

from __future__ import annotations

import secrets
from dataclasses import asdict

from flask import Flask, Response, request
from prometheus_client import Counter

from modelmill.declare.declarations import Source
from modelmill.errors import InvalidRequest, InvalidRows
from modelmill.http.web import reply
from services.feature.arguments import moment
from services.feature.definitions.catalogue import Catalogue
from services.feature.intake import quarantine
from services.feature.intake.decode import decode
from services.feature.intake.ingest import ingest
from services.feature.intake.journal import digest_of

ROWS = Counter("modelmill_rows_total", "Rows of ingest requests by what became of them", ["source", "outcome"])
FAILED = Counter("modelmill_failed_features_total", "Values that a feature function failed to compute", ["feature"])
MAX_REQUEST_ID = 128
"""Characters of a client's request id that are kept."""
MAX_REJECTED = 1000
"""Rejected rows of one answer."""


def add_intake_routes(app: Flask, catalogue: Catalogue) -> None:
    """Add them to the feature service."""

    @app.post("/sources/<source>/rows")
    def add_rows(source: str) -> Response:
        """Ingest rows: CSV, JSON, NDJSON or Parquet, by content type.

        All rows or none, unless `?on_error=skip` asks to keep the good ones; the others go to the quarantine, with
        the `X-Request-ID` if there is one. The answer counts accepted and rejected rows, those that came late (a newer
        row of their entity is online) and those of a request that was done before, lists the first reasons, and counts
        failed feature functions.

        A request with the same `Idempotency-Key`, or, for a source with event times, the same content, is done once:
        within an hour it gets the same answer, with its rows counted as `duplicate`; those that were forgotten since
        are taken again. 422 where a request with that key had another body, content type or `on_error`.
        """
        on_error = request.args.get("on_error", "fail")
        if on_error not in ("fail", "skip"):
            raise InvalidRequest(f"on_error={on_error!r}; expected fail or skip")
        catalogue.definitions.source(source)
        body, kind = request.get_data(cache=False), request.content_type or "none"
        raw = decode(body, kind)
        digest, content = _digests(catalogue.definitions.source(source), body, kind, on_error)
        try:
            request_id = request.headers.get("X-Request-ID", "")[:MAX_REQUEST_ID]
            skip_bad = on_error == "skip"
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
    def rejected(source: str) -> Response:
        """The quarantine: rows that `?on_error=skip` left out, the newest first, each with its reason.

        `?count=100` rows at most, `?since=2013-02-01T00:00:00Z` only those kept from then on. `rejected` counts those
        that there were ever, `kept` those that can still be read.
        """
        catalogue.definitions.source(source)
        count = _count(request.args.get("count", "100"), MAX_REJECTED)
        found = quarantine.read(catalogue.redis, source, count, moment(request.args, "since"))
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


def _count(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= limit):
        raise InvalidRequest(f"count={text!r}; expected a whole number from 1 to {limit}")
    return int(text)
