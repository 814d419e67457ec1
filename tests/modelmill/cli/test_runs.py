"""What `modelmill runs` shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import system

RUN = {
    "id": "r1", "model": "m", "status": "succeeded", "version": 3, "metric": "auc", "metrics": {"acc": 0.5, "auc": 0.75}, "lease": "k",
    "trials": 0, "params": {"tol": "1", "C": "2"}, "rows_train": 100,
    "seconds": {"fit": 1.0, "frame": 0.5}, "trigger": "manual log", "started": "2026-11-25T02:19:59.000000Z",
}  # fmt: skip


class Trainer:
    """A client of a trainer that notes what it is asked."""

    asked: list[Any]

    def runs(self, model: str | None, limit: int, *, filter: str, order: str) -> list[dict[str, Any]]:
        self.asked = [model, limit, filter, order]
        return [dict(RUN)] if filter != "version = 9" else []

    def get_run(self, run: str) -> dict[str, Any]:
        return {**RUN, "id": run}

    def compare_runs(self, *runs: str) -> dict[str, Any]:
        lines = [
            {"name": "C", "values": ["1", "[bold]10"], "differs": True, "change": None},
            {"name": "tol", "values": ["0.1", "0.1"], "differs": False, "change": None},
        ]
        auc = {"name": "auc", "values": [0.5, 0.75], "differs": True, "change": [0.0, 0.25]}
        same = {"name": "numpy", "values": ["2", "2"], "differs": False, "change": None}
        return {"runs": list(runs), "sections": {"params": lines, "metrics": [auc], "packages": [same]}}

    def export_runs(self, path: Path, *, filter: str, order: str) -> Path:
        self.asked = [path, filter, order]
        return path


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(system, "client", lambda: trainer)
    return trainer


def printed(*words: str) -> str:
    done = CliRunner().invoke(cli.main, ["runs", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_runs_are_listed(trainer: Trainer) -> None:
    [header, line] = printed().splitlines()
    assert header.split()[:4] == ["id", "model", "status", "version"]
    assert line.split() == [
        "r1",
        "m",
        "succeeded",
        "3",
        "auc",
        "0.75,",
        "acc",
        "0.5",
        "100",
        "1.5",
        "manual",
        "log",
        "2026-11-25",
        "02:19:59",
    ]
    assert trainer.asked == [None, 20, "", ""]


def test_those_that_a_filter_matches_are_listed_in_an_order(trainer: Trainer) -> None:
    printed("--model", "m", "--filter", "metrics.auc > 0.7", "--order", "-metrics.auc", "--limit", "5", "--json")
    assert trainer.asked == ["m", 5, "metrics.auc > 0.7", "-metrics.auc"]
    assert printed("--filter", "version = 9") == "No such runs.\n"


@pytest.mark.usefixtures("trainer")
def test_one_run_is_shown() -> None:
    assert "id r7" in printed("show", "r7")


@pytest.mark.usefixtures("trainer")
def test_a_run_is_shown_in_an_order_and_without_what_only_its_worker_needs() -> None:
    lines = printed("show", "r7").split("\n")
    assert lines.index("  auc 0.75") + 1 == lines.index("  acc 0.5"), "the metric that decides comes first"
    assert lines.index("  C 2") + 1 == lines.index("  tol 1")
    assert lines.index("  frame 0.5") + 1 == lines.index("  fit 1"), "stages as they came"
    assert not [line for line in lines if line.startswith(("lease", "trials"))]


@pytest.mark.usefixtures("trainer")
def test_runs_side_by_side_mark_what_differs() -> None:
    lines = [line.split() for line in printed("compare", "a", "b").splitlines()]
    assert lines == [
        ["a", "b"],
        ["params"],
        ["≠", "C", "1", "[bold]10"],
        ["tol", "0.1", "0.1"],
        ["metrics"],
        ["≠", "auc", "0.5", "0.75", "(+0.25)"],
        ["packages"],
        ["numpy", "2", "2"],
    ]
    assert "tol" not in printed("compare", "a", "b", "--differences")
    assert "packages" not in printed("compare", "a", "b", "--differences")


@pytest.mark.usefixtures("trainer")
def test_a_comparison_takes_two_runs() -> None:
    done = CliRunner().invoke(cli.main, ["runs", "compare", "a"])
    assert (done.exit_code, "two or more runs" in done.stderr) == (2, True)


def test_runs_are_exported(trainer: Trainer, tmp_path: Path) -> None:
    assert "Wrote" in printed("export", str(tmp_path / "runs.csv"), "--filter", "status = failed")
    assert trainer.asked == [tmp_path / "runs.csv", "status = failed", ""]
