"""What earlier attempts of a job had done when their processes were killed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rq.job import Job

from modelmill.errors import RunEnded
from modelmill.state.registry import Registry
from services.trainer.jobs.recovery import LOST


def earlier_attempt(registry: Registry, job: Job) -> dict[str, Any] | None:
    """What an attempt would have returned whose process was killed after it had registered its version.

    Runs that were not that far are closed.
    """
    for run in registry.runs.read(getattr(job, "before", ())):
        if run.version is None:
            with suppress(RunEnded):
                registry.runs.lose(run, LOST)
            continue
        promoted = any(m.version == run.version and m.by == "trainer" for m in registry.history(run.model))
        return {"run": run.id, "version": run.version, "promoted": promoted, "metrics": run.metrics}
    return None
