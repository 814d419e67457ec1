"""What the client asks the trainer about repetitions and lineage."""

from __future__ import annotations

import httpx
import pytest

from modelmill import Client
from modelmill.errors import Conflict
from modelmill.settings import Settings

Asked = list[tuple[str, str]]
REPORTS = [{"job": "j2", "equal": True}, {"job": "j1", "equal": False}]


@pytest.fixture
def asked() -> Asked:
    return []


def client(asked: Asked, status: str = "finished", error: str = "") -> Client:
    """A client of a trainer that has ended its job j1 already."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.raw_path.decode()))
        job = {"job": "j1", "status": status, "error": error}
        return httpx.Response(200, json={**job, "reproductions": REPORTS})

    made = Client(Settings(trainer_url="http://trainer"))
    made.http = httpx.Client(transport=httpx.MockTransport(answer))
    return made


def test_a_repetition_is_asked_for_awaited_and_its_own_report_returned(asked: Asked) -> None:
    assert client(asked).reproduce("r", by="ann") == {"job": "j1", "equal": False}
    assert asked == [("POST", "/runs/r/reproduce"), ("GET", "/jobs/j1"), ("GET", "/runs/r/reproductions")]


def test_a_repetition_that_failed_says_why(asked: Asked) -> None:
    with pytest.raises(Conflict, match="job j1 failed: the code of run r is kept no more"):
        client(asked, "failed", "the code of run r is kept no more").reproduce("r")


def test_one_need_not_wait_for_it(asked: Asked) -> None:
    assert client(asked, "queued").reproduce("r", wait=False)["job"] == "j1"
    assert asked == [("POST", "/runs/r/reproduce")]


def test_lineage_is_asked_for_by_name(asked: Asked) -> None:
    client(asked).lineage("user_target@7")
    client(asked).lineage("a/b")
    client(asked).source_lineage("users")
    assert asked == [("GET", "/lineage/user_target@7"), ("GET", "/lineage/a%2Fb"), ("GET", "/lineage/sources/users")]
