"""The record that a training keeps of itself while it goes on: stages and their times, and what it was made of."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from redis.client import Pipeline
from rq.job import Job

from modelmill.errors import RunEnded, printable, sentence, traced
from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, lease_of, require_lease
from services.trainer.jobs import process
from services.trainer.jobs.journal import append_to

log = logging.getLogger(__name__)

PROGRESS = {
    "queued": 0.0,
    "check": 0.0,
    "frame": 0.0,
    "fit": 0.2,
    "evaluate": 0.7,
    "package": 0.8,
    "compare": 0.95,
    "register": 0.95,
    "done": 1.0,
}
"""Stage to the share of the work that lies before it; `compare` is a stage of repetitions alone."""
PACKAGES = ("scikit-learn", "numpy", "pandas", "skl2onnx", "onnx", "onnxruntime", "skops")
LONGEST_PARAMETER = 500


class RunRecord:
    """A run in the registry, and what its RQ job shows of it (`job` is None outside a worker)."""

    def __init__(self, registry: Registry, run: Run, job: Job | None) -> None:
        self.registry = registry
        self.run = run
        self.job = job
        self._shown: dict[str, Any] = {}

    @contextmanager
    def recording(self) -> Iterator[RunRecord]:
        """Record that the run begins, and that it failed if the block raises."""
        self.registry.runs.start(self.run)
        self._show(run=self.run.id, stage=self.run.stage, progress=0.0)
        try:
            yield self
        except BaseException as error:
            self._fail(error)
            raise

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record that the run is at stage `name`, and how long it took.

        Raises:
            RunEnded: where someone else has closed the run; nothing more may be done in its name.
        """
        self.note(stage=name)
        log.info("%s of %s, run %s", name, self.run.model, self.run.id)
        begun = time.perf_counter()
        yield
        self.run = replace(self.run, seconds={**self.run.seconds, name: round(time.perf_counter() - begun, 6)})

    def note(self, **known: Any) -> None:
        """Record what is known by now, and what it has taken until now."""
        self.run = replace(self.run, **known, **asdict(process.of_this_process()))
        self.registry.runs.update(self.run)
        self._show(stage=self.run.stage, progress=PROGRESS[self.run.stage], rows=self.run.rows_train)

    def progress(self, share: float) -> None:
        """Show that this share of the present stage is done.

        Raises:
            RunEnded: where the run's lease has expired.
        """
        begin, end = PROGRESS[self.run.stage], _after(self.run.stage)
        self._show(stage=self.run.stage, progress=round(begin + share * (end - begin), 4), rows=self.run.rows_train)

    def done(self) -> None:
        """Let the job show that all is done; the run itself says so since its registration."""
        self.run = replace(self.run, **asdict(process.of_this_process()))
        self.registry.runs.record_usage(self.run)
        self._show(stage="done", progress=PROGRESS["done"], rows=self.run.rows_train)

    def _show(self, **known: Any) -> None:
        """Let the job show it, and its journal tell it, while it has its lease."""
        job = self.job
        if job is None:
            return
        job.meta.update(known)
        entry = {"kind": "stage", "run": self.run.id, **{name: str(value) for name, value in known.items()}}

        def change(pipe: Pipeline) -> None:
            require_lease(pipe, self.run)
            pipe.multi()
            pipe.hset(job.key, "meta", orjson.dumps(job.meta))
            if "stage" in known and known != self._shown:
                append_to(pipe, job.id, [entry])

        self.registry.redis.transaction(change, *lease_of(self.run))
        self._shown = known

    def _fail(self, error: BaseException) -> None:
        """Record the error; it is on its way to RQ already, so nothing else may take its place."""
        try:
            self.run = self.registry.runs.fail(self.run, sentence(error), traced(error))
            self._show(error=self.run.error)
            self.registry.runs.record_usage(replace(self.run, **asdict(process.of_this_process())))
        except RunEnded as ended:
            log.warning("%s", ended)
        except AWAY as away:
            log.error("cannot record that run %s failed: %s", self.run.id, away)


def _after(stage: str) -> float:
    """The share of the work that is done when `stage` ends."""
    later = list(PROGRESS)
    return PROGRESS[later[min(later.index(stage) + 1, len(later) - 1)]]


def package_versions() -> dict[str, str]:
    """Python and its packages to their versions, of those that decide what comes out of a training."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def git_commit(folder: Path) -> str:
    """The commit that `folder` is at, with `-dirty` where files differ from it.

    Where git does not know, `MODELMILL_GIT_COMMIT`, otherwise `unknown`.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        answer = ""
    return answer or os.environ.get("MODELMILL_GIT_COMMIT", "unknown")


def parameters(estimator: Any) -> dict[str, str]:
    """The parameters of an estimator and of those inside it, as text; the estimators themselves left out."""
    return {
        name: printable(value, LONGEST_PARAMETER, repr)
        for name, value in estimator.get_params(deep=True).items()
        if not hasattr(value, "get_params") and name not in ("steps", "transformers", "estimators")
    }
