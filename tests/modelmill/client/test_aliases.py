"""What calls about aliases, tags, notes and pruning send."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from modelmill import Client
from modelmill.errors import RequestFailed
from modelmill.settings import Settings

Sent = list[tuple[str, str, Any]]


@pytest.fixture
def sent() -> Sent:
    """Method, path with query, and body of each request."""
    return []


@pytest.fixture
def client(sent: Sent) -> Client:
    def answer(request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content) if request.content else None
        sent.append((request.method, request.url.raw_path.decode(), body))
        if body and body.get("expected") == 2:
            return httpx.Response(409, json={"detail": "alias 'champion' of 'm' names version 3", "present": 3})
        return httpx.Response(200, json={"history": []})

    client = Client(Settings(trainer_url="http://trainer"))
    client.http = httpx.Client(transport=httpx.MockTransport(answer))
    return client


def test_a_promotion_says_what_it_expects_only_if_asked(client: Client, sent: Sent) -> None:
    client.promote("m", 3)
    client.promote("m", 3, alias="stable", expected=0, force=True, reason="why", by="ada")
    plain = {"version": 3, "by": "", "reason": "", "force": False}
    assert sent == [
        ("PUT", "/models/m/aliases/champion", plain),
        ("PUT", "/models/m/aliases/stable", {**plain, "by": "ada", "reason": "why", "force": True, "expected": 0}),
    ]


def test_a_conflict_carries_the_present_version(client: Client) -> None:
    with pytest.raises(RequestFailed) as refused:
        client.promote("m", 3, expected=2)
    assert (refused.value.http_status, refused.value.document["present"]) == (409, 3)


def test_rollback_deletion_and_history_name_their_alias(client: Client, sent: Sent) -> None:
    client.rollback("m", to=1)
    client.delete_alias("m", "stable", by="ada", expected=3)
    client.history("m", "stable", limit=5)
    body = {"alias": "champion", "by": "", "reason": "", "force": False, "to": 1}
    assert sent == [
        ("POST", "/models/m/rollback", body),
        ("DELETE", "/models/m/aliases/stable?by=ada&reason=&expected=3", None),
        ("GET", "/models/m/history?limit=5&alias=stable", None),
    ]


def test_tags_and_notes_are_of_a_version_or_a_run(client: Client, sent: Sent) -> None:
    client.tag("m@3", {"stage": "reviewed", "old": None})
    client.note("20261125T185459-46c873", "good", by="ada")
    assert sent == [
        ("PATCH", "/models/m/versions/3/tags", {"stage": "reviewed", "old": None}),
        ("POST", "/runs/20261125T185459-46c873/notes", {"text": "good", "by": "ada"}),
    ]
