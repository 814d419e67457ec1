"""Runs that are logged by hand, such as from a notebook: begun, added to and ended over HTTP.

The program that logs one renews a lease; where it no longer does, the run is closed like that of a lost worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from redis.client import Pipeline

from modelmill.errors import Conflict, InvalidRequest, UnknownName
from modelmill.state import bus, keys
from modelmill.state.events import RunFailed, RunLogged, utc_now
from modelmill.state.records import from_hash
from modelmill.state.runs import Run, Runs, new_run_id, require_lease, require_running, write

TRIGGER = "manual log"
"""What such a run says that it was triggered by."""
LEASE = 30
"""Seconds for which a run is taken to go on though nothing is heard of it."""
MOST_ENTRIES = 1000
"""Parameters, or metrics, of one run."""
LONGEST_NAME = 200
LONGEST_VALUE = 500


class LoggedRuns:
    """Begins, adds to and ends such runs in `runs`."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def start(
        self, model: str, *, metric: str = "", by: str, params: Mapping[str, str], packages: Mapping[str, str]
    ) -> Run:
        """Begin a run of a model, which need not be declared; `metric` is the one that decides if it is."""
        run_id = new_run_id()
        lease = keys.run_lease(run_id)
        run = Run(
            id=run_id, model=model, stage="log", started=utc_now(), trigger=TRIGGER, by=by, lease=lease, metric=metric,
            params=dict(params), packages=dict(packages),
        )  # fmt: skip
        self.runs.redis.set(lease, utc_now(), ex=LEASE)
        self.runs.start(run)
        return run

    def add(self, run_id: str, *, params: Mapping[str, str], metrics: Mapping[str, float]) -> Run:
        """Add parameters and metrics to a run that goes on, in the place of those of the same name; renew its lease.

        Raises:
            UnknownName: for a run that does not exist.
            Conflict: for one that is no such run.
            RunEnded: for one that has ended, or whose lease has expired.
            InvalidRequest: where it would have too many of them.
        """

        def added(run: Run) -> Run:
            more = replace(run, params={**run.params, **params}, metrics={**run.metrics, **metrics})
            for name, found in (("params", more.params), ("metrics", more.metrics)):
                if len(found) > MOST_ENTRIES:
                    raise InvalidRequest(f"the run has {len(found)} {name}; expected at most {MOST_ENTRIES}")
            return more

        return self._change(run_id, added)

    def finish(self, run_id: str) -> Run:
        """Record that a run ended well; raises as `add` does."""

        def finished(run: Run) -> Run:
            return replace(run, status="succeeded", stage="done", finished=utc_now())

        return self._change(run_id, finished)

    def fail(self, run_id: str, *, error: str, traceback: str) -> Run:
        """Record that a run failed; raises as `add` does."""

        def failed(run: Run) -> Run:
            return replace(run, status="failed", finished=utc_now(), error=error, traceback=traceback)

        return self._change(run_id, failed)

    def _change(self, run_id: str, changed: Callable[[Run], Run]) -> Run:
        lease = keys.run_lease(run_id)

        def change(pipe: Pipeline) -> Run:
            found = pipe.hgetall(keys.run(run_id))
            if not found:
                raise UnknownName("run", run_id, [])
            run = from_hash(Run, found)
            if run.trigger != TRIGGER:
                raise Conflict(f"run {run_id} was not logged by hand; only the worker that trains it writes to it")
            require_running(pipe, run)
            require_lease(pipe, run)
            after = changed(run)
            pipe.multi()
            if after != run:
                write(pipe, after)
            if after.status == "running":
                pipe.expire(lease, LEASE)
            else:
                pipe.delete(lease)
                pipe.srem(keys.RUNNING, run_id)
                bus.append(pipe, _event(after))
            return after

        run: Run = self.runs.redis.transaction(change, keys.run(run_id), lease, value_from_callable=True)
        return run


def _event(run: Run) -> RunLogged | RunFailed:
    if run.status == "failed":
        return RunFailed(source="trainer", model=run.model, run=run.id, error=run.error)
    return RunLogged(source="trainer", model=run.model, run=run.id, metrics=run.metrics)


def params(body: Mapping[str, Any]) -> dict[str, str]:
    """The field `params` of a body, each value as Python prints it, as those of trained estimators are recorded."""
    return {name: repr(value)[:LONGEST_VALUE] for name, value in _entries(body, "params").items()}


def metrics(body: Mapping[str, Any]) -> dict[str, float]:
    """The field `metrics` of a body."""
    found = _entries(body, "metrics")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"metric {name!r} is {str(value)[:80]!r}; expected a finite number", field="metrics")
    return {name: float(value) for name, value in found.items()}


def packages(body: Mapping[str, Any]) -> dict[str, str]:
    """The field `packages` of a body."""
    return {name: str(value)[:LONGEST_VALUE] for name, value in _entries(body, "packages").items()}


def _entries(body: Mapping[str, Any], field: str) -> dict[str, Any]:
    entries = body.get(field, {})
    if not isinstance(entries, dict):
        raise InvalidRequest(f"field {field!r} is no object; expected names with their values", field=field)
    if len(entries) > MOST_ENTRIES:
        raise InvalidRequest(f"field {field!r} has {len(entries)} entries; expected at most {MOST_ENTRIES}")
    for name in entries:
        if not name or len(name) > LONGEST_NAME or not name.isprintable() or "`" in name:
            raise InvalidRequest(
                f"field {field!r}: name {name[:80]!r}; expected 1 to {LONGEST_NAME} printable letters without `",
                field=field,
            )
    return entries
