"""Calls of the trainer about what triggers trainings, and about training as of past days."""

from __future__ import annotations

import time
from datetime import datetime

from modelmill.client.transport import Json, Progress, Transport, url_of
from modelmill.errors import Unavailable


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
