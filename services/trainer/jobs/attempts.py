"""What an earlier attempt of a job had done when its process was killed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rq.job import Job

from modelmill.errors import RunEnded, UnknownName
from modelmill.registry import Registry
from services.trainer.jobs.recovery import LOST


def earlier_attempt(registry: Registry, job: Job) -> dict[str, Any] | None:
    """What an attempt would have returned whose process was killed after it had registered its version.

    A run that was not that far is closed.
    """
    before = getattr(job, "before", None)
    if before is None:
        return None
    try:
        run = registry.runs.get(before)
    except UnknownName:  # it was killed before it had recorded anything
        return None
    if run.version is None:
        with suppress(RunEnded):
            registry.runs.lose(run, LOST)
        return None
    promoted = any(m.version == run.version and m.by == "trainer" for m in registry.history(run.model))
    return {"run": run.id, "version": run.version, "promoted": promoted, "metrics": run.metrics}
