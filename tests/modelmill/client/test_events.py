"""What following events yields, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from modelmill import Client
from modelmill.errors import RequestFailed, Unavailable
from modelmill.settings import Settings


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    client = Client(Settings(monitor_url="http://monitor"))
    client.http = httpx.Client(transport=httpx.MockTransport(answer))
    return client


class Feed(httpx.SyncByteStream):
    """A heartbeat, two events, and then a connection that breaks; notes when it is closed."""

    closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b': heartbeat\n\nid: 1\ndata: {"type":"a"}\n\ndata: {"type"'
        yield b':"b"}\n\n'
        raise httpx.ReadError("connection reset")

    def close(self) -> None:
        self.closed = True


def test_events_come_one_by_one_until_the_connection_breaks() -> None:
    feed, asked = Feed(), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, stream=feed)

    events = client_of(answer).follow("features", 2)
    assert [next(events), next(events)] == [{"type": "a"}, {"type": "b"}]
    assert asked == ["http://monitor/events?stream=features&count=2"]
    with pytest.raises(Unavailable, match="http://monitor/events did not answer: connection reset"):
        next(events)
    assert feed.closed


def test_who_stops_following_closes_the_connection() -> None:
    feed = Feed()
    events = client_of(lambda _: httpx.Response(200, stream=feed)).follow()
    next(events)
    events.close()
    assert feed.closed


def test_an_error_of_the_monitor_is_raised_as_it_says() -> None:
    client = client_of(lambda _: httpx.Response(404, json={"detail": "stream 'x' is not known"}))
    with pytest.raises(RequestFailed, match="stream 'x' is not known"):
        next(client.follow("x"))
