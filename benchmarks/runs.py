"""Looking through thousands of runs: list, filter, order, compare, beside MLflow with the same runs on SQLite."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import orjson

from benchmarks import data, foreign
from benchmarks.effort import Effort
from benchmarks.foreign import Program
from benchmarks.report import Cell, Table
from benchmarks.system import System, running, until
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.runs import Run, write
from modelmill.times import iso

PROGRAM = Path(__file__).parent / "mlflow" / "program.py"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
PAGE = 50
QUESTIONS = 100
"""Times that each question is asked in a repeat of the measurement."""
OF_MLFLOW = 5
"""Times that it is asked of MLflow, whose answers take longer."""
BATCH = 500

METRICS = ("roc_auc", "accuracy", "f1", "neg_log_loss", "precision", "recall")
PACKAGES = ("python", "scikit-learn", "numpy", "pandas", "skl2onnx", "onnxruntime", "skops")
STAGES = ("frame", "fit", "evaluate", "package", "register")

Question = dict[str, str]
"""What is asked: the query of `GET /runs`, or with `compare` two runs side by side."""
QUESTIONS_ASKED: dict[str, Question] = {
    "list": {},
    "filter": {"filter": "metrics.roc_auc > 0.7 and params.clf__C = 1"},
    "filter and order": {
        "filter": "metrics.roc_auc > 0.7 and params.clf__C = 1 and started > 2026-01-10",
        "order": "-metrics.roc_auc",
    },
    "order by a text": {"order": "data_fingerprint"},
}


def measure(effort: Effort) -> list[Table]:
    """Ask each question of both in turn."""
    rows: list[list[Cell]] = []
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, running() as system:
        made = list(islice(_runs(), effort.runs))
        _record(system.redis, made)
        path = Path(folder) / "runs.ndjson"
        path.write_bytes(b"".join(orjson.dumps(asdict(run)) + b"\n" for run in made))
        python = foreign.binaries("mlflow") / "python"
        with foreign.running(python, PROGRAM, folder, **QUIET) as mlflow:
            mlflow.ask("write", path=str(path))
            until(lambda: _total(system) == effort.runs, "the trainer to have read every run")
            for name, question in QUESTIONS_ASKED.items():
                _require_same(system, mlflow, name, question)
            for name, ways in _questions(system, mlflow, made).items():
                found: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(effort.repeats):
                    for way, ask in ways.items():
                        found[way] += ask()
                for way, milliseconds in found.items():
                    p50, p99 = np.percentile(milliseconds, [50, 99]).tolist()
                    rows.append([name, way, p50, p99])
                    samples[f"{name}, {way}, ms"] = milliseconds
        rows.append(["a run has changed", "Modelmill, HTTP", *_after_a_change(system, made, effort)])
    note = (
        f"Of {effort.runs:,} runs with about 60 fields each, {PAGE} to an answer, one question after the other."
        " Modelmill over HTTP with all fields of each run; MLflow in the process that asks, over its SQLite store,"
        " with a page of runs, or for the comparison two."
    )
    return [Table("Runs", ["question", "way", "p50 ms", "p99 ms"], rows, note, samples)]


def _questions(system: System, mlflow: Program, made: Sequence[Run]) -> dict[str, dict[str, Callable[[], list[float]]]]:
    pairs = [[made[n].id, made[-1 - n].id] for n in range(min(QUESTIONS, len(made) // 2))]
    asked: dict[str, dict[str, Callable[[], list[float]]]] = {
        name: {
            "Modelmill, HTTP": lambda question=question: _ask(system, [question] * QUESTIONS),  # type: ignore[misc]
            "MLflow, in process": lambda name=name: mlflow.ask("search", question=name, times=OF_MLFLOW)["ms"],  # type: ignore[misc]
        }
        for name, question in QUESTIONS_ASKED.items()
    }
    asked["compare two"] = {
        "Modelmill, HTTP": lambda: _timed([lambda pair=pair: system.client.compare_runs(*pair) for pair in pairs]),  # type: ignore[misc]
        "MLflow, in process": lambda: mlflow.ask("compare", pairs=pairs)["ms"],
    }
    return asked


def _require_same(system: System, mlflow: Program, name: str, question: Question) -> None:
    """Raise `RuntimeError` where the two do not answer a question with the same runs in the same order."""
    ours = [run["id"] for run in system.client.runs(limit=PAGE, **question)]
    theirs = mlflow.ask("search", question=name, times=1)["ids"]
    if ours != theirs:
        raise RuntimeError(f"{name}: Modelmill answers {ours[:3]}..., MLflow {theirs[:3]}...")


def _ask(system: System, questions: Sequence[Question]) -> list[float]:
    client = system.client
    return _timed([lambda asked=asked: client.runs(limit=PAGE, **asked) for asked in questions])  # type: ignore[misc]


def _timed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The milliseconds of each call."""
    found = []
    for call in calls:
        started = time.perf_counter()
        call()
        found.append((time.perf_counter() - started) * 1000)
    return found


def _after_a_change(system: System, made: Sequence[Run], effort: Effort) -> tuple[float, float]:
    """A list right after some run was written, which the trainer must read first."""
    redis, found = system.redis, []
    for run in made[: QUESTIONS * effort.repeats]:
        with redis.pipeline() as pipe:
            write(pipe, run)
            pipe.execute()
        found += _ask(system, [QUESTIONS_ASKED["filter"]])
    p50, p99 = np.percentile(found, [50, 99]).tolist()
    return p50, p99


def _total(system: System) -> int:
    answer = system.client.http.get(f"{system.client.settings.trainer_url}/runs", params={"limit": "1"})
    return int(answer.json()["total"])


def _record(redis: Redis, runs: Sequence[Run]) -> None:
    for start in range(0, len(runs), BATCH):
        with redis.pipeline() as pipe:
            for run in runs[start : start + BATCH]:
                pipe.sadd(keys.MODELS, run.model)
                pipe.zadd(keys.runs(run.model), {run.id: datetime.fromisoformat(run.started).timestamp()})
                write(pipe, run)
            pipe.execute()


def _runs() -> Iterator[Run]:
    """Runs of ten models, one every half an hour of a year, without end."""
    chance, begin, number = random.Random(data.SEED), datetime(2026, 1, 1, tzinfo=UTC), 0
    while True:
        started = begin + timedelta(minutes=30 * number)
        values = {f"clf__parameter_{n}": repr(chance.choice([0.1, 1, 10, "l2", None])) for n in range(18)}
        yield Run(
            id=f"{started:%Y%m%dT%H%M%S}-{chance.getrandbits(24):06x}",
            model=f"model_{number % 10}",
            status="failed" if number % 17 == 0 else "succeeded",
            stage="done",
            started=iso(started),
            finished=iso(started + timedelta(seconds=3)),
            trigger="schedule",
            version=number // 10 + 1,
            metric="roc_auc",
            decision="roc_auc 0.8 of the challenger, 0.79 of the champion",
            estimator="Pipeline(steps=[('scale', StandardScaler()), ('clf', LogisticRegression())])",
            features=[f"feature_{n}" for n in range(10)],
            fields=[f"users.feature_{n}@4f2e1a9c" for n in range(10)],
            rows_train=chance.randrange(1_000, 100_000),
            rows_test=1_000,
            data_fingerprint=f"{chance.getrandbits(256):064x}",
            data_start=iso(begin),
            data_end=iso(started),
            definitions=f"{chance.randrange(20):064x}",
            git_commit=f"{chance.randrange(100):040x}",
            package=f"models/model_{number % 10}/{number}",
            params={**values, "clf__C": repr(chance.choice([0.1, 1, 10]))},
            metrics={name: chance.random() for name in METRICS},
            packages=dict.fromkeys(PACKAGES, "1.2.3"),
            seconds={name: chance.random() for name in STAGES},
        )
        number += 1
