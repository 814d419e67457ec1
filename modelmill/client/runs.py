"""Calls of the trainer about runs: searching, comparing, exporting, and logging one by hand."""

from __future__ import annotations

import os
from pathlib import Path

from modelmill.client.logged_run import LoggedRun
from modelmill.client.transport import LONG, Json, Transport, url_of
from modelmill.errors import InvalidRequest

FORMATS = {".csv": "csv", ".parquet": "parquet"}
"""File suffix to the format of an export."""
PAGE = 500
"""Runs that are asked for at once."""


class RunCalls(Transport):
    """What was trained how, and what is logged from here."""

    def runs(self, model: str | None = None, limit: int = 20, *, filter: str = "", order: str = "") -> list[Json]:
        """The newest runs, of one model or of all; or those that `filter` matches, in the order asked for.

        `client.runs(filter="metrics.roc_auc > 0.7 and params.clf__C = 1", order="-metrics.roc_auc")`
        """
        asked = {"model": model or "", "filter": filter, "order": order, "cursor": ""}
        found: list[Json] = []
        while len(found) < limit:
            params = {name: value for name, value in asked.items() if value}
            params["limit"] = str(min(PAGE, limit - len(found)))
            page = self._call("GET", self._runs_url, params=params)
            found += page["runs"]
            if page["next"] is None:
                break
            asked["cursor"] = page["next"]
        return found

    def get_run(self, run_id: str) -> Json:
        """A run with all its metadata."""
        return self._call("GET", url_of(self._runs_url, run_id))

    def evaluation(self, run_id: str) -> Json:
        """How good a run's model is on its held-out rows: metrics, 95 % intervals, segments."""
        return self._call("GET", url_of(self._runs_url, run_id, "evaluation"))

    def compare_runs(self, *run_ids: str) -> Json:
        """Runs side by side: of each section its lines, with the runs' values and whether they differ."""
        return self._call("GET", f"{self._runs_url}/compare", params=[("run", run_id) for run_id in run_ids])

    def export_runs(self, path: str | Path, *, filter: str = "", order: str = "") -> Path:
        """Write runs to a file: `.csv` with timestamp, model, parameters, score, model_path; `.parquet` with all.

        The file appears when it is complete.

        Raises:
            InvalidRequest: for a file of another kind.
        """
        path = Path(path)
        if path.suffix not in FORMATS:
            raise InvalidRequest(f"file {path.name!r}; expected a name that ends with {' or '.join(FORMATS)}")
        asked = {"format": FORMATS[path.suffix], "filter": filter, "order": order}
        params = {name: value for name, value in asked.items() if value}
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with (
                self._stream("GET", f"{self._runs_url}/export", params=params, timeout=LONG) as answer,
                partial.open("wb") as file,
            ):
                for piece in answer.iter_bytes():
                    file.write(piece)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def run(self, model: str, *, by: str = "") -> LoggedRun:
        """A run to log by hand: `with client.run("user_target") as run: run.log(accuracy=0.9)`.

        The model need not be declared; `by` says who logs (default: the user of this process).
        """
        return LoggedRun(self._call, self._runs_url, model, by=by)

    @property
    def _runs_url(self) -> str:
        return f"{self.settings.trainer_url}/runs"
