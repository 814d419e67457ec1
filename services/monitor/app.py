"""The monitor's HTTP calls."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from flask import Flask, Response, request
from pydantic import Field

from modelmill.http import app as http
from modelmill.http.app import redis_answers, reply
from modelmill.http.bodies import Flag, Number, Query, takes
from modelmill.http.sse import EVENT_STREAM, Listeners
from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from services.monitor import feed, latency, page
from services.monitor.aggregates import Aggregates, Follower
from services.monitor.latency import MonitorCollector
from services.monitor.settings import MonitorSettings


class LatencyQuery(Query):
    """Which latency is asked for."""

    window: str = Field("15m", description="minutes, hours or days such as 15m, 2h or 1d")
    series: Flag = False


class EventsQuery(Query):
    """Which events are asked for."""

    stream: str = Field("models", description=" or ".join(feed.STREAMS))
    count: Annotated[Number, Field(ge=0, le=feed.MAX_EVENTS)] | None = Field(
        None, description=f"a whole number from 0 to {feed.MAX_EVENTS}"
    )


def create_app(settings: MonitorSettings, aggregates: Aggregates, follower: Follower) -> Flask:
    """The routes of the monitor."""
    redis = aggregates.redis
    registry = Registry(redis)
    checks = {"redis": redis_answers(redis), "counting": follower.check}
    app = http.create_app("monitor", settings, checks, [MonitorCollector(aggregates, registry)])
    listeners = Listeners(settings.threads)

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
    @takes(LatencyQuery)
    def show_latency(name: str, query: LatencyQuery) -> Response:
        """A model's latency in the last `?window=15m` (m, h or d): in all and by version, in milliseconds.

        Each has count, rows, errors, throughput (requests a second), mean, p50, p95, p99, min and max; quantiles
        are within `relative_error` of the exact ones. Requests answered with an error count in `errors` alone.
        `?series=true` adds the same figures minute by minute.
        """
        length = latency.parse_window(query.window, aggregates.retention)
        registry.require_model(name)
        return reply(latency.as_json(latency.report(aggregates, name, length), query.window, series=query.series))

    @app.get("/events")
    @takes(EventsQuery)
    def show_events(query: EventsQuery) -> Response:
        """The newest `?count=50` events of `?stream=models` (or features, predictions, alerts), newest first.

        With `Accept: text/event-stream` the answer goes on with each new event as it comes (and begins with the
        newest `count` if that is given, oldest first); `Last-Event-ID` goes on after that event. There are places
        for two fewer listeners than the server has threads.
        """
        stream = feed.stream_named(query.stream)
        if request.accept_mimetypes.best != EVENT_STREAM:
            return reply({"events": feed.recent(redis, stream, 50 if query.count is None else query.count)})
        follow = partial(feed.follow, redis, stream, count=query.count or 0, wait=follower.wait)
        return listeners.answer(follow)

    return app
