"""What the client asks the trainer about triggers and past days."""

from __future__ import annotations

import httpx
import orjson
import pytest

from modelmill import Client
from modelmill.errors import Unavailable
from modelmill.settings import Settings

Asked = list[httpx.Request]


@pytest.fixture
def asked() -> Asked:
    return []


@pytest.fixture
def client(asked: Asked) -> Client:
    """A client of a trainer whose third answer is that it is done."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        status, counts = ("done", {"succeeded": 3}) if len(asked) > 2 else ("running", {"succeeded": 1, "waiting": 2})
        return httpx.Response(200, json={"status": status, "total": 3, "counts": counts, "schedules": []})

    client = Client(Settings(trainer_url="http://trainer"))
    client.http = httpx.Client(transport=httpx.MockTransport(answer))
    return client


def test_training_as_of_past_days_is_asked_for_and_waited_for(client: Client, asked: Asked) -> None:
    done = client.backfill("m", start="2013-02-01", end="2013-12-01", step="month", by="ann", wait=True)
    assert done["status"] == "done"
    assert [(request.method, str(request.url)) for request in asked] == [
        ("POST", "http://trainer/models/m/backfill"),
        *[("GET", "http://trainer/models/m/backfill")] * 2,
    ]
    assert orjson.loads(asked[0].content) == {
        "from": "2013-02-01", "to": "2013-12-01", "step": "month", "again": False, "by": "ann",
    }  # fmt: skip


def test_waiting_tells_how_many_have_ended_and_has_a_limit(client: Client) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(Unavailable, match="'m' is still being trained as of past days after 0 s"):
        client.wait_for_backfill("m", seconds=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3)]


def test_it_can_be_cancelled_and_triggers_are_listed(client: Client, asked: Asked) -> None:
    client.cancel_backfill("m")
    assert client.schedules() == []
    assert [(request.method, request.url.path) for request in asked] == [
        ("DELETE", "/models/m/backfill"), ("GET", "/schedules"),
    ]  # fmt: skip
