"""Calls about trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import orjson
import pytest

from modelmill import Client
from modelmill.client import training
from modelmill.errors import RequestFailed, Unavailable
from modelmill.settings import Settings


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "AGAIN", 0.0)


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    client = Client(Settings(trainer_url="http://trainer"))
    client.http = httpx.Client(transport=httpx.MockTransport(answer))
    return client


class Broken(httpx.SyncByteStream):
    """Two events, and then a connection that breaks."""

    def __iter__(self) -> Iterator[bytes]:
        yield b': following\n\nevent: state\ndata: {"status":"started"}\n\n'
        yield b'id: 7-0\nevent: log\ndata: {"text":"a: b"}\n\n'
        raise httpx.ReadError("connection reset")


END = b'id: 8-0\nevent: log\ndata: {"text":"c"}\n\nevent: end\ndata: {"status":"finished"}\n\n'


def test_a_jobs_events_go_on_where_a_connection_broke() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, stream=Broken()) if len(asked) == 1 else httpx.Response(200, content=END)

    events = list(client_of(answer).job_events("j"))
    assert [kind for kind, _ in events] == ["state", "log", "log", "end"]
    assert [content.get("text") for _, content in events] == [None, "a: b", "c", None]
    assert asked == [None, "7-0"]


def test_a_trainer_that_is_gone_is_not_waited_for() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable):
        list(client_of(answer).job_events("j"))


def test_no_place_for_a_listener_is_an_error() -> None:
    client = client_of(lambda _: httpx.Response(503, json={"detail": "all 2 places for listeners are taken"}))
    with pytest.raises(RequestFailed, match="all 2 places"):
        list(client.job_events("j"))


def test_a_training_is_asked_for_with_what_is_given() -> None:
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(orjson.loads(request.content))
        return httpx.Response(202, json={"job": "j"})

    client_of(answer).train("m", end="2026-01-01", by="me")
    client_of(answer).train("m")
    assert bodies == [{"end": "2026-01-01", "by": "me"}, {}]
