"""MLflow's side of the comparison, run by the Python that has MLflow.

`python program.py FOLDER` keeps its store in `FOLDER/mlflow.db`; then a JSON command a line on stdin, a JSON answer a
line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime

from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import insert

PAGE = 50
BATCH = 500
TAGS = ("model", "decision", "estimator", "data_fingerprint", "data_start", "data_end", "definitions", "git_commit",
        "package", "stage", "trigger", "rows_train", "rows_test", "version")  # fmt: skip
"""Fields of a run of ours that become tags, beside packages and seconds; MLflow has its own for the others."""
FILTER = "metrics.roc_auc > 0.7 and params.clf__C = '1'"
QUESTIONS = {
    "list": {"order_by": ["attributes.start_time DESC"]},
    "filter": {"filter_string": FILTER, "order_by": ["attributes.start_time DESC"]},
    "filter and order": {
        "filter_string": f"{FILTER} and attributes.start_time > 1768003200000",
        "order_by": ["metrics.roc_auc DESC"],
    },
    "order by a text": {"order_by": ["tags.data_fingerprint"]},
}
"""What benchmarks/runs.py asks of Modelmill, in MLflow's words."""


class Runs:
    """The store with the runs, all in one experiment."""

    def __init__(self, folder: str) -> None:
        uri = f"sqlite:///{folder}/mlflow.db"
        self.store = SqlAlchemyStore(uri, f"{folder}/artifacts")
        self.client = MlflowClient(uri)
        self.experiment = self.client.create_experiment("benchmark")

    def write(self, path: str) -> dict:
        """Take in the runs of a file of JSON lines, by the tables of MLflow's own store."""
        with open(path) as file:
            runs = [json.loads(line) for line in file]
        for start in range(0, len(runs), BATCH):
            with self.store.ManagedSessionMaker() as session:
                for table, rows_of in self._tables():
                    session.execute(insert(table), [row for run in runs[start : start + BATCH] for row in rows_of(run)])
        return {}

    def _tables(self) -> list[tuple[type, Callable]]:
        return [
            (SqlRun, self._run),
            (SqlParam, lambda r: [{"run_uuid": r["id"], "key": k, "value": v} for k, v in r["params"].items()]),
            (SqlMetric, _metrics),
            (SqlLatestMetric, _metrics),
            (SqlTag, lambda r: [{"run_uuid": r["id"], "key": k, "value": str(v)} for k, v in _tags(r).items()]),
        ]

    def _run(self, run: dict) -> list[dict]:
        return [
            {
                "run_uuid": run["id"],
                "name": run["id"],
                "experiment_id": int(self.experiment),
                "source_type": "LOCAL",
                "user_id": "benchmark",
                "status": "FAILED" if run["status"] == "failed" else "FINISHED",
                "start_time": _milliseconds(run["started"]),
                "end_time": _milliseconds(run["finished"]),
                "lifecycle_stage": "active",
                "artifact_uri": run["package"],
            }
        ]

    def search(self, question: str, times: int) -> dict:
        """Ask a question so often; the milliseconds of each answer, and the ids of its runs."""
        found: list[float] = []
        page = []
        for _ in range(times):
            started = time.perf_counter()
            page = self.client.search_runs([self.experiment], max_results=PAGE, **QUESTIONS[question])
            found.append((time.perf_counter() - started) * 1000)
            if len(page) != PAGE:
                raise SystemExit(f"{question}: {len(page)} runs, not {PAGE}")
        return {"ms": found, "ids": [run.info.run_id for run in page]}

    def compare(self, pairs: list[list[str]]) -> dict:
        """Get the two runs of each pair, which MLflow's page then puts side by side; the milliseconds of each."""
        found = []
        for pair in pairs:
            started = time.perf_counter()
            for run_id in pair:
                self.client.get_run(run_id)
            found.append((time.perf_counter() - started) * 1000)
        return {"ms": found}


def _metrics(run: dict) -> list[dict]:
    common = {"run_uuid": run["id"], "timestamp": _milliseconds(run["finished"]), "step": 0, "is_nan": False}
    return [{**common, "key": name, "value": value} for name, value in run["metrics"].items()]


def _tags(run: dict) -> dict:
    nested = {f"{group}.{k}": v for group in ("packages", "seconds") for k, v in run[group].items()}
    return {name: run[name] for name in TAGS} | nested


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def main(folder: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MLflow prints is no answer
    runs = Runs(folder)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(runs, command.pop("do"))(**command)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
