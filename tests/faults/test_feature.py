"""What the feature service acknowledged stays, once, however often it or Redis is killed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.feature.processes import Service

pytestmark = [pytest.mark.faults, pytest.mark.redis, pytest.mark.timeout(300)]

BATCH = 20
"""Rows of a request."""
MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"x": float})
"""
SLOW = """
@feature(user, dtype=float)
def double(row):
    import time
    time.sleep(0.001)  # so that a test can kill the service amid a backfill
    return row["x"] * 2
"""


class Sender(Thread):
    """Sends requests of `BATCH` rows, each about users of its own and each once, until `stop` is set."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.url = f"{service.server.url}/sources/users/rows"
        self.stop = Flag()
        self.acknowledged: list[int] = []
        """The numbers of the requests that were answered with 201."""
        self.refused: list[httpx.Response] = []
        """All other answers."""
        self.unanswered = 0

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            rows = [{"user_id": user, "x": float(number)} for user in users(number)]
            try:
                answer = httpx.post(self.url, json=rows, timeout=10)
            except httpx.TransportError:
                self.unanswered += 1
                self.stop.wait(0.02)
                continue
            if answer.status_code == 201:
                self.acknowledged.append(number)
            else:
                self.refused.append(answer)
                self.stop.wait(0.02)

    def until_acknowledged(self, more: int) -> None:
        """Wait until so many more requests are acknowledged."""
        enough = len(self.acknowledged) + more
        eventually(lambda: len(self.acknowledged) >= enough, within=30, saying=f"{more} more requests are acknowledged")

    def finish(self) -> None:
        self.stop.set()
        self.join(timeout=20)
        assert not self.is_alive()


def users(number: int) -> list[str]:
    """The users that a request is about."""
    return [f"{number}-{row}" for row in range(BATCH)]


@pytest.fixture
def service(real_redis: RedisServer, tmp_path: Path) -> Iterator[Service]:
    """The service in two worker processes, which takes in rows about users."""
    service = Service(tmp_path, real_redis, workers=2)
    service.mill.write_text(MILL)
    service.start()
    yield service
    service.server.stop()


@pytest.fixture
def sender(service: Service) -> Iterator[Sender]:
    sender = Sender(service)
    sender.start()
    yield sender
    sender.finish()


def online(service: Service, number: int) -> list[dict[str, Any] | None]:
    """What the service answers about the users of a request."""
    answer = httpx.post(f"{service.server.url}/entities/user/lookup", json={"keys": users(number)}, timeout=10)
    found: dict[str, dict[str, Any] | None] = answer.raise_for_status().json()["entities"]
    return [entity["features"] if entity else None for entity in found.values()]


def check_acknowledged_rows(service: Service, sender: Sender) -> None:
    """Each acknowledged row is in the history and online, no row is there twice, and no request is there in part."""
    stored = Counter(service.history("users")["user_id"].to_pylist())
    assert set(stored.values()) == {1}
    requests = Counter(int(user.partition("-")[0]) for user in stored)
    assert set(requests.values()) == {BATCH}
    assert set(sender.acknowledged) <= requests.keys()
    for number in sender.acknowledged:
        assert online(service, number) == [{"x": float(number)}] * BATCH


def begin_to_apply(service: Service) -> None:
    """Ask for the definitions file to be applied; the service is killed before it answers."""
    with suppress(httpx.TransportError):
        httpx.post(f"{service.server.url}/features", json={}, timeout=60)


def test_a_service_killed_again_and_again_keeps_each_acknowledged_row_once(service: Service, sender: Sender) -> None:
    for _ in range(6):
        sender.until_acknowledged(5)
        time.sleep(random.uniform(0, 0.1))
        service.server.kill()
        service.start()
    sender.until_acknowledged(5)
    sender.finish()
    assert sender.unanswered
    assert sender.refused == []
    check_acknowledged_rows(service, sender)


def test_a_redis_killed_again_and_again_loses_no_acknowledged_row(service: Service, sender: Sender) -> None:
    for _ in range(4):
        sender.until_acknowledged(5)
        time.sleep(random.uniform(0, 0.1))
        before = len(sender.refused)
        service.redis.stop(kill=True)
        eventually(lambda n=before: len(sender.refused) > n + 5, within=30, saying="requests are refused")  # type: ignore[misc]
        assert httpx.get(f"{service.server.url}/livez").status_code == 200
        service.redis.start()  # from its append-only file
    sender.until_acknowledged(20)
    sender.finish()
    assert {(answer.status_code, answer.headers.get("Retry-After")) for answer in sender.refused} == {(503, "1")}
    assert sender.unanswered == 0
    check_acknowledged_rows(service, sender)


def computed(service: Service) -> int:
    """How many rows of the history hold the derived feature."""
    rows = service.history("users")
    [double] = [name for name in rows.column_names if name.startswith("double@")]
    return int(rows.num_rows - rows[double].null_count)


def in_force(service: Service) -> bool:
    with service.client() as client:
        return "double" in {feature["name"] for feature in client.features()}


def test_a_backfill_that_is_killed_is_completed_by_the_next_start(service: Service, sender: Sender) -> None:
    sender.until_acknowledged(60)
    sender.finish()
    service.mill.write_text(MILL + SLOW)
    apply = Thread(target=begin_to_apply, args=[service], daemon=True)
    apply.start()
    for _ in range(2):  # amid the one that was asked for, then amid the one that the start makes
        before = computed(service)
        eventually(lambda n=before: computed(service) > n, within=60, saying="the backfill goes on")  # type: ignore[misc]
        service.server.kill()
        assert 0 < computed(service) < service.history("users").num_rows
        service.server.start()
    apply.join(timeout=10)
    service.server.until_ready(within=60)
    eventually(lambda: in_force(service), within=60, saying="the feature is in force")
    rows = service.history("users").to_pylist()
    assert [row[double] for row in rows for double in row if double.startswith("double@")] == [
        2 * row["x"] for row in rows
    ]
    assert len(rows) == BATCH * len(sender.acknowledged)
    for number in sender.acknowledged:
        assert online(service, number) == [{"x": float(number), "double": 2.0 * number}] * BATCH
