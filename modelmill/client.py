"""The four services as Python calls: what the command line does, for programs and notebooks.

from modelmill import Client

client = Client()
client.ingest("users", "user_data.csv")
client.train("user_target", wait=True)
client.predict("user_target", user_id="a27b09ee-0cf8-11ed-899e-b29c4abd48f4")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx
import orjson

from modelmill.errors import Conflict, InvalidRequest, RequestFailed, Unavailable
from modelmill.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

CONTENT_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}
"""File suffix to the content type that the feature service expects."""
PIECE = 256 * 1024
"""Bytes sent between two calls of an upload's progress function."""
LONG = 600.0
"""Seconds that a bulk call (ingest, apply, training frame) may take."""
ENDED = ("finished", "failed", "canceled", "stopped")
"""States of a job that do not change any more."""

Json = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with how much is done so far, and in all: bytes of an upload, rows of a backfill."""


class Client:
    """Calls the services at the addresses in `settings` (default: from the environment).

    Every method raises `RequestFailed` where the service answers with an error, and `Unavailable` where it does not
    answer within `timeout` seconds.
    """

    def __init__(self, settings: Settings | None = None, *, timeout: float = 10.0) -> None:
        self.settings = settings or Settings.read()
        self.http = httpx.Client(timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    # --- features

    def apply(
        self,
        fingerprint: str | None = None,
        *,
        dry_run: bool = False,
        seconds: float = LONG,
        progress: Progress | None = None,
    ) -> Json:
        """Apply the definitions file of the feature service, or with `dry_run` say what would change.

        Returns when it is in force; `progress` is called with the rows that are computed so far and in all.

        Raises:
            Conflict: where it cannot be put in force.
            Unavailable: where that takes longer than `seconds`; it goes on.
        """
        body = {"fingerprint": fingerprint, "dry_run": dry_run}
        answer = self._call("POST", f"{self.settings.feature_url}/features", json=body, timeout=LONG)
        deadline = time.monotonic() + seconds
        while "url" in answer:
            state = self._call("GET", f"{self.settings.feature_url}{answer['url']}")
            if progress is not None:
                progress(state["rows"], state["total"])
            if state["state"] == "failed":
                raise Conflict(state["error"])
            if state["state"] == "done":
                return {"changes": answer["changes"], "backfilled": state["rows"]}
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"definitions are still being applied after {seconds:.0f} s: {state['rows']} rows done"
                )
            time.sleep(0.05)
        return answer

    def ingest(
        self,
        source: str,
        data: str | Path | Sequence[Mapping[str, Any]] | pd.DataFrame,
        *,
        on_error: str = "fail",
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Json:
        """Send a file (by its suffix CSV, JSON, NDJSON or Parquet), a list of rows or a DataFrame to a source.

        With an `idempotency_key` it may be sent again when the answer was lost: it takes effect once.
        """
        if isinstance(data, str | Path):
            kind, body = _content(Path(data), CONTENT_TYPES)
        elif isinstance(data, Sequence):
            kind, body = CONTENT_TYPES[".json"], orjson.dumps(list(data))
        else:
            kind, body = CONTENT_TYPES[".parquet"], data.to_parquet(index=False)
        return self._call(
            "POST",
            f"{self.settings.feature_url}/sources/{source}/rows",
            params={"on_error": on_error},
            headers={"Content-Type": kind, "Content-Length": str(len(body))}
            | ({"Idempotency-Key": idempotency_key} if idempotency_key else {}),
            content=_pieces(body, progress),
            timeout=LONG,
        )

    def rejected(self, source: str, *, count: int = 100, since: str | None = None) -> Json:
        """The newest rows of a source that were rejected while others were kept, and how many there were ever."""
        params = {"count": str(count)} | ({"since": since} if since else {})
        return self._call("GET", f"{self.settings.feature_url}/sources/{source}/rejected", params=params)

    def statistics(
        self, source: str, *, column: str | None = None, start: str | None = None, end: str | None = None
    ) -> Json:
        """Statistics of a source's columns, by day and merged, of the event days with start <= day < end."""
        params = {name: text for name, text in (("column", column), ("start", start), ("end", end)) if text}
        return self._call(
            "GET", f"{self.settings.feature_url}/sources/{source}/statistics", params=params, timeout=LONG
        )

    def features(self) -> list[Json]:
        """Every declared feature, with how fresh and how complete it is."""
        return list(self._call("GET", f"{self.settings.feature_url}/features", timeout=LONG)["features"])

    def entity(self, entity: str, key: str, *, detail: bool = False) -> Json:
        """The stored features of one entity; with `detail` each with its status, age, times and source."""
        params = {"detail": "true"} if detail else {}
        return self._call("GET", f"{self.settings.feature_url}/entities/{entity}/{quote(key, safe='')}", params=params)

    def explain(self, entity: str, key: str, *, at: str | None = None, as_of: str = "event") -> Json:
        """Why each feature of an entity is what it is: online now, or at a time by when rows were about or `known`."""
        params = {"as_of": as_of} | ({"at": at} if at else {})
        url = f"{self.settings.feature_url}/entities/{entity}/{quote(key, safe='')}/explain"
        return self._call("GET", url, params=params, timeout=LONG)

    def audit(self, model: str, since: str = "1h") -> Json:
        """Compare the features that predictions were served with since then with what was known at their times."""
        body = {"model": model, "since": since}
        return self._call("POST", f"{self.settings.feature_url}/audits", json=body, timeout=LONG)

    def forget(self, entity: str, key: str, *, by: str = "", reason: str = "") -> Json:
        """Erase all that is stored of an entity, and return the receipt."""
        url = f"{self.settings.feature_url}/entities/{entity}/{quote(key, safe='')}"
        return self._call("DELETE", url, params={"by": by, "reason": reason}, timeout=LONG)

    def rebuild(self, entity: str | None = None, *, seconds: float = LONG, progress: Progress | None = None) -> Json:
        """Restore the online store, of one entity or all, from history, and return when that is done.

        Raises:
            Conflict: where it cannot be done, or others do it.
            Unavailable: where it takes longer than `seconds`; it goes on.
        """
        state = self._call("POST", f"{self.settings.feature_url}/rebuild", json={"entity": entity})
        deadline = time.monotonic() + seconds
        while state["state"] == "running":
            if time.monotonic() > deadline:
                raise Unavailable(f"the online store is still being rebuilt after {seconds:.0f} s")
            time.sleep(0.05)
            state = self._call("GET", f"{self.settings.feature_url}/rebuild")
            if progress is not None:
                progress(state["rows"], state["total"])
        if state["state"] == "failed":
            raise Conflict(f"the online store is not rebuilt: {state['error']}")
        return state

    def training_frame(
        self,
        model: str | None = None,
        *,
        spine: str | Path | pd.DataFrame | None = None,
        features: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        time: str = "event_time",
        as_of: str = "event",
        start: str | None = None,
        end: str | None = None,
        detail: bool = False,
    ) -> pd.DataFrame:
        """Rows joined with the features that were visible at each row's time.

        Of a `model`: its labelled rows with start <= event time < end. Of a `spine`, a DataFrame or a CSV or Parquet
        file with join keys and a column `time`: all its rows and columns, with the features of `model`, or `features`
        such as `user.feature_1`, or plain names of `entities`.

        `as_of="known"` hides what had not been ingested by the row's time; `detail` adds `{feature}.status` columns.
        """
        import io

        import pandas as pd

        request: dict[str, Any]
        if spine is None:
            if model is None or features or entities:
                raise InvalidRequest("expected a model, or a spine with features")
            body = {"model": model, "start": start, "end": end, "as_of": as_of, "detail": detail}
            request = {"json": body}
        else:
            if start or end:
                raise InvalidRequest("start and end choose labelled rows of a model; a spine is taken whole")
            query = {"model": model, "features": features and ",".join(features), "time": time, "as_of": as_of}
            query |= {"entities": entities and ",".join(entities), "detail": str(detail).lower()}
            kind, content = _spine(spine)
            params = {name: value for name, value in query.items() if value}
            request = {"params": params, "headers": {"Content-Type": kind}, "content": content}
        response = self._send("POST", f"{self.settings.feature_url}/training-frames", timeout=LONG, **request)
        return pd.read_parquet(io.BytesIO(response.content))

    # --- training and registry

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

    def runs(self, model: str | None = None, limit: int = 20) -> list[Json]:
        """The newest runs, of one model or of all."""
        params = {"limit": str(limit)} | ({"model": model} if model else {})
        return list(self._call("GET", f"{self.settings.trainer_url}/runs", params=params)["runs"])

    def run(self, run_id: str) -> Json:
        """A run with all its metadata."""
        return self._call("GET", f"{self.settings.trainer_url}/runs/{run_id}")

    def models(self) -> list[Json]:
        """Every declared or trained model with its aliases and newest version."""
        return list(self._call("GET", f"{self.settings.trainer_url}/models")["models"])

    def model(self, name: str) -> Json:
        """A model with its versions, aliases and their history."""
        return self._call("GET", f"{self.settings.trainer_url}/models/{name}")

    def promote(self, model: str, version: int, *, alias: str = "champion", by: str = "", reason: str = "") -> Json:
        """Let `alias` name `version`; predictors serve the alias `champion`."""
        url = f"{self.settings.trainer_url}/models/{model}/aliases/{alias}"
        return self._call("PUT", url, json={"version": version, "by": by, "reason": reason})

    def rollback(self, model: str, *, by: str = "", reason: str = "") -> Json:
        """Let the champion be the version that it was before."""
        url = f"{self.settings.trainer_url}/models/{model}/rollback"
        return self._call("POST", url, json={"by": by, "reason": reason})

    # --- predictions and monitoring

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]] | None = None, /, **values: Any) -> Json:
        """Predict for one object given as keywords, or for a list of `instances`."""
        body = {"instances": list(instances)} if instances is not None else values
        return self._call("POST", f"{self.settings.predictor_url}/models/{model}/predict", json=body)

    def latency(self, model: str, window: str = "15m") -> Json:
        """Count, errors, mean and quantiles of a model's latency, in all and by version."""
        return self._call("GET", f"{self.settings.monitor_url}/models/{model}/latency", params={"window": window})

    def events(self, stream: str = "models", count: int = 20) -> list[Json]:
        """The newest events of a stream, newest first."""
        params = {"stream": stream, "count": str(count)}
        return list(self._call("GET", f"{self.settings.monitor_url}/events", params=params)["events"])

    def follow(self, stream: str = "models", count: int = 0) -> Iterator[Json]:
        """The newest `count` events of a stream, oldest first, then further ones as they come."""
        url = f"{self.settings.monitor_url}/events"
        params = {"stream": stream, "count": str(count)}
        headers = {"Accept": "text/event-stream"}
        timeout = httpx.Timeout(10.0, read=60.0)  # the monitor sends a heartbeat more often than that
        try:
            with self.http.stream("GET", url, params=params, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise _failure(response)
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        yield orjson.loads(line[5:])
        except httpx.TransportError as error:
            raise Unavailable(f"{url} did not answer: {error or type(error).__name__}") from None

    def ready(self) -> dict[str, Json]:
        """Service to its answer to `/readyz`, or to why it did not answer."""
        settings = self.settings
        answers: dict[str, Json] = {}
        for service in ("feature", "trainer", "predictor", "monitor"):
            url = getattr(settings, f"{service}_url")
            try:
                answers[service] = {"url": url, **self.http.get(f"{url}/readyz", timeout=2.0).json()}
            except (httpx.TransportError, ValueError) as error:
                answers[service] = {"url": url, "status": "down", "problems": {"http": str(error)}}
        return answers

    def _call(self, method: str, url: str, **request: Any) -> Json:
        answer: Json = self._send(method, url, **request).json()
        return answer

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        try:
            response = self.http.request(method, url, **request)
        except httpx.TransportError as error:
            raise Unavailable(f"{url} did not answer: {error or type(error).__name__}") from None
        if response.is_error:
            raise _failure(response)
        return response


def _failure(response: httpx.Response) -> RequestFailed:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):  # not one of our services
        problem = {"detail": f"HTTP status {response.status_code}: {response.text[:200]}"}
    return RequestFailed(response.status_code, problem)


def _spine(data: str | Path | pd.DataFrame) -> tuple[str, bytes]:
    """Content type and body of a spine."""
    if isinstance(data, str | Path):
        return _content(Path(data), (".csv", ".parquet"))
    return CONTENT_TYPES[".parquet"], data.to_parquet(index=False)


def _content(path: Path, suffixes: Collection[str]) -> tuple[str, bytes]:
    """Content type, by the suffix, and content of a file.

    Raises:
        InvalidRequest: for any other suffix, and for a file that cannot be read.
    """
    if path.suffix.lower() not in suffixes:
        raise InvalidRequest(f"file {path.name!r}: expected a name ending in {', '.join(suffixes)}")
    try:
        return CONTENT_TYPES[path.suffix.lower()], path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"file {str(path)!r} cannot be read: {error.strerror}") from None


def _pieces(body: bytes, progress: Progress | None) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        if progress is not None:
            progress(min(start + PIECE, len(body)), len(body))
