"""The monitor's HTTP calls."""

from __future__ import annotations

from threading import BoundedSemaphore

from flask import Flask, Response, request

from modelmill.errors import InvalidRequest, Unavailable
from modelmill.http import app as http
from modelmill.http.app import redis_answers, reply
from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from services.monitor import feed, latency, page
from services.monitor.aggregates import Aggregates, Follower
from services.monitor.latency import MonitorCollector
from services.monitor.settings import MonitorSettings

EVENT_STREAM = "text/event-stream"


def create_app(settings: MonitorSettings, aggregates: Aggregates, follower: Follower) -> Flask:
    """The routes of the monitor."""
    redis = aggregates.redis
    registry = Registry(redis)
    checks = {"redis": redis_answers(redis), "counting": follower.check}
    app = http.create_app("monitor", settings, checks, [MonitorCollector(aggregates, registry)])
    most_followers = max(0, settings.threads - 2)  # two threads remain for everybody else
    places = BoundedSemaphore(most_followers)

    @app.get("/")
    def first_page() -> Response:
        """The first page: models, latency, throughput and recent events, for people."""
        try:
            shown = page.overview(aggregates, registry)
        except AWAY:
            shown = None
        return Response(page.render(shown), 200 if shown else 503, {"Content-Security-Policy": page.POLICY})

    @app.get("/overview")
    def show_overview() -> Response:
        """What the first page shows, as JSON: every model with 15 minutes of latency, and recent events."""
        return reply(page.as_json(page.overview(aggregates, registry)))

    @app.get("/models/<name>/latency")
    def show_latency(name: str) -> Response:
        """A model's latency in the last `?window=15m` (m, h or d): in all and by version, in milliseconds.

        Each has count, rows, errors, throughput (requests a second), mean, p50, p95, p99, min and max; quantiles
        are within `relative_error` of the exact ones. Requests answered with an error count in `errors` alone.
        `?series=true` adds the same figures minute by minute.
        """
        window = request.args.get("window", "15m")
        length = latency.parse_window(window, aggregates.retention)
        series = _flag("series")
        registry.require_model(name)
        return reply(latency.as_json(latency.report(aggregates, name, length), window, series=series))

    @app.get("/events")
    def show_events() -> Response:
        """The newest `?count=50` events of `?stream=models` (or features, predictions, alerts), newest first.

        With `Accept: text/event-stream` the answer goes on with each new event as it comes (and begins with the
        newest `count` if that is given, oldest first); `Last-Event-ID` goes on after that event. There are places
        for two fewer followers than the server has threads.
        """
        stream = feed.stream_named(request.args.get("stream", "models"))
        if request.accept_mimetypes.best != EVENT_STREAM:
            return reply({"events": feed.recent(redis, stream, _count(50))})
        if not places.acquire(blocking=False):
            raise Unavailable(f"all {most_followers} places for followers are taken; raise MODELMILL_THREADS")
        try:
            position = request.headers.get("Last-Event-ID")
            lines = feed.follow(redis, stream, position, _count(0), wait=follower.wait)
        except BaseException:
            places.release()
            raise
        response = Response(lines, content_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})
        response.call_on_close(places.release)
        return response

    return app


def _count(default: int) -> int:
    text = request.args.get("count", str(default))
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else -1
    if not 0 <= count <= feed.MOST_EVENTS:
        raise InvalidRequest(f"count={text!r}; expected a whole number from 0 to {feed.MOST_EVENTS}", count=text)
    return count


def _flag(name: str) -> bool:
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name}={text!r}; expected true or false")
    return text == "true"
