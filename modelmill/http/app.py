"""What all services' Flask apps share: errors as problem documents, health, metrics, answers, serving."""

from __future__ import annotations

import atexit
import gc
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import orjson
from flask import Flask, Response, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.registry import Collector
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import RequestEntityTooLarge as BodyTooLarge

from modelmill.errors import ModelmillError, TooLarge, Unavailable, UnsupportedEncoding, sentence
from modelmill.http.bodies import PIECE, bound_bodies
from modelmill.http.openapi import add_routes
from modelmill.settings import Settings
from modelmill.state.connections import AWAY, Redis

log = logging.getLogger(__name__)

REQUESTS = Counter("modelmill_http_requests_total", "HTTP requests answered", ["service", "route", "method", "status"])
SECONDS = Histogram(
    "modelmill_http_request_seconds",
    "Time to answer an HTTP request, in seconds",
    ["service", "route"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

BACKPRESSURE = 1024
"""Requests that one worker process takes on at once; more wait in the socket's queue."""
DRAIN_SECONDS = 5
"""How long a stopping worker process may finish its requests; a follower of an event stream never would."""

Check = Callable[[], str | None]
"""Returns when something is ready, with what is wrong with a part of it; raises `ModelmillError` when it is not."""


def create_app(
    service: str, settings: Settings, checks: Mapping[str, Check], collectors: Iterable[Collector] = ()
) -> Flask:
    """A Flask app with `/livez`, `/readyz`, `/metrics`, `/openapi.json`, `/docs` and the shared error handling.

    `checks` are what `/readyz` asks, by name; it answers 503 naming each that is not ready. `collectors` are
    asked at each scrape, for what lies in Redis and is therefore no worker process's own.
    """
    shared = CollectorRegistry()
    for collector in collectors:
        shared.register(collector)
    app = Flask(f"services.{service}")
    # A redirect to a tidier path would name something else: `//lead` is another key than `lead`.
    app.url_map.merge_slashes = False
    _measure(app, service)
    bound_bodies(app, settings.max_body_bytes)
    _handle_errors(app, settings)

    @app.get("/livez")
    def livez() -> Response:
        """The process is up and answers."""
        return reply({"status": "up", "service": service})

    @app.get("/readyz")
    def readyz() -> Response:
        """The service can do its work: 200, or 503 naming what is missing; `degraded` is what holds nothing else up."""
        problems, degraded = {}, {}
        for name, check in checks.items():
            try:
                if said := check():
                    degraded[name] = said
            except ModelmillError as error:
                problems[name] = error.detail
            except AWAY as error:
                problems[name] = f"Redis did not answer: {error}"
        status = "not ready" if problems else "ready"
        answer = {"status": status, "service": service, "problems": problems, "degraded": degraded}
        return reply(answer, 503 if problems else 200)

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus metrics of all worker processes of this service."""
        return Response(generate_latest(_registry()) + generate_latest(shared), content_type=CONTENT_TYPE_LATEST)

    add_routes(app, service)
    if multiprocessing.parent_process() is not None:
        # In a worker: Granian's threads may outlive the interpreter, and one that wakes then aborts the process.
        atexit.register(os._exit, 0)
        gc.freeze()  # a full collection of all that stays would stop requests for 40 ms
    return app


def redis_answers(redis: Redis) -> Check:
    """A readiness check that Redis answers."""

    def check() -> None:
        redis.ping()

    return check


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, headers, content_type="application/json")


def status_of(error: Exception) -> int:
    """The HTTP status that `error` is answered with when a view raises it."""
    if isinstance(error, ModelmillError):
        return int(error.status)
    if isinstance(error, AWAY):
        return int(Unavailable.status)
    return (isinstance(error, HTTPException) and error.code) or 500


def whole(pieces: Iterable[bytes], content_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is made piece by piece and sent once all of it is there, never in memory as a whole.

    A failure while it is made is an error like any other. Were the pieces sent as they come, the server would end the
    body in good order after the last one that there was, and half an answer would look whole. For what fails later the
    length is told: then an answer that lacks some of it is broken off.
    """
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the answer
    try:
        for piece in pieces:
            file.write(piece)
        length = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise

    def content() -> Iterator[bytes]:
        with file:
            yield from iter(lambda: file.read(PIECE), b"")

    response = Response(content(), headers=headers, content_type=content_type)
    response.content_length = length
    response.call_on_close(file.close)
    return response


def serve(target: str, settings: Settings, port: int) -> None:
    """Serve the Flask app that the function `target` (`package.module:function`) builds, until SIGTERM.

    Granian starts `settings.workers` processes, each of which calls the function; a worker that dies is started again.
    """
    from granian.constants import Interfaces
    from granian.server import Server

    # A forked worker would keep this process's prometheus_client, which was imported without the folder.
    multiprocessing.set_start_method("spawn", force=True)
    with tempfile.TemporaryDirectory(prefix="modelmill-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        Server(
            target,
            factory=True,
            address=settings.host,
            port=settings.port or port,
            interface=Interfaces.WSGI,
            workers=settings.workers,
            blocking_threads=settings.threads,
            backpressure=BACKPRESSURE,
            respawn_failed_workers=True,
            workers_kill_timeout=DRAIN_SECONDS,
            websockets=False,
            log_access=False,
        ).serve()


def _measure(app: Flask, service: str) -> None:
    seconds: dict[str, Any] = {}
    requests: dict[tuple[str, str, int], Any] = {}

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def measure(response: Response) -> Response:
        # A client may send any path and method: only ours become labels, whose number is bounded.
        rule, method = (request.url_rule.rule, request.method) if request.url_rule else ("unknown", "unknown")
        label = (rule, method, response.status_code)
        counter = requests.get(label)
        if counter is None:
            counter = requests[label] = REQUESTS.labels(service, *label)
        counter.inc()
        histogram = seconds.get(rule)
        if histogram is None:
            histogram = seconds[rule] = SECONDS.labels(service, rule)
        histogram.observe(time.perf_counter() - g.started)
        return response


def _handle_errors(app: Flask, settings: Settings) -> None:
    def problem(error: ModelmillError) -> Response:
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        if isinstance(error, UnsupportedEncoding):
            headers["Accept-Encoding"] = error.TAKEN
        answer = reply(error.problem(), int(error.status), headers)
        answer.content_type = "application/problem+json"
        return answer

    @app.errorhandler(ModelmillError)
    def modelmill_error(error: ModelmillError) -> Response:
        return problem(error)

    @app.errorhandler(BodyTooLarge)
    def too_large(_: BodyTooLarge) -> Response:
        limit = settings.max_body_bytes
        return problem(TooLarge("body in bytes", request.content_length, limit, "MODELMILL_MAX_BODY_BYTES"))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        code = error.code or 500
        title = error.name
        detail = error.description or title
        if request.routing_exception is error:
            detail = f"there is no call {request.method} {request.path[:200]} here; GET /docs shows those there are"
        body = {"type": "about:blank", "title": title, "status": code, "detail": detail}
        answer = reply(body, code, {name: text for name, text in error.get_headers() if name != "Content-Type"})
        answer.content_type = "application/problem+json"
        return answer

    for kind in AWAY:

        @app.errorhandler(kind)
        def redis_away(error: Exception) -> Response:
            return problem(Unavailable(f"Redis did not answer: {error}"))

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        log.exception("%s %s failed", request.method, request.path)
        return problem(ModelmillError(f"unexpected {sentence(error)}; the service's log has more"))


def _registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
    return REGISTRY
