"""A job's journal as server-sent events, live and again afterwards.

`state` is the job as `GET /jobs/{id}` shows it, first of all and whenever its status or place changes; `stage`, `log`
and `again` are the journal's entries; `end` is the job once it has ended, and the last of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson

from modelmill.errors import InvalidRequest, UnknownName
from modelmill.state.connections import AWAY
from services.trainer.jobs.journal import Journal, readable
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import ENDED_NAMES, JobView

HEARTBEAT = 2.0
"""Seconds after which a silent stream says that it is still there; a client that left is noticed by that."""
LIFETIME = 600.0
"""Seconds after which a listener is asked to connect again, so that no thread is taken for ever."""
WAIT = 1.0
"""Seconds that one read waits for entries; it must be below the time limit of a Redis call."""
POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def follow(queue: TrainingQueue, job: str, position: str | None, *, wait: float = WAIT) -> Iterator[str]:
    """The events of `job` after `position`, the id of one, or from its begin.

    Raises:
        InvalidRequest: for a position that is no id of an event.
        UnknownName: for a job that does not exist.
    """
    if position is not None and not POSITION.fullmatch(position):
        raise InvalidRequest(f"Last-Event-ID is {position!r}; expected the id of an event, such as 1795477628000-0")
    return _follow(queue, queue.job(job), position or "0-0", wait)


def _follow(queue: TrainingQueue, view: JobView, position: str, wait: float) -> Iterator[str]:
    journal, deadline, shown, closed = Journal(queue.redis, view.job), time.monotonic() + LIFETIME, None, False
    spoken = time.monotonic()
    again: dict[str, str] | None = None  # told by the attempt itself, before its worker has taken in its last lines
    yield ": following\n\n"
    try:
        while time.monotonic() < deadline:
            if (state := (view.status, view.position, view.attempt)) != shown:
                yield server_sent("state", asdict(view))
                shown, spoken = state, time.monotonic()
            found = queue.redis.xread({journal.key: position}, count=1000, block=max(1, int(wait * 1000)))
            entries = found[0][1] if found else []
            for number, fields in entries:
                position, entry = number.decode(), readable(fields)
                kind = entry.pop("kind")
                closed = kind == "closed"
                if again and kind in ("closed", "stage"):
                    yield server_sent("again", again, position)
                    again = None
                if kind == "again":
                    again = entry
                elif kind not in ("closed", "end"):
                    yield server_sent(kind, entry, position)
                    spoken = time.monotonic()
            if again and not entries:
                yield server_sent("again", again, position)
                again = None
            view = queue.job(view.job)
            if view.status in ENDED_NAMES and (closed or not entries):
                yield server_sent("end", asdict(view))
                return
            if time.monotonic() - spoken > HEARTBEAT:
                yield ": still there\n\n"
                spoken = time.monotonic()
    except (*AWAY, UnknownName):
        return  # the client connects again, or is told that there is no such job any more


def server_sent(kind: str, content: Any, position: str = "") -> str:
    """One event; what it holds is one line of JSON."""
    number = f"id: {position}\n" if position else ""
    return f"{number}event: {kind}\ndata: {orjson.dumps(content).decode()}\n\n"
