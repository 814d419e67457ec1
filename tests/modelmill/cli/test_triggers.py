"""What the commands about triggers and past days show and ask for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from modelmill import cli
from modelmill.cli import system

POINT = {"as_of": "2013-02-01T00:00:00Z", "status": "succeeded", "version": 3, "run": "r1", "error": ""}
FAILED = {**POINT, "status": "failed", "version": None, "error": "no rows"}
asked: list[dict[str, Any]] = []


class Triggers:
    """A client of a system with one trigger and one model that was trained as of one past day."""

    def schedules(self) -> list[dict[str, Any]]:
        return [
            {
                "model": "user_target", "trigger": "after 10 rows", "next": None, "fired": "2026-05-04T12:01:00.500000Z",
                "outcome": "fired", "waits": "waits_busy", "today": {"fired": 2}, "rows": 12,
            }
        ]  # fmt: skip

    def backfill(self, model: str, *, progress: object, **request: Any) -> list[dict[str, Any]]:
        asked.append(request)
        return [POINT, FAILED] if request["step"] == "1d" else [POINT]


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


def test_past_days_are_asked_for_and_shown() -> None:
    done = run("backfill", "user_target", "--from", "2013-02-01", "--to", "2013-12-01", "--step", "month")
    assert done.exit_code == 0
    assert "2013-02-01T00:00:00Z" in done.stdout
    assert asked == [{"start": "2013-02-01", "end": "2013-12-01", "step": "month", "again": False, "by": "ann"}]


def test_it_ends_with_1_where_a_training_has_failed() -> None:
    done = run("backfill", "user_target", "--from", "2013-02-01", "--to", "2013-02-02")
    assert done.exit_code == 1
    assert "no rows" in done.stdout


def test_points_are_json_for_scripts() -> None:
    words = ["--from", "2013-02-01", "--to", "2013-02-02", "--again", "--json"]
    assert orjson.loads(run("backfill", "user_target", *words).stdout) == [POINT, FAILED]


def test_half_of_the_days_is_wrong_usage() -> None:
    done = run("backfill", "user_target", "--from", "2013-02-01")
    assert done.exit_code == 2
    assert "Missing option '--to'" in done.stderr
