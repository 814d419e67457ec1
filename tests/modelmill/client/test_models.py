"""Where the client asks for a card."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from modelmill import Client
from modelmill.errors import RequestFailed
from modelmill.settings import Settings


def client(*, status: int = 200) -> tuple[Client, list[str]]:
    """A client of a trainer that answers every call with its address."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, text="<!doctype html>", headers={"Content-Type": "text/html; charset=utf-8"})

    found = Client(Settings(trainer_url="http://trainer"))
    found.http = httpx.Client(transport=httpx.MockTransport(answer))
    return found, asked


@pytest.mark.parametrize(
    "which, url",
    [
        ({"model": "m"}, "http://trainer/models/m/card?alias=champion"),
        ({"model": "m", "alias": "challenger"}, "http://trainer/models/m/card?alias=challenger"),
        ({"model": "m", "version": 3}, "http://trainer/models/m/versions/3/card"),
        ({"run": "r1"}, "http://trainer/runs/r1/card"),
    ],
)
def test_a_card_is_asked_for_by_what_it_is_of(which: dict[str, Any], url: str) -> None:
    trainer, asked = client()
    assert trainer.card(**which) == "<!doctype html>"
    assert asked == [url]


def test_a_card_that_is_not_there_is_an_error() -> None:
    trainer, _ = client(status=404)
    with pytest.raises(RequestFailed):
        trainer.card("m")
