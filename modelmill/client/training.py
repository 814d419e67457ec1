"""Calls of the trainer about its jobs."""

from __future__ import annotations

import time
from calendar import monthrange
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import orjson

from modelmill import times
from modelmill.client.runs import RunCalls
from modelmill.client.transport import Json, Progress, Transport, url_of
from modelmill.errors import Conflict, InvalidRequest, Unavailable

ENDED = ("finished", "failed", "cancelled")
"""States of a job that do not change any more."""
AGAIN = 0.5
"""Seconds before a connection is made again."""
SILENCE = 30.0
"""Seconds without a sign after which a job's events are asked for again; the trainer gives one every two."""


class TrainingCalls(Transport):
    """What the trainer does in jobs."""

    def train(
        self,
        model: str,
        *,
        start: str | None = None,
        end: str | None = None,
        as_of: str | None = None,
        by: str = "",
        wait: bool = False,
    ) -> Json:
        """Enqueue a training of `model` on the rows with start <= event time < end; the answer names the job.

        That is the one that waits or runs already, where it is for the same data (`existing`). `as_of`, a time that has
        passed, is an end that keeps no trigger from firing. With `wait`, return the job when it has ended.
        """
        asked = {"start": start, "end": end, "as_of": as_of, "by": by}
        body = {name: text for name, text in asked.items() if text}
        job = self._call("POST", url_of(self.settings.trainer_url, "models", model, "train"), json=body)
        return self.wait(job["job"]) if wait else job

    def job(self, job_id: str) -> Json:
        """A job's status, stage, progress and run."""
        return self._call("GET", url_of(self.settings.trainer_url, "jobs", job_id))

    def jobs(self) -> list[Json]:
        """Waiting, running and recently ended jobs."""
        return list(self._call("GET", f"{self.settings.trainer_url}/jobs")["jobs"])

    def cancel(self, job_id: str, *, by: str = "") -> Json:
        """Cancel a waiting job or stop a running one."""
        params = {"by": by} if by else {}
        return self._call("DELETE", url_of(self.settings.trainer_url, "jobs", job_id), params=params)

    def run_log(self, run_id: str) -> str:
        """What a run has logged and printed so far."""
        return self._send("GET", url_of(self.settings.trainer_url, "runs", run_id, "log")).text

    def job_events(self, job_id: str) -> Iterator[tuple[str, Json]]:
        """What a job has done and does, as it comes: `state`, `stage`, `log`, `again`, and `end`, which is the last.

        A connection that ends or is lost is made again, and goes on where it was.
        """
        url = url_of(self.settings.trainer_url, "jobs", job_id, "events")
        position, kind, heard = "", "", False
        while kind != "end":
            headers = {"Last-Event-ID": position} if position else {}
            try:
                with self._stream("GET", url, headers=headers, timeout=httpx.Timeout(10.0, read=SILENCE)) as response:
                    for line in response.iter_lines():
                        name, _, value = line.partition(": ")
                        heard = True
                        if name == "id":
                            position = value
                        elif name == "event":
                            kind = value
                        elif name == "data":
                            yield kind, orjson.loads(value)
            except Unavailable:
                if not heard:
                    raise
            if kind != "end":
                heard = False
                time.sleep(AGAIN)

    def wait(self, job_id: str, *, seconds: float = 3600, watch: Callable[[Json], None] | None = None) -> Json:
        """The job once it has ended; `watch` is called with its state meanwhile.

        Raises:
            Unavailable: where it has not ended after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id))["status"] not in ENDED:
            if watch is not None:
                watch(job)
            if time.monotonic() > deadline:
                raise Unavailable(f"job {job_id} is still {job['status']} after {seconds:.0f} s")
            time.sleep(0.1)
        return job


# --- calls of the trainer about searches


class TrialCalls(Transport):
    """What a training tried before it settled."""

    def trials(self, run_id: str) -> Json:
        """The trials of a run's search, as `runs`, and how many have ended and failed."""
        return self._call("GET", url_of(self.settings.trainer_url, "runs", run_id, "trials"))


# --- calls of the trainer about what triggers trainings, and trainings as of past days


class TriggerCalls(TrainingCalls, RunCalls):
    """What the trainer does without being asked, and what it would have done on past days."""

    def schedules(self) -> list[Json]:
        """Every trigger: when it fires next, when it fired last, what became of it and what it waits for."""
        return list(self._call("GET", f"{self.settings.trainer_url}/schedules")["schedules"])

    def backfill(
        self,
        model: str,
        *,
        start: str | datetime,
        end: str | datetime,
        step: str = "1d",
        again: bool = False,
        by: str = "",
        seconds: float = 24 * 3600,
        progress: Progress | None = None,
    ) -> list[Json]:
        """Train `model` as of `start` and every `step` (`30d`, or `month`) later up to `end`, one after another.

        Points as of which a training has succeeded are left out, so a call that was interrupted goes on where it is
        made again; unless it is to begin anew. Each point's answer has `as_of`, `status` (succeeded, failed or
        cancelled), `run`, `version` and `error`.

        Raises:
            InvalidRequest: for points that cannot be.
            Unavailable: where a training has not ended after `seconds`, in which its job goes on.
            RequestFailed: where the queue is full for as long, or the trainer refuses.
        """
        wanted = points(start, end, step)
        done = {} if again else self._trained_as_of(model)
        for number, point in enumerate(wanted):
            if progress is not None:
                progress(number, len(wanted))
            if point not in done:
                done[point] = self._train_as_of(model, point, by, seconds)
        if progress is not None:
            progress(len(wanted), len(wanted))
        return [{"as_of": when(point), **done[point]} for point in wanted]

    def _trained_as_of(self, model: str) -> dict[datetime, Json]:
        """Points as of which a training of `model` has succeeded, on all rows before it, to the newest one."""
        condition = "status = succeeded and as_of is not missing and start is missing"
        runs = self.runs(model, MOST_RUNS, filter=condition, order="started")
        return {times.read(run["as_of"]): _point(run) for run in runs}

    def _train_as_of(self, model: str, point: datetime, by: str, seconds: float) -> Json:
        """Train as of one point and wait for it; while the trainer is away or its queue full, that is waited for."""
        deadline = time.monotonic() + seconds
        asked = self.when_ready(lambda: self.train(model, as_of=when(point), by=by), seconds=seconds)
        job = self.when_ready(lambda: self.wait(asked["job"], seconds=deadline - time.monotonic()), seconds=seconds)
        if job["status"] != "finished":
            return _point({"status": job["status"], "id": job["run"], "error": job["error"]})
        return _point(self.when_ready(lambda: self.get_run(job["run"])))


def _point(run: Json) -> Json:
    return {"status": run["status"], "run": run["id"], "version": run.get("version"), "error": run.get("error") or ""}


MONTH = "month"
MOST_POINTS = 1000
MOST_RUNS = 1_000_000


def points(start: str | datetime, end: str | datetime, step: str) -> list[datetime]:
    """`start` and every `step` later, up to and including `end`; a month later is the same day of the next month.

    Raises:
        InvalidRequest: for what is no time or no length of time, an end before the start or in the future, or more than
            `MOST_POINTS`.
    """
    first, last = _moment("start", start), _moment("end", end)
    if last < first:
        raise InvalidRequest(f"the start is {when(first)} and the end {when(last)}; expected the end to be later")
    if last > datetime.now(UTC):
        raise InvalidRequest(f"the end is {when(last)}; expected a time that has passed", field="end")
    try:
        length = None if step == MONTH else timedelta(seconds=times.seconds(step))
    except ValueError as error:
        raise InvalidRequest(f"step: {error}, or {MONTH!r}", field="step") from None
    found: list[datetime] = []
    while (point := _later(first, len(found), length)) <= last:
        if len(found) == MOST_POINTS:
            raise InvalidRequest(
                f"from {when(first)} to {when(last)} in steps of {step} is more than {MOST_POINTS} trainings; expected"
                " a longer step"
            )
        found.append(point)
    return found


def _later(first: datetime, steps: int, length: timedelta | None) -> datetime:
    """So many steps of a length, or of a month, after `first`."""
    if length is not None:
        return first + steps * length
    years, month = divmod(first.month - 1 + steps, 12)
    year = first.year + years
    return first.replace(year=year, month=month + 1, day=min(first.day, monthrange(year, month + 1)[1]))


def _moment(name: str, value: str | datetime) -> datetime:
    try:
        return times.read(str(value)).astimezone(UTC)
    except ValueError:
        raise InvalidRequest(f"the {name} is {str(value)[:80]!r}; expected {times.EXPECTED}", field=name) from None


def when(moment: datetime) -> str:
    """A point as text, such as `2013-02-01T05:00:00Z`."""
    return moment.isoformat().replace("+00:00", "Z")


# --- calls of the trainer that repeat a run and tell what came of what


class TraceCalls(TrainingCalls):
    """Repetitions and lineage."""

    def reproduce(self, run_id: str, *, by: str = "", wait: bool = True) -> Json:
        """Repeat a run and return the report: `equal`, `checks` and `reasons`; without `wait`, only the job.

        Raises:
            Conflict: where the job did not finish, saying why.
        """
        url = url_of(self.settings.trainer_url, "runs", run_id, "reproduce")
        job = self._call("POST", url, json={"by": by} if by else {})
        return self.reproduction(run_id, self.wait(job["job"])) if wait else job

    def reproduction(self, run_id: str, job: Json) -> Json:
        """The report of a job that has ended.

        Raises:
            Unavailable: where it did not finish, saying why.
        """
        if job["status"] != "finished":
            raise Conflict(f"job {job['job']} {job['status']}: {job['error']}")
        return next(report for report in self.reproductions(run_id) if report["job"] == job["job"])

    def reproductions(self, run_id: str) -> list[Json]:
        """The reports of all repetitions of a run, newest first."""
        return list(
            self._call("GET", url_of(self.settings.trainer_url, "runs", run_id, "reproductions"))["reproductions"]
        )

    def lineage(self, of: str) -> Json:
        """Where a prediction (by its id), a version (`user_target@7`) or a run comes from."""
        return self._call("GET", url_of(self.settings.trainer_url, "lineage", of))

    def source_lineage(self, source: str) -> Json:
        """What was made of a source: features, models, runs, versions."""
        return self._call("GET", url_of(self.settings.trainer_url, "lineage", "sources", source))
