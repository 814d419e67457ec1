"""Calls of the feature service: definitions, rows in, features and what is known of them out."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modelmill.client.transport import LONG, Json, Progress, Transport, url_of
from modelmill.errors import Conflict, InvalidRequest, Unavailable

if TYPE_CHECKING:
    import pandas as pd


class FeatureCalls(Transport):
    """What the feature service does."""

    def apply(
        self,
        fingerprint: str | None = None,
        *,
        versions: Mapping[str, str] | None = None,
        dry_run: bool = False,
        seconds: float = LONG,
        progress: Progress | None = None,
    ) -> Json:
        """Apply the definitions file of the feature service, or with `dry_run` say what would change.

        `versions` are those of its functions as another process has found them; one that differs is refused.

        Returns when it is in force; `progress` is called with the rows that are computed so far and in all.

        Raises:
            Conflict: where it cannot be put in force.
            Unavailable: where that takes longer than `seconds`; it goes on.
        """
        body = {"fingerprint": fingerprint, "versions": versions, "dry_run": dry_run}
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

        With an `idempotency_key` it may be sent again when the answer was lost: it takes effect once. Other data under
        the same key is refused.
        """
        if isinstance(data, str | Path):
            kind, body = of_file(Path(data), CONTENT_TYPES)
        elif isinstance(data, Sequence):
            kind, body = CONTENT_TYPES[".json"], orjson.dumps(list(data))
        else:
            kind, body = CONTENT_TYPES[".parquet"], data.to_parquet(index=False)
        return self._call(
            "POST",
            url_of(self.settings.feature_url, "sources", source, "rows"),
            params={"on_error": on_error},
            headers={"Content-Type": kind, "Content-Length": str(len(body))}
            | ({} if idempotency_key is None else {"Idempotency-Key": idempotency_key}),
            content=pieces(body, progress),
            timeout=LONG,
        )

    def rejected(self, source: str, *, count: int = 100, since: str | None = None) -> Json:
        """The newest rows of a source that were rejected while others were kept, and how many there were ever."""
        params = {"count": str(count)} | ({"since": since} if since else {})
        return self._call("GET", url_of(self.settings.feature_url, "sources", source, "rejected"), params=params)

    def statistics(
        self, source: str, *, column: str | None = None, start: str | None = None, end: str | None = None
    ) -> Json:
        """Statistics of a source's columns, by day and merged, of the event days with start <= day < end."""
        params = {name: text for name, text in (("column", column), ("start", start), ("end", end)) if text}
        return self._call(
            "GET", url_of(self.settings.feature_url, "sources", source, "statistics"), params=params, timeout=LONG
        )

    def features(self) -> list[Json]:
        """Every declared feature, with how fresh and how complete it is."""
        return list(self._call("GET", f"{self.settings.feature_url}/features", timeout=LONG)["features"])

    def entity(self, entity: str, key: str, *, detail: bool = False) -> Json:
        """The stored features of one entity; with `detail` each with its status, age, times and source."""
        params = {"key": key} | ({"detail": "true"} if detail else {})
        return self._call("GET", url_of(self.settings.feature_url, "entities", entity), params=params)

    def explain(self, entity: str, key: str, *, at: str | None = None, as_of: str = "event") -> Json:
        """Why each feature of an entity is what it is: online now, or at a time by when rows were about or `known`."""
        params = {"key": key, "as_of": as_of} | ({"at": at} if at else {})
        url = url_of(self.settings.feature_url, "entities", entity, "explain")
        return self._call("GET", url, params=params, timeout=LONG)

    def audit(self, model: str, since: str = "1h") -> Json:
        """Compare the features that predictions were served with since then with what was known at their times."""
        body = {"model": model, "since": since}
        return self._call("POST", f"{self.settings.feature_url}/audits", json=body, timeout=LONG)

    def forget(self, entity: str, key: str, *, by: str = "", reason: str = "") -> Json:
        """Erase all that is stored of an entity, and return the receipt."""
        url = url_of(self.settings.feature_url, "entities", entity)
        return self._call("DELETE", url, params={"key": key, "by": by, "reason": reason}, timeout=LONG)

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

        import pyarrow.parquet as pq

        from modelmill.columns.types import to_pandas

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
        return to_pandas(pq.read_table(io.BytesIO(response.content)))


def _spine(data: str | Path | pd.DataFrame) -> tuple[str, bytes]:
    """Content type and body of a spine."""
    if isinstance(data, str | Path):
        return of_file(Path(data), (".csv", ".parquet"))
    return CONTENT_TYPES[".parquet"], data.to_parquet(index=False)


# --- what an upload carries: its content type and its bytes, a piece at a time

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


def of_file(path: Path, suffixes: Collection[str]) -> tuple[str, bytes]:
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


def pieces(body: bytes, progress: Progress | None) -> Iterator[bytes]:
    """`body` in pieces, with `progress` called after each."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        if progress is not None:
            progress(min(start + PIECE, len(body)), len(body))
