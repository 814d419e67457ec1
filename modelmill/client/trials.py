"""Calls of the trainer about searches."""

from __future__ import annotations

from modelmill.client.transport import Json, Transport, url_of


class TrialCalls(Transport):
    """What a training tried before it settled."""

    def trials(self, run_id: str) -> Json:
        """The trials of a run's search, as `runs`, and how many have ended and failed."""
        return self._call("GET", url_of(self.settings.trainer_url, "runs", run_id, "trials"))
