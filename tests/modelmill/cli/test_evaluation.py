"""What the command `evaluation` shows."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import system

INTERVAL = {"lo": 0.81, "hi": 0.86, "method": "1000 resamples of 400 rows"}


class Evaluated:
    """A client of a system with one evaluated run."""

    def evaluation(self, run: str) -> dict[str, object]:
        return {
            "rows": 400,
            "split": "by time: the newest 400 of 1600 rows held out",
            "metrics": {"roc_auc": 0.84},
            "intervals": {"roc_auc": INTERVAL},
            "baseline": {"roc_auc": 0.5},
            "segments": {
                "shop": {
                    "north": {
                        "rows": 390,
                        "metrics": {"roc_auc": 0.83},
                        "intervals": {"roc_auc": INTERVAL},
                        "missing": {},
                    },
                    "tiny": {
                        "rows": 10,
                        "metrics": {},
                        "intervals": {},
                        "missing": {"roc_auc": "10 rows; expected 20"},
                    },
                }
            },
        }


@pytest.fixture(autouse=True)
def evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "client", Evaluated)


def test_metrics_come_with_their_intervals_and_segments_with_theirs() -> None:
    done = CliRunner().invoke(cli.main, ["evaluation", "r1"])
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "split by time: the newest 400 of 1600 rows held out"
    assert "roc_auc 0.84 0.81 to 0.86 0.5" in lines
    assert "shop north 390 0.83 0.81 to 0.86" in lines
    assert "shop tiny 10 10 rows; expected 20" in lines


def test_a_script_gets_all_of_it() -> None:
    done = CliRunner().invoke(cli.main, ["evaluation", "r1", "--json"])
    assert '"method": "1000 resamples of 400 rows"' in done.stdout
