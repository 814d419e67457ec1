"""Runs that are logged by hand, such as from a notebook: begun, added to and ended over HTTP.

The program that logs one renews a lease; where it no longer does, the run is closed like that of a lost worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from redis.client import Pipeline

from modelmill.declare.declarations import NAME
from modelmill.errors import Conflict, InvalidRequest, UnknownName
from modelmill.http.bodies import Body
from modelmill.state import bus, keys
from modelmill.state.events import RunFailed, RunLogged
from modelmill.state.records import from_hash
from modelmill.state.runs import Run, Runs, new_run_id, require_lease, require_running, write
from modelmill.times import utc_now

LOGGED_TRIGGER = "manual log"
"""What such a run says that it was triggered by."""
LEASE_SECONDS = 30
"""For which a run is taken to go on though nothing is heard of it."""
MAX_ENTRIES = 1000
"""Parameters, or metrics, of one run."""
MAX_NAME_CHARACTERS = 200
MAX_VALUE_CHARACTERS = 500
MAX_ERROR_CHARACTERS = MAX_BY_CHARACTERS = 500
MAX_TRACEBACK_CHARACTERS = 100_000
"""Of the end of a traceback, where it says most."""


def _entry_name(name: str) -> str:
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable() or "`" in name:
        raise ValueError
    return name


EntryName = Annotated[
    str,
    AfterValidator(_entry_name),
    Field(description=f"1 to {MAX_NAME_CHARACTERS} printable letters without `"),
]
Parameter = Annotated[Any, Field(description="any value; it is recorded as Python prints it")]
Metric = Annotated[float, Field(allow_inf_nan=False, description="a finite number")]
Version = Annotated[
    str, BeforeValidator(lambda value: str(value)[:MAX_VALUE_CHARACTERS]), Field(description="a version")
]
ENTRIES: Any = Field(default={}, max_length=MAX_ENTRIES, description=f"names with their values, at most {MAX_ENTRIES}")
TEXT: Any = Field(default="", description="a text")


class NewRun(Body):
    """What a run is begun with."""

    model: str = Field(pattern=f"^{NAME.pattern}$", description="letters, digits and _, not starting with a digit")
    by: str = Field("", max_length=MAX_BY_CHARACTERS, description=f"a text of at most {MAX_BY_CHARACTERS} letters")
    params: dict[EntryName, Parameter] = ENTRIES
    packages: dict[EntryName, Version] = ENTRIES


class RunChange(Body):
    """What is added to a run, and how it ended where it has."""

    params: dict[EntryName, Parameter] = ENTRIES
    metrics: dict[EntryName, Metric] = ENTRIES
    status: Literal["", "succeeded", "failed"] = Field("", description="succeeded or failed")
    error: str = TEXT
    traceback: str = TEXT


class LoggedRuns:
    """Begins and changes such runs in `runs`."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def start(self, new: NewRun, metric: str = "") -> Run:
        """Begin a run of a model, which need not be declared; `metric` is the one that decides if it is."""
        run_id = new_run_id()
        lease = keys.run_lease(run_id)
        run = Run(
            id=run_id, model=new.model, stage="log", started=utc_now(), trigger=LOGGED_TRIGGER, by=new.by, lease=lease,
            metric=metric, params=_recorded(new.params), packages=new.packages,
        )  # fmt: skip
        self.runs.redis.set(lease, utc_now(), ex=LEASE_SECONDS)
        self.runs.start(run)
        return run

    def change(self, run_id: str, change: RunChange) -> Run:
        """Add to a run that goes on, in the place of what has the same name, and renew its lease, or end it.

        Raises:
            UnknownName: for a run that does not exist.
            Conflict: for one that is no such run.
            RunEnded: for one that has ended, or whose lease has expired.
            InvalidRequest: where it would have too many parameters or metrics.
        """
        lease = keys.run_lease(run_id)

        def write_change(pipe: Pipeline) -> Run:
            found = pipe.hgetall(keys.run(run_id))
            if not found:
                raise UnknownName("run", run_id, [])
            run = from_hash(Run, found)
            if run.trigger != LOGGED_TRIGGER:
                raise Conflict(f"run {run_id} was not logged by hand; only the worker that trains it writes to it")
            require_running(pipe, run)
            require_lease(pipe, run)
            changed = _changed(run, change)
            pipe.multi()
            if changed != run:
                write(pipe, changed)
            if changed.status == "running":
                pipe.expire(lease, LEASE_SECONDS)
            else:
                pipe.delete(lease)
                pipe.srem(keys.RUNNING, run_id)
                bus.append(pipe, _event(changed))
            return changed

        run: Run = self.runs.redis.transaction(write_change, keys.run(run_id), lease, value_from_callable=True)
        return run


def _recorded(params: Mapping[str, Any]) -> dict[str, str]:
    """Each value as Python prints it, as those of trained estimators are recorded."""
    return {name: repr(value)[:MAX_VALUE_CHARACTERS] for name, value in params.items()}


def _changed(run: Run, change: RunChange) -> Run:
    run = replace(run, params=run.params | _recorded(change.params), metrics=run.metrics | change.metrics)
    for name, entries in (("params", run.params), ("metrics", run.metrics)):
        if len(entries) > MAX_ENTRIES:
            raise InvalidRequest(f"the run has {len(entries)} {name}; expected at most {MAX_ENTRIES}")
    match change.status:
        case "succeeded":
            return replace(run, status="succeeded", stage="done", finished=utc_now())
        case "failed":
            error, traceback = change.error[:MAX_ERROR_CHARACTERS], change.traceback[-MAX_TRACEBACK_CHARACTERS:]
            return replace(run, status="failed", finished=utc_now(), error=error, traceback=traceback)
    return run


def _event(run: Run) -> RunLogged | RunFailed:
    if run.status == "failed":
        return RunFailed(source="trainer", model=run.model, run=run.id, error=run.error)
    return RunLogged(source="trainer", model=run.model, run=run.id, metrics=run.metrics)
