"""Calls of the trainer about its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import orjson

from modelmill.client.transport import Json, Transport, url_of
from modelmill.errors import Unavailable

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
