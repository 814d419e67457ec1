"""A request that is sent again: nothing is taken twice, and nothing is called a duplicate that is not stored."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelmill.state import bus, keys
from modelmill.storage import Storage
from services.feature.intake import quarantine
from services.feature.proof.forget import forget
from services.feature.store import journal
from services.feature.upkeep import rebuild
from services.feature.upkeep.compaction import compact
from services.feature.upkeep.rebuild import recover
from services.feature.upkeep.statistics import StatisticsFiles
from tests.conftest import RedisServer
from tests.feature.conftest import OpenRoom, Room, json_rows
from tests.feature.processes import Service

MILL = """
from modelmill import Aggregate, Entity, Source
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
users = Source("users", entity=user, event_time="at", columns={"x": int})
sales = Source("sales", entities=[user, item], event_time="at", columns={"x": int})
plain = Source("plain", entity=item, columns={"y": int})
Aggregate(users, None, "count", window="1d", hop="1h", name="rows")
"""
AT = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
KEY = {"Idempotency-Key": "k"}


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def row(user: str, x: int = 1, item: str | None = None) -> dict[str, Any]:
    return {"user_id": user, "at": AT, "x": x} | ({} if item is None else {"item_id": item})


def send(room: Room, *rows: dict[str, Any], source: str = "users", headers: Any = None, query: str = "") -> Any:
    url = f"/sources/{source}/rows{query}"
    return room.http.post(url, data=json_rows(*rows), content_type="application/json", headers=headers)


def taken(answer: Any) -> tuple[int, int]:
    """Accepted and duplicate rows."""
    body = answer.get_json()
    return body["accepted"], body["duplicate"]


def forget_user(room: Room, key: str) -> None:
    forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", key)


@pytest.mark.parametrize("headers", [None, KEY])
def test_what_was_forgotten_is_taken_again_and_nothing_else(headers: Any, room: Room) -> None:
    rows = [row("u", 1), row("v", 2), row("u", 3)]
    assert taken(send(room, *rows, headers=headers)) == (3, 0)
    forget_user(room, "u")
    assert taken(send(room, *rows, headers=headers)) == (2, 1)
    assert taken(send(room, *rows, headers=headers)) == (0, 3)
    assert sorted(room.history("users")["x"].to_pylist()) == [1, 2, 3]
    assert room.online("user", "u")["x"] == "3"


def test_a_request_of_which_all_was_forgotten_is_taken_again(room: Room) -> None:
    send(room, row("u"))
    forget_user(room, "u")
    assert taken(send(room, row("u"))) == (1, 0)


def test_what_was_forgotten_twice_is_taken_a_third_time(room: Room) -> None:
    for _ in range(3):
        assert taken(send(room, row("u"), row("v"))) in ((2, 0), (1, 1))
        forget_user(room, "u")
    assert room.history("users")["user_id"].to_pylist() == ["v"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def die(*_: Any, **__: Any) -> None:
    raise Killed


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3)),
        st.tuples(st.just("forget"), st.sampled_from("uvw")),
        st.tuples(st.sampled_from(["compact", "rebuild", "recover"]), st.none()),
    ),
    max_size=12,
)
BODIES = [
    ("users", [row("u", 1), row("v", 2), row("u", 3)]),
    ("users", [row("v", 4)]),
    ("sales", [row("u", 5, "i"), row("v", 6, "u"), row("w", 7, "i"), row("u", 8, "j")]),
    ("users", [row("w", 9), row("u", 10)]),
]


@given(steps=STEPS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_history_and_tiles_hold_each_row_once_whatever_is_forgotten_and_sent_again(
    steps: list[tuple[str, Any]], room: Room
) -> None:
    catalogue = room.catalogue
    catalogue.storage = Storage(f"memory://{uuid4().hex}")
    catalogue.redis.flushall()
    catalogue.apply()
    stored: set[int] = set()
    for step, what in steps:
        if step == "send":
            source, rows = BODIES[what]
            new = {one["x"] for one in rows} - stored
            done = room.ingest(source, rows, digest=f"body {what}")
            assert (done.accepted, done.duplicate) == (len(new), len(rows) - len(new))
            stored |= new
        elif step == "forget":
            forget_user(room, what)
            stored -= {one["x"] for _, rows in BODIES for one in rows if one["user_id"] == what}
        elif step == "compact":
            compact(catalogue, "users", fewest=2)
        elif step == "rebuild":
            rebuild._record_begin(catalogue.redis, "")
            rebuild.rebuild(catalogue)
        else:
            recover(catalogue, older_than=-1)
    found = [x for source in ("users", "sales") for x in room.history(source)["x"].to_pylist()]
    assert sorted(found) == sorted(stored)
    counts = Counter(
        one["user_id"] for source, rows in BODIES for one in rows if source == "users" and one["x"] in stored
    )
    looked_up = room.http.post("/entities/user/lookup", json={"keys": list("uvw")}).get_json()["entities"]
    assert {key: looked_up[key]["features"]["rows"] for key in counts} == counts


OTHERS: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    "another body": ("users", [row("v")], ""),
    "the same rows in another order": ("users", [row("v"), row("u")], ""),
    "another parameter": ("users", [row("u"), row("v")], "?on_error=skip"),
}


@pytest.mark.parametrize(("source", "rows", "query"), OTHERS.values(), ids=OTHERS)
def test_another_request_under_the_same_key_is_refused(
    source: str, rows: list[dict[str, Any]], query: str, room: Room
) -> None:
    send(room, row("u"), row("v"), headers=KEY)
    answer = send(room, *rows, source=source, query=query, headers=KEY)
    assert answer.status_code == 422
    assert "for a request to 'users' with another body, content type or on_error" in answer.get_json()["detail"]
    assert room.history("users").num_rows == 2


def test_another_content_type_under_the_same_key_is_refused(room: Room) -> None:
    send(room, row("u"), headers=KEY)
    kind = "application/x-ndjson"
    answer = room.http.post("/sources/users/rows", data=json_rows(row("u")), content_type=kind, headers=KEY)
    assert answer.status_code in (400, 422)


def test_a_key_is_one_source_s(room: Room) -> None:
    assert taken(send(room, row("u"), headers=KEY)) == (1, 0)
    assert taken(send(room, row("u", item="i"), source="sales", headers=KEY)) == (1, 0)


def test_a_key_whose_request_was_refused_is_free_for_the_mended_one(room: Room) -> None:
    assert send(room, row("u", x="much"), headers=KEY).status_code == 422  # type: ignore[arg-type]
    assert taken(send(room, row("u"), headers=KEY)) == (1, 0)


def test_an_empty_key_is_refused(room: Room) -> None:
    answer = send(room, {"item_id": "i", "y": 1}, source="plain", headers={"Idempotency-Key": " "})
    assert (answer.status_code, "Idempotency-Key is empty" in answer.get_json()["detail"]) == (422, True)


def test_rejected_rows_are_quarantined_once_though_the_service_was_killed_before(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("u"), row("v", x="much")]  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(quarantine, "keep", die)
        with pytest.raises(Killed):
            room.ingest("users", rows, digest="a", skip_bad=True)
    for _ in range(2):
        room.ingest("users", rows, digest="a", skip_bad=True)
    assert (room.redis.xlen("rejected:users"), room.redis.get("rejected:users:total")) == (1, "1")


def test_of_those_who_finish_a_request_one_says_accepted(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two senders of one request, the second of which overtakes the first at any of its steps."""
    answers = []
    finish = journal.finish

    def overtaken(*given: Any) -> bool:
        monkeypatch.setattr(journal, "finish", finish)
        answers.append(room.ingest("users", [row("u"), row("v", x="much")], digest="a", skip_bad=True))  # type: ignore[arg-type]
        return finish(*given)

    monkeypatch.setattr(journal, "finish", overtaken)
    answers.append(room.ingest("users", [row("u"), row("v", x="much")], digest="a", skip_bad=True))  # type: ignore[arg-type]
    assert sorted((done.accepted, done.duplicate) for done in answers) == [(0, 1), (1, 0)]
    assert len(bus.newest(room.redis, keys.EVENTS_FEATURES, 10)) == 2  # the definitions, and one ingest
    assert room.redis.xlen("rejected:users") == 1


@pytest.fixture
def service(real_redis: RedisServer, tmp_path: Path) -> Iterator[Service]:
    """Two worker processes."""
    (tmp_path / "mill.py").write_text(MILL)
    service = Service(tmp_path, real_redis, workers=2)
    service.start()
    yield service
    service.server.stop()


@pytest.mark.redis
def test_of_identical_requests_at_once_one_says_accepted(service: Service) -> None:
    barrier = threading.Barrier(8)

    def post(number: int) -> tuple[int, int]:
        barrier.wait()
        url = f"{service.server.url}/sources/users/rows"
        kind = {"Content-Type": "application/json"}
        body = httpx.post(url, content=json_rows(row("u", number)), headers=kind, timeout=30).json()
        return body["accepted"], body["duplicate"]

    with ThreadPoolExecutor(8) as pool:
        for number in range(6):
            answers = list(pool.map(post, [number] * 8))
            assert Counter(answers) == {(1, 0): 1, (0, 1): 7}
    assert service.history("users").num_rows == 6
    events = service.redis.client().xrange(keys.EVENTS_FEATURES)
    assert sum(fields["type"] == "rows.ingested" for _, fields in events) == 6
