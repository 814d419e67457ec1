"""Calls of the trainer that repeat a run and tell what came of what."""

from __future__ import annotations

from modelmill.client.training import TrainingCalls
from modelmill.client.transport import Json, url_of
from modelmill.errors import Conflict


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
