"""The HTTP calls about searches."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response

from modelmill.http.web import reply
from modelmill.state.registry import Registry


def add_search_routes(app: Flask, registry: Registry) -> None:
    """Add them to the trainer."""

    @app.get("/runs/<run>/trials")
    def trials(run: str) -> Response:
        """The trials of a run's search as runs of their own, in the order of their numbers, without tracebacks.

        A trial whose process was killed has a run for each attempt. `trials` is how many the search has, `trials_ended`
        how many of them have ended and `trials_failed` how many of these failed.
        """
        parent = registry.runs.get(run)
        found = [asdict(trial) for trial in registry.runs.trials(run)]
        return reply(
            {
                "run": run,
                "trials": parent.trials,
                "trials_ended": parent.trials_ended,
                "trials_failed": parent.trials_failed,
                "runs": [{name: trial[name] for name in trial if name != "traceback"} for trial in found],
            }
        )
