"""The call about the trials of a search."""

from __future__ import annotations

from dataclasses import replace

from flask.testing import FlaskClient

from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from services.trainer.training.sharing import Board
from tests.trainer.calls import problem


def test_the_trials_of_a_run_are_shown_as_runs_without_their_tracebacks(http: FlaskClient, registry: Registry) -> None:
    parent = Run(id="r1", model="user_target", started=utc_now(), trials=3, trials_ended=1, trials_failed=1)
    registry.runs.start(parent)
    board = Board(registry.redis, parent, 3)
    first, second = (
        board.claim(Run(id=name, model="user_target", started=utc_now(), parent="r1")) for name in ("t1", "t2")
    )
    assert first is not None
    assert second is not None
    board.record(replace(first, status="failed", error="no luck", traceback="Traceback ..."), None, None)
    answer = http.get("/runs/r1/trials").json
    assert (answer["trials"], answer["trials_ended"], answer["trials_failed"]) == (3, 1, 1)
    assert [(run["id"], run["trial"], run["status"], run["error"]) for run in answer["runs"]] == [
        ("t1", 1, "failed", "no luck"),
        ("t2", 2, "running", ""),
    ]
    assert all("traceback" not in run for run in answer["runs"])
    assert http.get("/runs/t1").json["traceback"] == "Traceback ..."
    problem(http, "GET", "/runs/r2/trials", 404)


def test_a_run_that_searched_nothing_has_no_trials(http: FlaskClient, registry: Registry) -> None:
    registry.runs.start(Run(id="r1", model="user_target", started=utc_now()))
    assert http.get("/runs/r1/trials").json["runs"] == []


def test_trials_are_among_the_runs_where_a_filter_asks_for_them(http: FlaskClient, registry: Registry) -> None:
    parent = Run(id="r1", model="user_target", started=utc_now(), trials=1)
    registry.runs.start(parent)
    Board(registry.redis, parent, 1).claim(Run(id="t1", model="user_target", started=utc_now(), parent="r1"))
    assert [run["id"] for run in http.get("/runs").json["runs"]] == ["r1"]
    answer = http.get("/runs", query_string={"filter": "parent = 'r1'"})
    assert [run["id"] for run in answer.json["runs"]] == ["t1"]
