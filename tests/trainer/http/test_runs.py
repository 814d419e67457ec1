"""The calls about runs."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from flask.testing import FlaskClient

from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from tests.trainer.calls import problem


def test_runs_are_listed_without_and_shown_with_their_traceback(http: FlaskClient, registry: Registry) -> None:
    run = Run(id="r1", model="user_target", started=utc_now())
    registry.runs.start(run)
    registry.runs.fail(run, "no rows", "Traceback ...")
    [listed] = http.get("/runs?model=user_target&limit=5").json["runs"]
    assert listed["error"] == "no rows"
    assert "traceback" not in listed
    assert http.get("/runs/r1").json["traceback"] == "Traceback ..."
    assert "expected a number" in problem(http, "GET", "/runs?limit=0", 422)
    problem(http, "GET", "/runs/r2", 404)


@pytest.fixture
def three(registry: Registry) -> None:
    """Three runs of one model, a better one each hour."""
    for hour in range(3):
        metrics, params = {"roc_auc": 0.6 + hour / 10}, {"clf__C": str(hour)}
        started = f"2026-11-25T0{hour}:00:00.000000Z"
        registry.runs.start(Run(id=f"r{hour}", model="m", started=started, metrics=metrics, params=params))


@pytest.mark.usefixtures("three")
def test_runs_are_filtered_ordered_and_paged(http: FlaskClient) -> None:
    query = {"filter": "metrics.roc_auc > 0.65 and params.clf__C in (1, 2)", "order": "-metrics.roc_auc", "limit": 1}
    first = http.get("/runs", query_string=query).json
    assert [run["id"] for run in first["runs"]] == ["r2"]
    assert first["total"] == 2
    second = http.get("/runs", query_string={**query, "cursor": first["next"]}).json
    assert [run["id"] for run in second["runs"]] == ["r1"]
    assert second["next"] is None


@pytest.mark.usefixtures("three")
def test_a_filter_that_cannot_be_read_is_a_problem_with_its_position(http: FlaskClient) -> None:
    answer = http.get("/runs", query_string={"filter": "metrics.roc_acu > 1"})
    assert (answer.status_code, answer.json["position"]) == (422, 0)
    assert "did you mean 'metrics.roc_auc'?" in answer.json["detail"]


@pytest.mark.usefixtures("three")
def test_runs_are_put_side_by_side(http: FlaskClient) -> None:
    compared = http.get("/runs/compare?run=r0&run=r2").json
    assert compared["runs"] == ["r0", "r2"]
    [line] = compared["sections"]["params"]
    assert line == {"name": "clf__C", "values": ["0", "2"], "differs": True, "change": None}
    assert "2 to 20 runs" in problem(http, "GET", "/runs/compare?run=r0", 422)
    assert "run 'r7' is not known" in problem(http, "GET", "/runs/compare?run=r0&run=r7", 404)


@pytest.mark.usefixtures("three")
def test_runs_are_exported_as_csv_and_as_parquet(http: FlaskClient) -> None:
    answer = http.get("/runs/export", query_string={"filter": "params.clf__C > 0"})
    assert answer.content_type.startswith("text/csv")
    assert len(pd.read_csv(io.BytesIO(answer.data))) == 2
    answer = http.get("/runs/export?format=parquet&order=metrics.roc_auc")
    assert list(pd.read_parquet(io.BytesIO(answer.data))["id"]) == ["r0", "r1", "r2"]
    assert "expected csv or parquet" in problem(http, "GET", "/runs/export?format=xls", 422)


def test_a_run_is_logged_by_hand(http: FlaskClient) -> None:
    begun = http.post("/runs", json={"model": "by_hand", "params": {"C": 1, "penalty": "l2"}, "by": "ann"})
    assert begun.status_code == 201
    url = begun.headers["Location"]
    assert begun.json["lease_seconds"] == 30
    assert http.patch(url, json={}).json["status"] == "running"
    http.patch(url, json={"metrics": {"accuracy": 0.9}})
    ended = http.patch(url, json={"metrics": {"f1": 1}, "status": "succeeded"}).json
    assert (ended["status"], ended["metrics"]) == ("succeeded", {"accuracy": 0.9, "f1": 1.0})
    [found] = http.get("/runs", query_string={"filter": "trigger = 'manual log' and params.penalty = l2"}).json["runs"]
    assert found["id"] == begun.json["id"]
    assert "has ended already" in problem(http, "PATCH", url, 409, json={"metrics": {"accuracy": 1}})


def test_a_run_logged_by_hand_of_a_declared_model_is_judged_by_its_metric(http: FlaskClient) -> None:
    url = http.post("/runs", json={"model": "user_target"}).headers["Location"]
    http.patch(url, json={"metrics": {"f1": 0.8, "accuracy": 0.9}, "status": "succeeded"})
    exported = pd.read_csv(io.BytesIO(http.get("/runs/export").data))
    assert exported["score"].tolist() == [0.9]


@pytest.mark.parametrize(
    "body, reason",
    [
        ({"model": "a b"}, "expected letters"),
        ({}, "expected letters"),
        ({"model": "m", "param": {}}, "did you mean 'params'"),
        ({"model": "m", "params": [1]}, "expected names with their values"),
        ({"model": "m", "params": {"a`": 1}}, "printable letters"),
    ],
)
def test_a_run_that_cannot_be_begun_says_why(http: FlaskClient, body: dict[str, object], reason: str) -> None:
    assert reason in problem(http, "POST", "/runs", 422, json=body)


@pytest.mark.parametrize(
    "body, reason",
    [
        ({"metrics": {"a": "high"}}, "metric 'a' is 'high'; expected a finite number"),
        ({"metrics": {"a": True}}, "expected a finite number"),
        ({"metrics": {str(n): n for n in range(1001)}}, "at most 1000"),
        ({"status": "done"}, "expected succeeded or failed"),
        ({"status": "failed", "traceback": 1}, "field 'traceback' is 1; expected a text"),
    ],
)
def test_what_cannot_be_logged_says_why(http: FlaskClient, body: dict[str, object], reason: str) -> None:
    url = http.post("/runs", json={"model": "m"}).headers["Location"]
    assert reason in problem(http, "PATCH", url, 422, json=body)


def test_a_failed_run_keeps_the_end_of_a_long_traceback(http: FlaskClient) -> None:
    url = http.post("/runs", json={"model": "m"}).headers["Location"]
    http.patch(url, json={"status": "failed", "error": "ValueError: no", "traceback": "x" * 200_000 + "the end"})
    assert http.get(url).json["traceback"].endswith("the end")
    assert len(http.get(url).json["traceback"]) == 100_000
