"""Calls of the trainer about runs: searching, comparing, exporting, and logging one by hand."""

from __future__ import annotations

import getpass
import logging
import math
import os
import platform
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from types import TracebackType
from typing import Any, Self

from modelmill.client.transport import LONG, Json, Transport, url_of
from modelmill.errors import Conflict, InvalidRequest, ModelmillError, RequestFailed

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


# --- a run that is logged by hand, such as from a notebook.
#
# with client.run("user_target") as run: run.params(C=1.0, penalty="l2") ... run.log(accuracy=0.9)
#
# An exception makes it a failed run, with its traceback. A thread tells the trainer that this process lives; where it
# was killed, the run is closed as lost.

log = logging.getLogger(__name__)

RENEWALS = 3
"""How often a lease is renewed in its time, so that one that fails loses nothing."""
PACKAGES = {
    "sklearn": "scikit-learn",
    "numpy": "numpy",
    "pandas": "pandas",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}
"""Module to the package whose version is recorded where the module is in use."""


class LoggedRun:
    """Begins where its `with` block does, and ends with it; `start` and `finish` do so without one.

    Every method raises `RequestFailed` where the trainer refuses, such as once the run is closed as lost.
    """

    def __init__(self, call: Callable[..., Json], url: str, model: str, *, by: str = "") -> None:
        self.model = model
        self.id = ""
        """Known once the run has begun."""
        self._call = call
        self._url = url
        self._by = by or _user()
        self._ended = Flag()
        self._renewing: Thread | None = None

    def start(self) -> Self:
        """Begin the run.

        Raises:
            Conflict: where it has begun already.
        """
        if self.id:
            raise Conflict(f"run {self.id} has begun already; client.run({self.model!r}) makes another one")
        begun = self._call(
            "POST", self._url, json={"model": self.model, "by": self._by, "packages": package_versions()}
        )
        self.id = begun["id"]
        pause = begun["lease_seconds"] / RENEWALS
        self._renewing = Thread(target=self._renew, args=(pause,), name=f"lease of run {self.id}", daemon=True)
        self._renewing.start()
        return self

    def params(self, **params: Any) -> None:
        """Record parameters; one of the same name is replaced."""
        self._change({"params": {name: _plain(value) for name, value in params.items()}})

    def log(self, **metrics: float) -> None:
        """Record metrics; one of the same name is replaced.

        Raises:
            InvalidRequest: for what is not a finite number.
        """
        plain = {name: _plain(value) for name, value in metrics.items()}
        for name, value in plain.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidRequest(f"metric {name!r} is {value!r}; expected a finite number", field=name)
        self._change({"metrics": plain})

    def finish(self) -> None:
        """End the run well."""
        self._end({"status": "succeeded"})

    def fail(self, error: str, traceback: str = "") -> None:
        """End the run as failed."""
        self._end({"status": "failed", "error": error, "traceback": traceback})

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        sentence = "".join(traceback.format_exception_only(error)).strip()
        try:
            self.fail(sentence, "".join(traceback.format_exception(kind, error, frames)))
        except ModelmillError as failure:  # the user's own error is on its way and says more
            log.warning("cannot record that run %s failed: %s", self.id, failure)

    def _end(self, last: Json) -> None:
        self._ended.set()
        if self._renewing is not None:  # a renewal after the end would be refused
            self._renewing.join()
        self._change(last)

    def _change(self, change: Json) -> None:
        if not self.id:
            raise Conflict("the run has not begun; use `with client.run(...) as run:` or run.start()")
        self._call("PATCH", url_of(self._url, self.id), json=change)

    def _renew(self, pause: float) -> None:
        while not self._ended.wait(pause):
            try:
                self._change({})
            except RequestFailed as refused:
                if refused.http_status < 500:
                    log.warning("run %s is no longer recorded: %s", self.id, refused)
                    return
            except ModelmillError as away:  # it may be back before the lease expires
                log.warning("cannot renew the lease of run %s: %s", self.id, away)


def package_versions() -> Json:
    """Python and those packages in use here that decide what comes out of a training, to their versions."""
    found = {"python": platform.python_version()}
    for module, package in PACKAGES.items():
        if module in sys.modules:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it: NumPy's scalars as Python's, and what JSON has no form for as text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return ""
