"""What all services' Flask apps share: errors as problem documents, health, metrics, OpenAPI, strict JSON, serving."""

from __future__ import annotations

import atexit
import gc
import gzip
import inspect
import io
import json
import logging
import multiprocessing
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, TypeVar

import orjson
from flask import Flask, Response, g, render_template_string, request
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
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import RequestEntityTooLarge as BodyTooLarge
from werkzeug.wsgi import get_input_stream

from modelmill.errors import MalformedBody, ModelmillError, TooLarge, Unavailable, UnsupportedEncoding
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

PIECE = 1024 * 1024
"""Bytes of a large body that are in memory at a time."""

View = TypeVar("View", bound=Callable[[], Response])
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
    _bound_bodies(app, settings.max_body_bytes)
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


def json_body() -> Any:
    """The request's body as strict JSON (no NaN, no Infinity, no name twice in an object), whatever type it claims.

    Raises:
        MalformedBody: saying where the text stops being JSON, or which name is repeated.
    """
    return json_of(request.get_data(), "the body")


def json_of(text: bytes, what: str) -> Any:
    """A text that came with a request, as strict JSON.

    Raises:
        MalformedBody: as `json_body`, of `what`.
    """
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"{what} is not JSON: {error}") from None

    def check(names: list[str]) -> None:
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            times = names.count(twice)
            raise MalformedBody(f"{what} has {twice[:80]!r} {times} times in one object; expected it once")

    if may_repeat_names(text, content):
        names_of_objects([text], check)
    return content


def may_repeat_names(text: bytes, content: Any) -> bool:
    """Whether an object in a JSON text may name something twice, of which `content`, read from it, has the last only.

    It does where the text has more colons than its content: each name has one, and others are in texts that both have.

    Raises:
        MalformedBody: where it is nested so deeply that it could not be written again.
    """
    try:
        colons = orjson.dumps(content).count(b":")
    except orjson.JSONEncodeError:
        raise MalformedBody("the body is not JSON that can be taken: it is nested too deeply") from None
    # An escaped colon is one in the content alone.
    return text.count(b":") != colons or b"\\u003a" in text or b"\\u003A" in text


def names_of_objects(documents: Iterable[bytes], check: Callable[[list[str]], None]) -> None:
    """Call `check` with the names in each object of JSON texts, repeated ones as often as they are there."""

    def each(pairs: list[tuple[str, Any]]) -> None:
        check([name for name, _ in pairs])

    for document in documents:
        json.loads(document, object_pairs_hook=each, parse_int=str)  # str: whatever their length


def json_object() -> dict[str, Any]:
    """The request's body as a JSON object; an empty body counts as an empty object."""
    if not request.get_data():
        return {}
    body = json_body()
    if not isinstance(body, dict):
        raise MalformedBody(f"the body is a JSON {type(body).__name__}; expected an object")
    return body


def streams_body(view: View) -> View:
    """Mark a view that may read a large body with `spooled_body`: nothing is read before it."""
    view.streams_body = True  # type: ignore[attr-defined]
    return view


def spooled_body() -> IO[bytes]:
    """The request's body as an open file without a name, at its beginning; never in memory as a whole.

    Raises:
        werkzeug.exceptions.RequestEntityTooLarge: where it is longer than the service takes.
    """
    limit = (request.max_content_length or 0) - 1
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  whoever reads it closes it
    try:
        while piece := request.stream.read(PIECE):
            file.write(piece)
            if file.tell() > limit:
                raise BodyTooLarge
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


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


def _bound_bodies(app: Flask, limit: int) -> None:
    """Refuse bodies over `limit` bytes, also those that come in chunks, which Werkzeug would cut off without a word.

    What is packed is unpacked while it is read, and bounded by the same limit, packed and unpacked.
    """
    app.config["MAX_CONTENT_LENGTH"] = limit + 1

    @app.before_request
    def bound() -> None:
        encoding = request.environ.pop("HTTP_CONTENT_ENCODING", "")
        if encoding.strip().lower() not in ("", "identity"):
            _unpack_body(request.environ, encoding, limit)
        length = request.content_length
        streams = hasattr(app.view_functions.get(request.endpoint or ""), "streams_body")
        if length is None and request.method not in ("GET", "HEAD") and not streams:
            length = len(request.get_data())
        if length is not None and length > limit:
            raise BodyTooLarge


def _unpack_body(environ: dict[str, Any], encoding: str, limit: int) -> None:
    """Make the request's body one of unknown length that is not packed."""
    if encoding.strip().lower() not in (UnsupportedEncoding.TAKEN, "x-gzip"):
        raise UnsupportedEncoding(encoding)
    environ["wsgi.input"] = _Unpacked(get_input_stream(environ, max_content_length=limit + 1))
    environ["wsgi.input_terminated"] = True
    environ.pop("CONTENT_LENGTH", None)


class _Unpacked(io.RawIOBase):
    """What is packed in a stream; never more of it in memory than is read at a time."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._content = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._content.readinto(buffer)
        except (EOFError, OSError, zlib.error) as error:  # cut off, not gzip at all, damaged
            raise MalformedBody(f"the body is not complete gzip: {error}") from None


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
        return problem(ModelmillError(f"unexpected {type(error).__name__}: {error}; the service's log has more"))


def _registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
    return REGISTRY


# --- the OpenAPI 3.1 description of a service, made from its routes and their docstrings, and a page that shows it

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{ spec.info.title }}</title><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2833}
h2{margin:2rem 0 .2rem;font:600 1rem ui-monospace,monospace}b{color:#0b6e4f}p{margin:.2rem 0;white-space:pre-line}
a{color:#0b6e4f}</style></head><body><h1>{{ spec.info.title }}</h1>
<p>{{ spec.info.description }} As <a href="/openapi.json">OpenAPI 3.1</a>.</p>
{% for path, methods in spec.paths.items() %}{% for method, call in methods.items() %}
<h2><b>{{ method | upper }}</b> {{ path }}</h2><p>{{ call.summary }}</p><p>{{ call.description }}</p>
{% endfor %}{% endfor %}</body></html>"""


def add_routes(app: Flask, service: str) -> None:
    """Add `/openapi.json` and `/docs` to `app`."""

    @app.get("/openapi.json")
    def openapi() -> Response:
        """This service's calls as OpenAPI 3.1."""
        return Response(orjson.dumps(describe(app, service)), content_type="application/json")

    @app.get("/docs")
    def docs() -> str:
        """This service's calls as a page."""
        return render_template_string(PAGE, spec=describe(app, service))


def _request_body(form: type[BaseModel]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": form.model_json_schema()}}}


def describe(app: Flask, service: str) -> dict[str, Any]:
    """The OpenAPI document of all routes of `app`; a view's docstring is its summary and description."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.endpoint == "static":
            continue
        summary, _, description = inspect.cleandoc(app.view_functions[rule.endpoint].__doc__ or "").partition("\n")
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        body = getattr(app.view_functions[rule.endpoint], "body", None)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(path, {})[method.lower()] = {
                "operationId": f"{rule.endpoint}_{method.lower()}",
                "summary": summary,
                "description": description.strip(),
                "parameters": [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in re.findall(r"{(\w+)}", path)
                ],
                **({"requestBody": _request_body(body)} if body else {}),
                "responses": {
                    "2XX": {"description": "Done."},
                    "default": {
                        "description": "What was wrong, as RFC 9457 problem details.",
                        "content": {"application/problem+json": {"schema": {"type": "object"}}},
                    },
                },
            }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Modelmill {service}",
            "version": "1",
            "description": f"The HTTP calls of the {service} service.",
        },
        "paths": paths,
    }
