"""The predictor's answers over HTTP, and what is reported of them."""

from __future__ import annotations

import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from flask.testing import FlaskClient
from sklearn.linear_model import LogisticRegression
from werkzeug.test import TestResponse

from modelmill.packages import package
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionFailed, PredictionServed
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor.features import OnlineStore
from services.predictor.inference import LiveModels
from services.predictor.loading import Reconciler
from services.predictor.reports import Reports
from tests.predictor import packages
from tests.predictor.packages import EVENT_TIME, manifest, publish, put_complete_user, put_user
from tests.predictor.test_loading import computing


@pytest.fixture(autouse=True)
def _served(fake_redis: Redis, storage: Storage, reconciler: Reconciler) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    put_complete_user(fake_redis, "u1", feature_1=3.0)
    put_complete_user(fake_redis, "u2", feature_1=-3.0)
    reconciler.reconcile()


def predict(client: FlaskClient, body: Any, model: str = "user_target") -> TestResponse:
    return client.post(f"/models/{model}/predict", json=body)


def newest_event(redis: Redis, reports: Reports) -> Any:
    reports.flush()
    events = bus.newest(redis, keys.EVENTS_PREDICTIONS, 1)
    return events[0][1] if events else None


def test_a_prediction_by_key(client: FlaskClient) -> None:
    answer = predict(client, {"user_id": "u1"})
    assert answer.status_code == 200
    body = answer.get_json()
    assert body.keys() == {"prediction", "probabilities", "model", "version", "prediction_id", "features"}
    assert (body["prediction"], body["model"], body["version"]) == (1, "user_target", 1)
    assert math.isclose(body["probabilities"]["0"] + body["probabilities"]["1"], 1, abs_tol=1e-6)
    assert len(bytes.fromhex(body["prediction_id"])) == 16


def test_a_model_that_scikit_learn_serves_answers_in_the_same_form(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler
) -> None:
    graph = predict(client, {"user_id": "u1"}).get_json()
    publish(fake_redis, storage, *packages.served_by_scikit_learn(LogisticRegression()))
    reconciler.reconcile()
    body = predict(client, {"user_id": "u1"}).get_json()
    assert body.keys() == graph.keys()
    assert (body["prediction"], body["version"]) == (1, 2)
    assert body["probabilities"].keys() == graph["probabilities"].keys()
    assert client.get("/models/user_target").get_json()["runtime"] == "skops"
    assert (
        predict(client, {"instances": [{"user_id": "u1"}, {"user_id": "u2"}]}).get_json()["predictions"][1][
            "prediction"
        ]
        == 0
    )


def test_values_that_its_estimator_cannot_take_are_refused_by_name(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler
) -> None:
    publish(fake_redis, storage, *packages.served_by_scikit_learn(LogisticRegression()))
    reconciler.reconcile()
    answer = predict(client, {"feature_1": 1.0, "feature_2": None, "clicks": 2})
    assert answer.status_code == 422
    assert "where 'feature_2' is missing: LogisticRegression raised ValueError: Input X" in answer.get_json()["detail"]


def test_an_answer_says_how_fresh_its_features_were(client: FlaskClient) -> None:
    features = predict(client, {"user_id": "u1"}).get_json()["features"]
    assert features["user"]["event_time"] == EVENT_TIME
    assert isinstance(features["user"]["age_seconds"], float)


def test_a_prediction_by_values_reads_nothing(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise redis.exceptions.ConnectionError("away")

    monkeypatch.setattr(OnlineStore, "read", away)
    body = predict(client, {"feature_1": 3.0, "feature_2": 0.5, "clicks": 3}).get_json()
    assert body["prediction"] == 1
    assert body["features"] == {}


def test_a_report_tells_which_keys_were_looked_up_and_what_was_given(
    client: FlaskClient, fake_redis: Redis, reports: Reports
) -> None:
    given = {"feature_1": 3.0, "feature_2": 0.5, "clicks": 3}
    predict(client, {"instances": [{"user_id": "u1"}, {"user_id": "u2", "clicks": 1}, given]})
    event = newest_event(fake_redis, reports)
    assert event.keys == {"user": ["u1", "u2", None]}
    assert event.given == [[], ["clicks"], ["feature_1", "feature_2", "clicks"]]


def test_a_report_is_silent_about_what_was_not_given_or_not_looked_up(
    client: FlaskClient, fake_redis: Redis, reports: Reports
) -> None:
    predict(client, {"user_id": "u1"})
    assert newest_event(fake_redis, reports).given == []
    predict(client, {"feature_1": 3.0, "feature_2": 0.5, "clicks": 3})
    assert newest_event(fake_redis, reports).keys == {}


def test_request_inputs_are_not_told_as_given(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler, reports: Reports
) -> None:
    inputs = [*packages.USER_INPUTS[:2], package.Input("clicks", "int", nullable=True)]
    publish(fake_redis, storage, manifest(inputs=inputs), packages.classifier())
    reconciler.reconcile()
    predict(client, {"user_id": "u1", "clicks": 3})
    assert newest_event(fake_redis, reports).given == []


def test_a_computed_input_is_answered_described_and_reported(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler, reports: Reports, tmp_path: Path
) -> None:
    publish(fake_redis, storage, computing(fake_redis, tmp_path), packages.classifier())
    reconciler.reconcile()
    predict(client, {"instances": [{"user_id": "u1"}, {"user_id": "u1", "ratio": 7.0}]})
    event = newest_event(fake_redis, reports)
    assert event.features == {"ratio": [1.0, 7.0], "feature_2": [0.5, 0.5], "clicks": [3, 3]}
    assert event.given == [[], ["ratio"]]
    about = client.get("/models/user_target").get_json()
    assert about["inputs"][0]["needs"] == ["feature_1", "clicks"]
    assert re.fullmatch("[0-9a-f]{8}", about["inputs"][0]["version"])
    assert [item["name"] for item in about["auxiliary"]] == ["feature_1"]


def test_a_computed_input_that_fails_is_a_422_with_its_name(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler, tmp_path: Path
) -> None:
    publish(fake_redis, storage, computing(fake_redis, tmp_path), packages.classifier())
    reconciler.reconcile()
    answer = predict(client, {"user_id": "u1", "clicks": 0})
    assert answer.status_code == 422
    assert answer.get_json()["detail"].startswith("request feature 'ratio' failed on feature_1=3.0, clicks=0: ZeroDiv")


def test_a_prediction_is_reported_at_the_moment_by_which_ages_count(
    client: FlaskClient, fake_redis: Redis, reports: Reports
) -> None:
    answer = predict(client, {"user_id": "u1"}).get_json()["features"]["user"]
    moment = datetime.fromisoformat(newest_event(fake_redis, reports).time)
    assert answer["age_seconds"] == round((moment - datetime.fromisoformat(EVENT_TIME)).total_seconds(), 3)


def test_both_ways_give_the_same_answer(client: FlaskClient) -> None:
    by_key = predict(client, {"user_id": "u1"}).get_json()
    by_value = predict(client, {"feature_1": 3.0, "feature_2": 0.5, "clicks": 3}).get_json()
    assert by_key["probabilities"] == by_value["probabilities"]


def test_a_given_value_changes_the_answer(client: FlaskClient) -> None:
    assert predict(client, {"user_id": "u1", "feature_1": -3.0}).get_json()["prediction"] == 0


def test_instances_are_answered_in_their_order(client: FlaskClient) -> None:
    body = predict(client, {"instances": [{"user_id": "u1"}, {"user_id": "u2"}, {"user_id": "u1"}]}).get_json()
    assert body.keys() == {"predictions", "model", "version", "prediction_id"}
    assert [one["prediction"] for one in body["predictions"]] == [1, 0, 1]
    assert all(one.keys() == {"prediction", "probabilities"} for one in body["predictions"])


def test_a_regression_has_no_probabilities(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler
) -> None:
    publish(fake_redis, storage, manifest(model="sum", task="regression", classes=[]), packages.regression())
    reconciler.reconcile()
    body = predict(client, {"user_id": "u1"}, model="sum").get_json()
    assert body["prediction"] == pytest.approx(6.5, abs=1e-4)
    assert "probabilities" not in body


@pytest.mark.parametrize(
    "body, status, said",
    [
        ({"user_id": "nobody"}, 404, "user 'nobody' has no features"),
        ({"user_id": 1.5}, 422, "field 'user_id' is 1.5"),
        ({"usr_id": "u1"}, 422, "did you mean 'user_id'?"),
        ({"instances": [{"user_id": "u1"}] * 4}, 413, "4 is over the limit of 3"),
        ([1], 400, "the body is an array; expected an object"),
    ],
)
def test_a_bad_request_is_a_problem_document(client: FlaskClient, body: Any, status: int, said: str) -> None:
    answer = predict(client, body)
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert said in answer.get_json()["detail"]


@pytest.mark.parametrize("text", ['{"feature_1": NaN}', '{"feature_1": Infinity}', '{"user_id": ', ""])
def test_what_is_no_json_is_malformed(client: FlaskClient, text: str) -> None:
    answer = client.post("/models/user_target/predict", data=text)
    assert answer.status_code == 400
    assert "the body is not JSON" in answer.get_json()["detail"]


def test_an_unknown_model_gets_the_nearest_known_names(client: FlaskClient) -> None:
    answer = predict(client, {}, model="user_traget")
    assert answer.status_code == 404
    assert "did you mean 'user_target'?" in answer.get_json()["detail"]


def test_a_model_without_a_champion_is_unavailable(client: FlaskClient, fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(model="young"), packages.classifier(), promote=False)
    answer = predict(client, {"user_id": "u1"}, model="young")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "no version of it is champion yet" in answer.get_json()["detail"]


def test_a_model_whose_champion_cannot_be_loaded_says_why(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler
) -> None:
    publish(fake_redis, storage, manifest(model="broken"), b"not a graph")
    reconciler.reconcile()
    answer = predict(client, {"user_id": "u1"}, model="broken")
    assert answer.status_code == 503
    assert "version 1 cannot be loaded" in answer.get_json()["detail"]


def test_a_redis_that_is_away_is_said(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise redis.exceptions.ConnectionError("away")

    monkeypatch.setattr(OnlineStore, "read", away)
    answer = predict(client, {"user_id": "u1"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "Redis did not answer" in answer.get_json()["detail"]


# --- reports


def test_an_answer_is_reported_with_what_went_in(client: FlaskClient, fake_redis: Redis, reports: Reports) -> None:
    body = predict(client, {"instances": [{"user_id": "u1"}, {"user_id": "u2", "feature_2": 0.25}]}).get_json()
    event = newest_event(fake_redis, reports)
    assert isinstance(event, PredictionServed)
    assert (event.id, event.model, event.version, event.rows) == (body["prediction_id"], "user_target", 1, 2)
    assert event.features == {"feature_1": [3.0, -3.0], "feature_2": [0.5, 0.25], "clicks": [3, 3]}
    assert event.predictions == [1, 0]
    assert 0 < event.latency_ms < 1000
    assert len(event.time) == len(EVENT_TIME)


@pytest.mark.parametrize("body, status", [({"user_id": "nobody"}, 404), ({"x": 1}, 422), ([], 400)])
def test_a_failure_is_reported_with_its_status(
    client: FlaskClient, fake_redis: Redis, reports: Reports, body: Any, status: int
) -> None:
    detail = predict(client, body).get_json()["detail"]
    event = newest_event(fake_redis, reports)
    assert isinstance(event, PredictionFailed)
    assert (event.model, event.version, event.status, event.error) == ("user_target", 1, status, detail)
    assert event.latency_ms > 0


def test_an_answer_that_is_not_finite_is_reported_as_a_failure(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler, reports: Reports
) -> None:
    publish(fake_redis, storage, manifest(model="sum", task="regression", classes=[]), packages.regression())
    reconciler.reconcile()
    answer = predict(client, {"user_id": "u1", "feature_2": None}, model="sum")
    assert answer.status_code == 422
    assert answer.get_json()["detail"] == (
        "instance 0: the model has no answer where 'feature_2' is missing: it would be nan"
    )
    assert newest_event(fake_redis, reports).status == 422


def test_a_request_for_a_model_without_a_live_version_is_reported(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reports: Reports
) -> None:
    publish(fake_redis, storage, manifest(model="young"), packages.classifier(), promote=False)
    predict(client, {"user_id": "u1"}, model="young")
    event = newest_event(fake_redis, reports)
    assert (event.model, event.version, event.status) == ("young", 0, 503)


def test_a_request_for_an_unknown_model_is_not_reported(
    client: FlaskClient, fake_redis: Redis, reports: Reports
) -> None:
    predict(client, {}, model="nothing")
    assert newest_event(fake_redis, reports) is None


# --- what is live


def test_models_say_what_they_take(client: FlaskClient) -> None:
    (model,) = client.get("/models").get_json()
    assert (model["model"], model["version"], model["classes"], model["problem"]) == ("user_target", 1, [0, 1], None)
    assert model["inputs"][0] == {"name": "feature_1", "dtype": "float", "nullable": False, "entity": "user"}
    assert model["entities"] == {"user": "user_id"}
    assert len(model["loaded"]) == len(EVENT_TIME)


def test_a_model_says_why_its_champion_is_not_live(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler
) -> None:
    folder = publish(fake_redis, storage, manifest(), packages.classifier()).package
    storage.write(f"{folder}/{package.GRAPH}", b"spoilt")
    reconciler.reconcile()
    model = client.get("/models/user_target").get_json()
    assert model["version"] == 1
    assert model["problem"]["version"] == 2
    assert "model.onnx differs" in model["problem"]["reason"]


def test_an_unknown_model_is_not_found(client: FlaskClient) -> None:
    assert client.get("/models/nothing").status_code == 404


def test_ready_says_what_is_missing(client: FlaskClient, live: LiveModels) -> None:
    assert client.get("/readyz").get_json()["status"] == "ready"
    live.drop("user_target")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["problems"] == {"models": "user_target: not loaded yet"}


def test_a_rollback_serves_the_version_before(
    client: FlaskClient, fake_redis: Redis, storage: Storage, reconciler: Reconciler
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    assert predict(client, {"user_id": "u1"}).get_json()["version"] == 2
    Registry(fake_redis).rollback("user_target", by="test")
    reconciler.reconcile()
    assert predict(client, {"user_id": "u1"}).get_json()["version"] == 1


def test_a_user_whose_feature_failed_is_refused(client: FlaskClient, fake_redis: Redis) -> None:
    put_user(fake_redis, "u3", {"feature_2": "1.0", "clicks": "1"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    answer = predict(client, {"user_id": "u3"})
    assert answer.status_code == 422
    assert "feature 'feature_1' of user 'u3' is missing: its feature function failed" in answer.get_json()["detail"]
