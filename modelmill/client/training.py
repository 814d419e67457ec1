"""Calls of the trainer about its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime

import httpx
import orjson

from modelmill.client.transport import Json, Progress, Transport, url_of
from modelmill.errors import Conflict, Unavailable

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
        by: str = "",
        priority: str = "",
        wait: bool = False,
    ) -> Json:
        """Enqueue a training of `model` on the rows with start <= event time < end; the answer names the job.

        That is the one that waits or runs already, where it is for the same data (`existing`). `priority` is high,
        normal or low. With `wait`, return the job when it has ended.
        """
        asked = {"start": start, "end": end, "by": by, "priority": priority}
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


# --- calls of the trainer about what triggers trainings, and about training as of past days


class TriggerCalls(Transport):
    """What the trainer does without being asked, and what it is asked to do for past days."""

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
        wait: bool = False,
    ) -> Json:
        """Train `model` as of `start` and every `step` (such as `30d`, or `month`) later up to `end`.

        Points that a training has succeeded for are left out, unless it is to begin anew. With `wait`, return when all
        have ended.
        """
        body = {"from": str(start), "to": str(end), "step": step, "again": again, "by": by}
        asked = self._call("POST", self._backfill(model), json=body)
        return self.wait_for_backfill(model) if wait else asked

    def backfilled(self, model: str) -> Json:
        """How far the training of a model as of past days has come, and each point's run and version."""
        return self._call("GET", self._backfill(model))

    def cancel_backfill(self, model: str) -> Json:
        """End the training of a model as of past days."""
        return self._call("DELETE", self._backfill(model))

    def wait_for_backfill(self, model: str, *, seconds: float = 24 * 3600, progress: Progress | None = None) -> Json:
        """The state of a model's training as of past days once that has ended.

        Raises:
            Unavailable: where it has not ended after `seconds`; it goes on.
        """
        deadline = time.monotonic() + seconds
        while (state := self.backfilled(model))["status"] == "running":
            if progress is not None:
                progress(state["total"] - sum(state["counts"].get(s, 0) for s in ("waiting", "active")), state["total"])
            if time.monotonic() > deadline:
                raise Unavailable(f"model {model!r} is still being trained as of past days after {seconds:.0f} s")
            time.sleep(0.2)
        return state

    def _backfill(self, model: str) -> str:
        return url_of(self.settings.trainer_url, "models", model, "backfill")


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
