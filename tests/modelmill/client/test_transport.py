"""How calls go to a service: no name that a caller gives reaches out of its place in the URL."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelmill import Client
from modelmill.errors import RequestFailed
from modelmill.settings import Settings

NAMES = {"model", "run_id", "job_id", "run", "alias", "of", "source", "entity", "name", "key", "version"}
"""Parameters of the client's calls that a path may name."""
LOCAL = {"ready", "wait", "run", "reproduction", "export_runs", "register", "training_frame", "backfill"}
"""Methods that only call others, or name nothing in a path that a caller gives as text."""
CALLS = [
    name
    for name, method in inspect.getmembers(Client, inspect.isfunction)
    if not name.startswith("_") and name not in LOCAL and NAMES & set(inspect.signature(method).parameters)
]
AWKWARD = ["name", "..", ".", "../../models/m", "a/b", "a?b", "a#b", "a%2Fb", " ", "ü"]


def client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    found = Client(Settings())
    found.http = httpx.Client(transport=httpx.MockTransport(answer))
    return found


def arguments(method: Callable[..., Any], value: str, folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """What to call a method with, where every name is `value`."""
    given = dict.fromkeys(NAMES, value) | {
        "data": [], "tags": {}, "text": "", "start": "", "end": "", "to": folder / "new"
    }  # fmt: skip
    parameters = list(inspect.signature(method).parameters.values())
    wanted = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    options = {p.name: value for p in parameters if p.name in NAMES and p.default is not p.empty}
    named = {p.name: given[p.name] for p in wanted if p.kind is p.KEYWORD_ONLY}
    return [given[p.name] for p in wanted if p.kind is not p.KEYWORD_ONLY], named | options


@pytest.mark.parametrize("call", CALLS)
def test_a_name_stays_one_segment_of_the_path(call: str, tmp_path: Path) -> None:
    slashes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        slashes.append(request.url.raw_path.partition(b"?")[0].count(b"/"))
        return httpx.Response(404, json={"detail": "no"})

    method = getattr(client(answer), call)
    for name in AWKWARD:
        positional, named = arguments(method, name, tmp_path)
        with pytest.raises(RequestFailed):
            list(method(*positional, **named))  # of one that yields, too
    assert (len(slashes), len(set(slashes))) == (len(AWKWARD), 1)


def test_a_redirect_is_an_error_and_not_followed() -> None:
    moved = client(lambda _: httpx.Response(308, headers={"Location": "/jobs"}, text="<html>"))
    with pytest.raises(RequestFailed, match="HTTP status 308: <html>"):
        moved.jobs()


def test_an_answer_that_is_not_json_is_an_error_that_shows_it() -> None:
    with pytest.raises(RequestFailed, match="HTTP status 200: <html>"):
        client(lambda _: httpx.Response(200, text="<html>")).jobs()


def answering(*statuses: int) -> Client:
    """A client whose calls are answered with these statuses, one after the other."""
    left = iter(statuses)

    def answer(request: httpx.Request) -> httpx.Response:
        if (status := next(left)) == 0:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, json={"detail": f"{status}", "jobs": []})

    return client(answer)


def test_a_service_that_is_not_ready_is_waited_for() -> None:
    waiting = answering(0, 503, 200)
    assert waiting.when_ready(waiting.jobs) == []


def test_what_a_ready_service_refuses_is_not_asked_again() -> None:
    waiting = answering(404)
    with pytest.raises(RequestFailed, match="404"):
        waiting.when_ready(waiting.jobs)


def test_a_wait_for_a_service_ends_with_what_it_answered_last() -> None:
    waiting = answering(503)
    with pytest.raises(RequestFailed, match="503"):
        waiting.when_ready(waiting.jobs, seconds=0)
