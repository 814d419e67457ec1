"""Calls of the trainer about its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelmill.client.transport import Json, Transport
from modelmill.errors import Unavailable

ENDED = ("finished", "failed", "canceled", "stopped")
"""States of a job that do not change any more."""


class TrainingCalls(Transport):
    """What the trainer does in jobs."""

    def train(
        self,
        model: str,
        *,
        start: str | None = None,
        end: str | None = None,
        by: str = "",
        wait: bool = False,
    ) -> Json:
        """Enqueue a training of `model` on the rows with start <= event time < end; the answer names the job.

        With `wait`, return the job when it has ended.
        """
        body = {k: v for k, v in {"start": start, "end": end, "by": by}.items() if v}
        job = self._call("POST", f"{self.settings.trainer_url}/models/{model}/train", json=body)
        return self.wait(job["job"]) if wait else job

    def job(self, job_id: str) -> Json:
        """A job's status, stage, progress and run."""
        return self._call("GET", f"{self.settings.trainer_url}/jobs/{job_id}")

    def jobs(self) -> list[Json]:
        """Waiting, running and recently ended jobs."""
        return list(self._call("GET", f"{self.settings.trainer_url}/jobs")["jobs"])

    def cancel(self, job_id: str) -> Json:
        """Cancel a waiting job or stop a running one."""
        return self._call("DELETE", f"{self.settings.trainer_url}/jobs/{job_id}")

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
