"""The commands about trainings and their jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import system
from modelmill.errors import RequestFailed

JOB = {"job": "j1", "model": "m", "status": "finished", "stage": "done", "progress": 1.0, "run": "r1", "error": ""}
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("state", JOB | {"status": "queued", "stage": "queued", "progress": 0.0, "rows": None}),
    ("stage", {"run": "r1", "stage": "fit", "progress": "0.2", "rows": "300"}),
    ("log", {"run": "r1", "line": "1", "time": "2026-11-25T18:53:10Z", "text": "epoch 1 [loss 0.5]"}),
    ("again", {"attempt": "1", "error": "Redis is away", "at": "2026-11-25T18:53:14Z"}),
    ("end", JOB),
]


class Trainer:
    """A client of a trainer that has one job."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.job_ended: dict[str, Any] = JOB
        self.places = True

    def train(self, model: str, **asked: Any) -> dict[str, Any]:
        self.asked.append((model, asked))
        return {"job": "j1", "existing": True, "status": "queued"}

    def job_events(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.places:
            raise RequestFailed(503, {"detail": "all places are taken"})
        yield from EVENTS

    def job(self, job: str) -> dict[str, Any]:
        return self.job_ended

    wait = job

    def cancel(self, job: str, *, by: str) -> dict[str, Any]:
        self.asked.append((job, by))
        return JOB | {"status": "cancelled", "error": f"cancelled by {by}"}

    def run_log(self, run: str) -> str:
        return f"2026-11-25T18:53:10Z  the log of {run}\n"


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(system, "client", lambda: trainer)
    monkeypatch.setenv("USER", "ada")
    return trainer


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.main, words)
    return result.exit_code, result.stdout, result.stderr


def test_a_training_is_enqueued_with_its_span_and_who_asks(trainer: Trainer) -> None:
    code, said, _ = run("train", "m", "--start", "2026-01-01")
    assert code == 0
    assert "existing yes" in said
    assert trainer.asked == [("m", {"start": "2026-01-01", "end": None, "by": "ada"})]


def test_who_waits_sees_the_log_and_failed_attempts_and_then_the_job(trainer: Trainer) -> None:
    code, said, shown = run("train", "m", "--wait")
    assert code == 0
    assert "epoch 1 [loss 0.5]" in shown
    assert "attempt 1 failed: Redis is away; next at 2026-11-25 18:53:14" in shown
    assert "status finished" in said


def test_who_waits_for_json_sees_nothing_else(trainer: Trainer) -> None:
    assert run("train", "m", "--wait", "--json")[2] == ""


def test_a_job_that_fails_ends_the_command_with_1(trainer: Trainer) -> None:
    trainer.job_ended = JOB | {"status": "cancelled"}
    assert run("train", "m", "--wait")[0] == 1


def test_without_a_place_to_listen_the_job_is_waited_for_all_the_same(trainer: Trainer) -> None:
    trainer.places = False
    code, said, _ = run("train", "m", "--wait")
    assert (code, "status finished" in said) == (0, True)


def test_a_job_is_cancelled_in_the_name_of_who_asks(trainer: Trainer) -> None:
    assert "cancelled by ada" in run("jobs", "cancel", "j1")[1]


def test_the_log_of_a_job_is_that_of_its_run(trainer: Trainer) -> None:
    assert run("jobs", "log", "j1")[1] == "2026-11-25T18:53:10Z  the log of r1\n"
    assert "epoch 1" in run("jobs", "log", "j1", "--follow")[2]


def test_a_job_that_made_no_run_has_no_log(trainer: Trainer) -> None:
    trainer.job_ended = JOB | {"status": "queued", "run": None}
    code, _, said = run("jobs", "log", "j1")
    assert (code, said) == (1, "Error: job j1 has made no run: it is queued\n")


def test_a_job_that_waits_to_be_tried_again_says_why_and_until_when(trainer: Trainer) -> None:
    trainer.job_ended = JOB | {"status": "scheduled", "reason": "Redis is away", "scheduled": "2026-11-25T18:53:14Z"}
    done = CliRunner().invoke(cli.main, ["jobs", "show", "j1"])
    assert done.exit_code == 0
    assert "reason Redis is away\nscheduled 2026-11-25T18:53:14Z\n" in done.stdout
