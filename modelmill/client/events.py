"""Calls of the monitor about events."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import orjson

from modelmill.client.transport import Json, Transport


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
