"""Calls of the predictor, and of the monitor about its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import orjson

from modelmill.client.transport import Json, Transport, url_of


class PredictionCalls(Transport):
    """What models answer, and how fast."""

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]] | None = None, /, **values: Any) -> Json:
        """Predict for one object given as keywords, or for a list of `instances`."""
        body = {"instances": list(instances)} if instances is not None else values
        return self._call("POST", url_of(self.settings.predictor_url, "models", model, "predict"), json=body)

    def latency(self, model: str, window: str = "15m") -> Json:
        """Count, errors, mean and quantiles of a model's latency, in all and by version."""
        return self._call(
            "GET", url_of(self.settings.monitor_url, "models", model, "latency"), params={"window": window}
        )


# --- calls of the monitor about events


class EventCalls(Transport):
    """What has happened, and what happens."""

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
        with self._stream("GET", url, params=params, headers=headers, timeout=timeout) as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield orjson.loads(line[5:])
