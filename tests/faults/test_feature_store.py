"""Online and offline agree to the bit, whatever is killed, sent again, or written by several services at once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.feature.processes import Service

pytestmark = [pytest.mark.faults, pytest.mark.redis, pytest.mark.timeout(300)]

USERS = [f"u{number}" for number in range(7)]
BATCH = 5
"""Rows of a request."""
MILL = """
from modelmill import Aggregate, Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float})
Aggregate(users, "x", "sum", window="1d", hop="1h", name="total")
Aggregate(users, None, "count", window="1d", hop="1h", name="rows")

@feature(user, dtype=float)
def double(row):
    return row["x"] * 2
"""
FEATURES = ["x", "double", "total", "rows"]
BEGIN = datetime.now(UTC) - timedelta(hours=20)


def rows(number: int) -> list[dict[str, Any]]:
    """The rows of a request: of some users, at times in any order, with ties."""
    chosen = random.Random(number)
    return [
        {
            "user_id": chosen.choice(USERS),
            "at": (BEGIN + timedelta(minutes=chosen.randrange(60 * 15))).isoformat(),
            "x": chosen.choice([0.1, 1e9, -1e9, chosen.uniform(-1, 1)]),
        }
        for _ in range(BATCH)
    ]


@pytest.fixture
def services(real_redis: RedisServer, tmp_path: Path) -> Iterator[list[Service]]:
    """Two feature services over one Redis and one storage."""
    pair = [Service(tmp_path, real_redis), Service(tmp_path, real_redis)]
    pair[0].mill.write_text(MILL)
    for service in pair:
        service.start()
    yield pair
    for service in pair:
        service.server.stop()


def send(urls: Sequence[str], number: int) -> None:
    """Send a request to any of the services until one acknowledges it, also while another that was stopped has it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            url = f"{random.choice(urls)}/sources/users/rows"
            if httpx.post(url, json=rows(number), headers={"Idempotency-Key": str(number)}, timeout=1).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"request {number} was not acknowledged")


def send_all(services: Sequence[Service], numbers: range) -> None:
    urls = [service.server.url for service in services]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: send(urls, number), numbers))


def check(services: Sequence[Service], count: int) -> None:
    """Each row is there once, and what each service answers is what a training frame of this moment says."""
    stored = services[0].history("users")
    assert stored.num_rows == count * BATCH
    now = datetime.now(UTC)
    spine = pd.DataFrame({"user_id": USERS, "event_time": [now] * len(USERS)})
    with services[0].client() as client:
        frame = client.training_frame(spine=spine, features=[f"user.{name}" for name in FEATURES])
    expected = {row["user_id"]: {name: row[f"user.{name}"] for name in FEATURES} for row in frame.to_dict("records")}
    for service in services:
        answer = httpx.post(f"{service.server.url}/entities/user/lookup", json={"keys": USERS}, timeout=10)
        entities = answer.raise_for_status().json()["entities"]
        assert repr({key: {n: one["features"][n] for n in FEATURES} for key, one in entities.items()}) == repr(expected)


@contextmanager
def harried(services: Sequence[Service], harm: Callable[[Service], None]) -> Iterator[None]:
    """Do harm to one service after the other, again and again, until the block ends; then both run."""
    stop = Flag()

    def work() -> None:
        while not stop.wait(random.uniform(0.3, 0.8)):
            harm(random.choice(services))

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
    for service in services:
        service.server.until_ready()


def kill(service: Service) -> None:
    service.server.kill()
    service.start()


def pause(service: Service) -> None:
    """Stop all processes of a service for longer than anyone waits for a lock, and let them go on."""
    assert service.server.process is not None
    group = service.server.process.pid
    os.killpg(group, signal.SIGSTOP)
    time.sleep(random.uniform(0.5, 3))
    os.killpg(group, signal.SIGCONT)


def test_two_services_at_once_agree_with_the_history(services: list[Service]) -> None:
    send_all(services, range(120))
    check(services, 120)


@pytest.mark.parametrize("harm", [kill, pause])
def test_requests_sent_again_after_harm_take_effect_once(
    harm: Callable[[Service], None], services: list[Service]
) -> None:
    with harried(services, harm):
        send_all(services, range(120))
    check(services, 120)


def test_a_compaction_killed_again_and_again_loses_and_doubles_nothing(services: list[Service]) -> None:
    folder = services[0].folder / "storage" / "history" / "users"
    for part in range(3):
        known = set(folder.rglob("*--*.parquet"))
        send_all(services, range(40 * part, 40 * part + 40))
        eventually(lambda before=known: set(folder.rglob("*--*")) - before, within=40, saying="files are compacted")  # type: ignore[misc]
        for service in services:
            service.server.kill()
        assert services[0].history("users").num_rows == (40 * part + 40) * BATCH
        for service in services:
            service.start()
    check(services, 120)
