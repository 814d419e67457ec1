"""What the commands that explain, audit, forget and rebuild print, and their exit codes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from modelmill import cli
from modelmill.cli import system

AUDIT: dict[str, Any] = {
    "model": "m",
    "since": "2026-11-25T11:00:00.000000Z",
    "until": "2026-11-25T12:00:00.000000Z",
    "predictions": 3,
    "rows": 3,
    "values": 12,
    "equal": 11,
    "in_flight": 0,
    "differences": 0,
    "first": [],
    "not_auditable": {"predictions: the event does not say which keys were looked up": 2},
}
DIFFERENCE = {
    "prediction": "4f2e1a9c",
    "row": 0,
    "feature": "x",
    "served": "0.2",
    "expected": "0.1",
    "event_time": None,
    "ingest_time": None,
}
FEATURE = {
    "value": None,
    "status": "expired",
    "why": "expired since yesterday",
    "source": "users",
    "field": "x",
    "event_time": "2026-11-25T11:00:00.000000Z",
    "ingest_time": "2026-11-25T11:00:00.000000Z",
    "age_seconds": 9000.0,
}
SOURCE = {
    "event_time": "t",
    "file": "history/users/a.parquet",
    "chosen": "the only row",
    "online_equals_history": False,
}


class Services:
    """A client that remembers what it was asked for."""

    calls: list[Any]
    differences = 0

    def explain(self, *asked: Any, **more: Any) -> Any:
        self.calls.append((asked, more))
        return {"features": {"x": FEATURE}, "sources": {"users": SOURCE}, "forgotten": None}

    def audit(self, *asked: Any) -> Any:
        self.calls.append(asked)
        return AUDIT | {"differences": self.differences, "first": [DIFFERENCE] * self.differences}

    def forget(self, *asked: Any, **more: Any) -> Any:
        self.calls.append((asked, more))
        return {"entity": "user", "digest": "73475cb4", "counts": {"rows": {"users": 3}}}

    def rebuild(self, *asked: Any, **_: Any) -> Any:
        self.calls.append(asked)
        return {"state": "done", "rows": 7}


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    found = Services()
    found.calls = []
    monkeypatch.setattr(system, "client", lambda: found)
    monkeypatch.setenv("USER", "ops")
    return found


def run(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(cli.main, words, input=typed)


def test_explain_says_of_each_value_why_it_is_so(services: Services) -> None:
    done = run("explain", "user", "42", "--at", "2026-11-25", "--as-of", "known")
    assert services.calls == [(("user", "42"), {"at": "2026-11-25", "as_of": "known"})]
    assert done.exit_code == 0
    for text in ("expired since yesterday", "2.5 h", "history/users/a.parquet", "online differs from the history"):
        assert text in done.stdout


def test_audit_prints_counts_and_what_could_not_be_compared(services: Services) -> None:
    done = run("audit", "m", "--since", "2h")
    assert services.calls == [("m", "2h")]
    assert (done.exit_code, "not auditable: 2 predictions: the event does not say" in done.stdout) == (0, True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_audit_ends_with_1_where_values_differ(options: list[str], services: Services) -> None:
    services.differences = 1
    done = run("audit", "m", *options)
    assert (done.exit_code, "4f2e1a9c" in done.stdout) == (1, True)


def test_forget_asks_before(services: Services) -> None:
    assert run("forget", "user", "42", typed="n\n").exit_code == 1
    assert services.calls == []
    done = run("forget", "user", "42", "--reason", "asked", typed="y\n")
    assert services.calls == [(("user", "42"), {"by": "ops", "reason": "asked"})]
    assert "73475cb4" in done.stdout


@pytest.mark.parametrize("option", ["--yes", "--json"])
def test_forget_does_not_ask_a_script(option: str, services: Services) -> None:
    assert run("forget", "user", "42", option).exit_code == 0
    assert len(services.calls) == 1


def test_rebuild_says_how_many_rows_there_were(services: Services) -> None:
    assert run("rebuild", "--entity", "user").stdout.endswith("7 rows of history are online again.\n")
    assert services.calls == [("user",)]
    assert orjson.loads(run("rebuild", "--json").stdout) == {"state": "done", "rows": 7}
