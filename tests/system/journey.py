"""What a user sees of a whole running system; the same for processes on this machine and for containers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from examples.users.data import EXAMPLE_USER
from modelmill.client import Client
from modelmill.errors import RequestFailed
from tests.eventually import eventually
from tests.system.load import constant_load

MODEL = "user_target"


def everything_is_ready(client: Client) -> None:
    eventually(
        lambda: all(answer["status"] == "ready" for answer in client.ready().values()),
        within=30,
        saying="all services are ready",
    )


def a_prediction_by_key_and_one_by_value_agree(client: Client) -> None:
    features = client.entity("user", EXAMPLE_USER)["features"]
    names = ("feature_1", "feature_2", "feature_3")
    by_key = client.predict(MODEL, user_id=EXAMPLE_USER)
    by_value = client.predict(MODEL, **{name: features[name] for name in names})
    assert by_key["version"] == by_value["version"]
    assert by_key["probabilities"] == by_value["probabilities"]


def the_monitor_counts_every_prediction(client: Client) -> None:
    before = client.latency(MODEL)["overall"]["count"]
    for _ in range(20):
        client.predict(MODEL, user_id=EXAMPLE_USER)
    eventually(
        lambda: client.latency(MODEL)["overall"]["count"] >= before + 20,
        within=10,
        saying="20 more predictions are counted",
    )
    assert 0 < client.latency(MODEL)["overall"]["p50"] < 1000


def a_new_version_goes_live_without_a_failed_request(client: Client) -> None:
    with constant_load(client.settings, MODEL, {"user_id": EXAMPLE_USER}) as load:
        job = client.train(MODEL, by="test", wait=True)
        assert job["status"] == "finished", job
        version = client.get_run(job["run"])["version"]
        eventually(lambda: version in load.served, within=10, saying=f"version {version} answers")
    assert load.failures == []
    assert load.swaps() >= 1


def a_rollback_is_served(client: Client) -> None:
    promoted = client.model(MODEL)["aliases"]["champion"]
    back = client.rollback(MODEL, by="test", reason="journey")["version"]
    assert back < promoted
    eventually(
        lambda: client.predict(MODEL, user_id=EXAMPLE_USER)["version"] != promoted,
        within=10,
        saying=f"the predictor left version {promoted}",
    )


def a_run_is_repeated_and_an_answer_is_traced(client: Client) -> None:
    answer = client.predict(MODEL, user_id=EXAMPLE_USER)
    version = f"{MODEL}@{answer['version']}"
    run = client.lineage(version)["run"]["id"]
    assert client.reproduce(run, by="test")["equal"]

    def traced() -> bool:
        try:
            return bool(client.lineage(answer["prediction_id"])["run"]["id"] == run)
        except RequestFailed:  # it is told of within a moment
            return False

    eventually(traced, within=10, saying="the answer is in the log of predictions")
    assert version in [f"{one['model']}@{one['version']}" for one in client.source_lineage("users")["versions"]]


def mistakes_get_clear_answers(client: Client) -> None:
    with pytest.raises(RequestFailed, match="did you mean 'user_target'") as failed:
        client.train("user_targt")
    assert failed.value.http_status == 404
    with pytest.raises(RequestFailed, match="nobody"):
        client.predict(MODEL, user_id="nobody")
    with pytest.raises(RequestFailed, match="feature_1"):
        client.predict(MODEL, feature_1="high", feature_2=0.5, feature_3=1.0)


def bad_rows_are_refused_whole(client: Client, folder: Path) -> None:
    file = folder / "bad.csv"
    file.write_text("user_id,feature_1,feature_2,target\nnew-user,1.0,2.0,1\nother,high,2.0,1\n")
    with pytest.raises(RequestFailed, match=r"row 2, column 'feature_1', value 'high'"):
        client.ingest("users", file)
    with pytest.raises(RequestFailed) as failed:
        client.entity("user", "new-user")
    assert failed.value.http_status == 404


def every_service_shows_its_metrics_and_its_calls(client: Client) -> None:
    settings = client.settings
    for url in (settings.feature_url, settings.trainer_url, settings.predictor_url, settings.monitor_url):
        assert "modelmill_http_requests_total" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/openapi.json").json()["openapi"] == "3.1.0"
        assert httpx.get(f"{url}/docs").is_success
    assert MODEL in httpx.get(f"{settings.monitor_url}/").text


def events_tell_what_happened(client: Client) -> None:
    kinds = {event["type"] for event in client.events("models", 100)}
    assert {"run.started", "model.trained", "model.promoted"} <= kinds


STEPS: tuple[Callable[[Client], None], ...] = (
    everything_is_ready,
    a_prediction_by_key_and_one_by_value_agree,
    the_monitor_counts_every_prediction,
    a_new_version_goes_live_without_a_failed_request,
    a_rollback_is_served,
    a_run_is_repeated_and_an_answer_is_traced,
    mistakes_get_clear_answers,
    every_service_shows_its_metrics_and_its_calls,
    events_tell_what_happened,
)
"""In this order; each leaves the system as usable as it found it."""
