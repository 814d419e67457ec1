"""Who forgets an entity is killed at any step: the next who is asked brings it to its end, tiles and all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelmill.declare.definitions_file import load
from modelmill.state import keys
from modelmill.state.connections import connect
from modelmill.storage import Storage
from modelmill.times import micros
from services.feature.definitions.catalogue import Catalogue
from services.feature.proof import erasure, forget
from services.feature.store import tile_groups
from services.feature.upkeep.statistics import StatisticsFiles
from tests.conftest import ROOT, RedisServer
from tests.eventually import eventually
from tests.feature.brute_force import Row, brute_force
from tests.feature.processes import Service

pytestmark = [pytest.mark.faults, pytest.mark.redis, pytest.mark.timeout(300)]

MILL = """
from modelmill import Aggregate, Entity, Source
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
sales = Source("sales", entities=[user, item], event_time="at", columns={"amount": float})
Aggregate(sales, "amount", "sum", window="1d", hop="1h", by=item, name="sold")
Aggregate(sales, "amount", "count_distinct", window="2d", hop="1d", by=item, name="prices")
Aggregate(sales, "amount", "sum", window="1d", hop="1h", by=user, name="spent")
"""
KEY, USERS, ITEMS = "u1", [f"u{n}" for n in range(4)], [f"i{n}" for n in range(6)]
STEPS = {
    "made beside, slab 3": (tile_groups, "_add_slab", 3),
    "rows refused": (tile_groups, "_swap", 1),
    "exchanged, call 3": (tile_groups, "SWAP", 3),
    "exchanged, call 7": (tile_groups, "SWAP", 7),
    "history, file 2": (erasure, "rewrite", 2),
    "history gone": (erasure, "online_fields", 2),
}
"""What the process is at when it is killed: a function, or a script, and at its which call."""


def die_at(step: str, redis_url: str, folder: str) -> None:
    """Forget in this process, which is killed at that step."""
    of, name, number = STEPS[step]
    tile_groups.SLAB, tile_groups.SWAP_CHUNK = 4, 1
    calls = 0

    def killed_at_last(real: Any) -> Any:
        def called(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return called

    redis = connect(redis_url, timeout=5)
    if name == "SWAP":
        register = redis.register_script

        def registered(text: str) -> Any:
            return killed_at_last(register(text)) if text == tile_groups.SWAP else register(text)

        redis.register_script = registered  # type: ignore[assignment]
    else:
        setattr(of, name, killed_at_last(getattr(of, name)))
    catalogue = Catalogue(redis, Storage(f"file://{folder}/storage"), Path(folder) / "mill.py")
    forget.forget(catalogue, StatisticsFiles(catalogue.storage), "user", KEY)


def sales(number: int) -> list[dict[str, Any]]:
    """The rows of a request."""
    now = datetime.now(UTC)
    return [
        {
            "user_id": USERS[(number + row) % 4],
            "item_id": ITEMS[(number * row) % 6],
            "at": (now - timedelta(hours=1 + (7 * row + number) % 30)).isoformat(),
            "amount": 0.1 * row + number,
        }
        for row in range(9)
    ]


@pytest.fixture
def service(real_redis: RedisServer, tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, real_redis)
    service.mill.write_text(MILL)
    service.start()
    yield service
    service.server.stop()


def send(service: Service, number: int) -> None:
    """Send a request until it is acknowledged: after a kill the source takes no rows for some seconds."""

    def sent() -> bool:
        url, name = f"{service.server.url}/sources/sales/rows", {"Idempotency-Key": str(number)}
        return httpx.post(url, json=rows, headers=name, timeout=10).is_success

    rows = sales(number)
    eventually(sent, within=60, saying="the source takes rows")


def check(service: Service) -> None:
    """Require that the service serves what the rows in the history say, none of which names the key."""
    definitions, rows = load(service.mill), service.history("sales").to_pylist()
    assert KEY not in {row["user_id"] for row in rows}
    for entity, names in {"user": USERS, "item": ITEMS}.items():
        before = datetime.now(UTC)
        answer = httpx.post(f"{service.server.url}/entities/{entity}/lookup", json={"keys": names}, timeout=10)
        found = answer.raise_for_status().json()["entities"]
        for key in names:
            about = [Row(row[f"{entity}_id"], micros(row["_event_time"]), 0, row["amount"]) for row in rows]
            wanted = {
                name: brute_force(aggregate.reading, about, key, micros(before))
                for name, aggregate in definitions.aggregates[entity].items()
            }
            assert (found[key] or {"features": dict.fromkeys(wanted)})["features"] == wanted, (entity, key)


@pytest.mark.parametrize("step", STEPS)
def test_whoever_is_asked_next_brings_it_to_its_end(step: str, service: Service, tmp_path: Path) -> None:
    for number in range(6):
        send(service, number)
    program = f"import sys; from {__name__} import die_at; die_at(*sys.argv[1:])"
    arguments = [sys.executable, "-c", program, step, service.redis.url, str(tmp_path)]
    dead = subprocess.run(arguments, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    for number in range(6, 8):
        send(service, number)
    answer = httpx.delete(f"{service.server.url}/entities/user/{KEY}", timeout=120)
    assert answer.status_code == 200, answer.text
    check(service)
    redis = service.redis.client()
    definitions = load(service.mill)
    groups = {group.name for group in definitions.tile_groups(definitions.source("sales"))}
    assert {name.split(":")[1] for name in redis.scan_iter(keys.tile_group("*"))} == groups
    assert {name.split(":")[1] for name in redis.scan_iter(keys.tiles("*", "*"))} == groups
