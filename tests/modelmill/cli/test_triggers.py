"""What the commands about triggers and past days show and ask for."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from modelmill import cli
from modelmill.cli import system

POINT = {"as_of": "2013-02-01T00:00:00Z", "status": "succeeded", "version": 3, "run": "r1", "error": ""}
asked: list[tuple[str, dict[str, Any]]] = []


class Triggers:
    """A client of a system with one trigger and one model that was trained as of one past day."""

    def schedules(self) -> list[dict[str, Any]]:
        return [
            {
                "model": "user_target", "trigger": "after 10 rows", "next": None, "fired": "2026-05-04T12:01:00.500000Z",
                "outcome": "fired", "waits": "waits_busy", "today": {"fired": 2}, "rows": 12,
            }
        ]  # fmt: skip

    def backfilled(self, model: str) -> dict[str, Any]:
        return {"model": model, "status": "done", "total": 1, "counts": {"succeeded": 1}, "points": [POINT]}

    def backfill(self, model: str, **request: Any) -> dict[str, Any]:
        asked.append(("backfill", request))
        return self.backfilled(model)

    def cancel_backfill(self, model: str) -> dict[str, Any]:
        asked.append(("cancel", {}))
        return self.backfilled(model)

    def wait_for_backfill(self, model: str, **_: Any) -> dict[str, Any]:
        failed = {**POINT, "status": "failed", "error": "no rows"}
        return {**self.backfilled(model), "counts": {"failed": 1}, "points": [failed]}


@pytest.fixture(autouse=True)
def triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked.clear()
    monkeypatch.setattr(system, "client", Triggers)
    monkeypatch.setenv("USER", "ann")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.main, list(words))


def test_schedules_are_listed_with_what_they_wait_for() -> None:
    done = run("schedules")
    assert done.exit_code == 0
    assert "waits_busy" in done.stdout
    assert "2026-05-04 12:01:00" in done.stdout
    assert '"trigger": "after 10 rows"' in run("schedules", "--json").stdout


def test_past_days_are_asked_for() -> None:
    done = run("backfill", "user_target", "--from", "2013-02-01", "--to", "2013-12-01", "--step", "month")
    assert done.exit_code == 0
    request = {"start": "2013-02-01", "end": "2013-12-01", "step": "month", "again": False, "by": "ann"}
    assert asked == [("backfill", request)]


def test_without_days_it_is_shown_how_far_it_has_come() -> None:
    done = run("backfill", "user_target")
    assert (done.exit_code, asked) == (0, [])
    assert "2013-02-01T00:00:00Z" in done.stdout
    assert done.stdout.splitlines()[-1] == "done: 1 succeeded"


def test_waiting_ends_with_1_where_a_training_has_failed() -> None:
    done = run("backfill", "user_target", "--wait")
    assert done.exit_code == 1
    assert "no rows" in done.stdout


def test_it_can_be_cancelled() -> None:
    assert run("backfill", "user_target", "--cancel").exit_code == 0
    assert asked == [("cancel", {})]


@pytest.mark.parametrize(
    "words", [["--from", "2013-02-01"], ["--cancel", "--from", "2013-02-01", "--to", "2013-03-01"]]
)
def test_half_of_the_days_is_wrong_usage(words: list[str]) -> None:
    done = run("backfill", "user_target", *words)
    assert done.exit_code == 2
    assert "expected both --from and --to, or neither of them, or --cancel alone" in done.stderr
