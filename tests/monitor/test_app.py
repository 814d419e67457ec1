"""The monitor's HTTP calls, as a client meets them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from threading import Event as Flag

import pytest
from flask.testing import FlaskClient

from modelmill.local import free_port
from modelmill.state import bus
from modelmill.state.connections import Redis, connect
from modelmill.state.events import RunStarted
from services.monitor import page
from services.monitor.aggregates import STREAM, Aggregates, Follower
from services.monitor.app import create_app
from services.monitor.settings import MonitorSettings
from tests.eventually import eventually
from tests.monitor.events import aggregates_of, failed, served, train

SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def client(fake_redis: Redis) -> Iterator[FlaskClient]:
    """A client of the monitor over `fake_redis`, whose model `m` has one version."""
    train(fake_redis, "m")
    stop = Flag()
    follower = Follower(aggregates_of(fake_redis), stop, wait=0.01)
    follower.thread.start()
    with create_app(MonitorSettings(threads=3), follower.aggregates, follower).test_client() as client:
        yield client
    stop.set()
    follower.thread.join(timeout=5)


@pytest.fixture
def cut_off() -> FlaskClient:
    """A client of a monitor whose Redis is away."""
    redis = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2)
    aggregates = Aggregates(redis, timedelta(hours=48))
    return create_app(MonitorSettings(), aggregates, Follower(aggregates, Flag(), wait=0.1)).test_client()


def until_counted(redis: Redis) -> None:
    """Wait for the follower that `client` started."""
    eventually(lambda: aggregates_of(redis).lag().entries == 0, within=5, saying="all events are counted")


def test_latency_is_given_in_all_and_by_version(client: FlaskClient, fake_redis: Redis) -> None:
    for event in (served(1.0, rows=2), served(3.0, version=2), failed(version=2)):
        bus.append(fake_redis, event)
    until_counted(fake_redis)
    answer = client.get("/models/m/latency?window=2m").json
    assert answer is not None
    assert answer["overall"] == {
        "count": 2,
        "rows": 3,
        "errors": 1,
        "throughput": 3 / 150,
        "mean": 2.0,
        "p50": 1.0,
        "p95": pytest.approx(3.0, rel=0.01),
        "p99": pytest.approx(3.0, rel=0.01),
        "min": 1.0,
        "max": 3.0,
    }
    assert [(v["version"], v["count"], v["errors"]) for v in answer["versions"]] == [(2, 1, 1), (1, 1, 0)]
    del answer["overall"], answer["versions"]
    assert answer == {
        "model": "m",
        "window": "2m",
        "start": "2026-11-23T23:45:00.000000Z",
        "end": "2026-11-23T23:47:30.000000Z",
        "unit": "ms",
        "relative_error": 0.01,
    }


def test_a_series_has_a_point_a_minute(client: FlaskClient, fake_redis: Redis) -> None:
    bus.append(fake_redis, served(ago=60))
    until_counted(fake_redis)
    series = client.get("/models/m/latency?window=1m&series=true").json["series"]
    assert [(point["minute"], point["count"]) for point in series] == [
        ("2026-11-23T23:46Z", 1),
        ("2026-11-23T23:47Z", 0),
    ]


def test_a_model_without_predictions_has_no_latency(client: FlaskClient) -> None:
    answer = client.get("/models/m/latency").json
    assert (answer["overall"]["count"], answer["overall"]["p99"], answer["versions"]) == (0, None, [])


def test_an_unknown_model_is_not_found(client: FlaskClient, fake_redis: Redis) -> None:
    train(fake_redis, "user_target")
    answer = client.get("/models/usr_target/latency")
    assert answer.status_code == 404
    assert "did you mean 'user_target'" in answer.json["detail"]


@pytest.mark.parametrize(
    "path, named",
    [
        ("/models/m/latency?window=soon", "window='soon'"),
        ("/models/m/latency?window=7d", "at most 48h"),
        ("/models/m/latency?series=yes", "series='yes'"),
        ("/events?count=many", "count='many'"),
        ("/events?count=1001", "from 0 to 1000"),
        ("/events?count=-1", "count='-1'"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client: FlaskClient, path: str, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert named in answer.json["detail"]


def test_an_unknown_stream_is_not_found(client: FlaskClient) -> None:
    assert client.get("/events?stream=modles").status_code == 404


def test_events_are_the_newest_first(client: FlaskClient) -> None:
    events = client.get("/events?count=2").json["events"]
    assert [event["type"] for event in events] == ["model.promoted", "model.trained"]


def test_no_events_may_be_asked_for(client: FlaskClient) -> None:
    assert client.get("/events?count=0").json == {"events": []}


def test_events_can_be_followed(client: FlaskClient, fake_redis: Redis) -> None:
    with client.get("/events", headers=SSE) as answer:
        assert answer.mimetype == "text/event-stream"
        messages = answer.iter_encoded()
        next(messages)
        bus.append(fake_redis, RunStarted(model="m", run="new", trigger="manual"))
        assert b"event: run.started" in next(messages)


def test_there_are_places_for_two_followers_fewer_than_threads(client: FlaskClient) -> None:
    with client.get("/events", headers=SSE):
        refused = client.get("/events", headers=SSE)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    with client.get("/events", headers=SSE) as answer:
        assert answer.status_code == 200, "the place of the first is free again"


def test_a_refused_follower_takes_no_place(client: FlaskClient) -> None:
    for _ in range(3):
        assert client.get("/events", headers=SSE | {"Last-Event-ID": "newest"}).status_code == 422
    with client.get("/events", headers=SSE) as answer:
        assert answer.status_code == 200


def test_the_overview_tells_of_every_model(client: FlaskClient, fake_redis: Redis) -> None:
    bus.append(fake_redis, served(2.0))
    until_counted(fake_redis)
    answer = client.get("/overview").json
    (model,) = answer["models"]
    assert (model["name"], model["champion"], model["aliases"]) == ("m", 1, {})
    assert (model["latest_run"]["status"], model["latest_run"]["metrics"]) == ("succeeded", {"accuracy": 0.9})
    assert (model["latency"]["p95"], model["throughput"], len(model["series"])) == (2.0, 1 / 90, 16)
    assert answer["counting"] == {"lag_seconds": 0.0, "lag_entries": 0, "outcomes": {"counted": 1}}
    assert [event["type"] for event in answer["events"]] == ["model.promoted", "model.trained", "run.started"]


def test_the_overview_of_an_empty_system_is_empty(fake_redis: Redis) -> None:
    aggregates = aggregates_of(fake_redis)
    app = create_app(MonitorSettings(), aggregates, Follower(aggregates, Flag(), wait=0.1))
    answer = app.test_client().get("/overview").json
    assert (answer["models"], answer["events"]) == ([], [])


def test_the_page_shows_model_version_and_latency(client: FlaskClient, fake_redis: Redis) -> None:
    bus.append(fake_redis, served(2.5))
    until_counted(fake_redis)
    text = client.get("/").text
    assert "<h2>m</h2>" in text
    assert "champion v1" in text
    assert "<dt>p95</dt><dd>2.50" in text


def test_the_page_escapes_what_came_from_outside(client: FlaskClient, fake_redis: Redis) -> None:
    train(fake_redis, "<script>alert(1)</script>")
    text = client.get("/").text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" not in text


def test_the_page_tells_of_events_that_are_not_counted(client: FlaskClient, fake_redis: Redis) -> None:
    bus.append(fake_redis, served(float("nan")))
    until_counted(fake_redis)
    assert "1 rejected" in client.get("/").text


def test_the_page_may_load_nothing_but_its_own_files(client: FlaskClient) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Security-Policy"] == page.POLICY
    assert "default-src 'none'" in page.POLICY
    for file in ("page.css", "page.js", "icon.svg"):
        assert f"/static/{file}" in answer.text
        with client.get(f"/static/{file}") as found:
            assert found.status_code == 200


def test_the_page_says_when_redis_is_away(cut_off: FlaskClient) -> None:
    answer = cut_off.get("/")
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.text


@pytest.mark.parametrize("path", ["/overview", "/models/m/latency", "/events", "/readyz"])
def test_a_call_is_unavailable_while_redis_is_away(cut_off: FlaskClient, path: str) -> None:
    assert cut_off.get(path).status_code == 503


def test_metrics_are_served_while_redis_is_away(cut_off: FlaskClient) -> None:
    answer = cut_off.get("/metrics")
    assert answer.status_code == 200
    assert "modelmill_monitor" not in answer.text


def test_metrics_tell_what_became_of_the_events(client: FlaskClient, fake_redis: Redis) -> None:
    for event in (served(2.0), served(float("nan"))):
        bus.append(fake_redis, event)
    until_counted(fake_redis)
    lines = client.get("/metrics").text.splitlines()
    assert 'modelmill_monitor_events_total{outcome="counted"} 1.0' in lines
    assert 'modelmill_monitor_events_total{outcome="rejected"} 1.0' in lines
    assert 'modelmill_monitor_events_total{outcome="lost"} 0.0' in lines
    assert 'modelmill_prediction_latency_seconds{model="m",quantile="0.95"} 0.002' in lines
    assert "modelmill_monitor_lag_seconds 0.0" in lines


def test_the_monitor_is_ready_when_it_counts(client: FlaskClient) -> None:
    assert client.get("/readyz").status_code == 200


def test_the_monitor_is_not_ready_when_nothing_counts(fake_redis: Redis) -> None:
    aggregates = aggregates_of(fake_redis)
    app = create_app(MonitorSettings(), aggregates, Follower(aggregates, Flag(), wait=0.1))
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, list(answer.json["problems"])) == (503, ["counting"])


def test_the_page_says_how_far_behind_it_is(fake_redis: Redis) -> None:
    aggregates = aggregates_of(fake_redis)
    fake_redis.xadd(STREAM, served().to_fields(), id="1-0")  # type: ignore[arg-type]
    app = create_app(MonitorSettings(), aggregates, Follower(aggregates, Flag(), wait=0.1))
    assert "s behind" in app.test_client().get("/").text
