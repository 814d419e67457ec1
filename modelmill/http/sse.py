"""Server-sent events: how they are written, and streams of them that take no thread for ever."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from threading import BoundedSemaphore
from typing import Any

import orjson
from flask import Response, request

from modelmill.errors import InvalidRequest, Unavailable
from modelmill.state.connections import AWAY

EVENT_STREAM = "text/event-stream"
HEARTBEAT_SECONDS = 2.0
"""After which a silent stream says that it is still there; a client that left is noticed by that."""
LIFETIME_SECONDS = 600.0
"""After which a listener is asked to connect again, so that no thread is taken for ever."""
POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def event(kind: str, content: Any, position: str = "") -> str:
    """One event, which a listener can go on after where it has a position; its content is one line of JSON."""
    number = f"id: {position}\n" if position else ""
    return f"{number}event: {kind}\ndata: {orjson.dumps(content).decode()}\n\n"


def require_position(position: str | None) -> None:
    """Raise `InvalidRequest` for a position to go on after that is no id of an event."""
    if position is not None and not POSITION.fullmatch(position):
        raise InvalidRequest(f"Last-Event-ID is {position!r}; expected the id of an event, such as 1795477628000-0")


def stream(turns: Iterable[list[str]]) -> Iterator[str]:
    """The events of each turn, of which there may be none; between them, that a silent stream is still there.

    It ends with the turns, after `LIFETIME_SECONDS`, and when Redis is away; the client connects again.
    """
    yield ": following\n\n"
    spoke = began = time.monotonic()
    remaining = iter(turns)
    while time.monotonic() - began < LIFETIME_SECONDS:
        try:
            events = next(remaining, None)
        except AWAY:
            return
        if events is None:
            return
        yield from events
        if events:
            spoke = time.monotonic()
        elif time.monotonic() - spoke > HEARTBEAT_SECONDS:
            yield ": still here\n\n"
            spoke = time.monotonic()


class Listeners:
    """Answers listeners, as many at once as leave two of a server's threads for everybody else."""

    def __init__(self, threads: int) -> None:
        self.most = max(0, threads - 2)
        self._places = BoundedSemaphore(self.most)

    def answer(self, follow: Callable[[str | None], Iterator[str]]) -> Response:
        """The stream that `follow` makes of the id of the event that the listener heard last.

        Raises:
            Unavailable: where all places are taken.
        """
        if not self._places.acquire(blocking=False):
            raise Unavailable(f"all {self.most} places for listeners are taken; raise MODELMILL_THREADS")
        try:
            events = follow(request.headers.get("Last-Event-ID"))
        except BaseException:
            self._places.release()
            raise
        response = Response(events, content_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})
        response.call_on_close(self._places.release)
        return response
