"""Triggers while the trainers that look at them are killed: everything is accounted for exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import DriftDetected, RowsIngested
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.triggers.decisions import TriggerState
from services.trainer.triggers.scheduler import schedules
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.processes import Server

pytestmark = [pytest.mark.faults, pytest.mark.redis]

MILL = """
from modelmill import Entity, Model, Source, after, every, on

user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"a": float, "target": int})
TRIGGERS = {
    "by_slot": every(seconds=1),
    "by_row": after(rows=5, cooldown=None, daily=None),
    "by_event": on("drift.detected", cooldown=None, daily=None),
}
for name, trigger in TRIGGERS.items():
    Model(name, entities=[user], features=["a"], label="target", estimator=object(), train=trigger)
"""
SECONDS = 25.0


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    mill = tmp_path / "mill.py"
    mill.write_text(MILL)
    return load(mill)


@pytest.fixture
def trainers(real_redis: RedisServer, definitions: Definitions, tmp_path: Path) -> Iterator[list[Server]]:
    settings = {"MODELMILL_REDIS_URL": real_redis.url, "MODELMILL_DEFINITIONS": str(definitions.path)}
    servers = [Server(["-m", "services.trainer.main"], settings, log=tmp_path / f"trainer{n}.log") for n in range(3)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


def seen(redis: Redis, definitions: Definitions) -> dict[str, dict[str, Any]]:
    return {view["model"]: view for view in schedules(redis, definitions, datetime.now(UTC))}


def taken(queue: TrainingQueue) -> list[tuple[str, str]]:
    """Model and cause of the trainings that waited: they are over, as if a worker had been quick."""
    jobs = [job for job in queue.rq.get_jobs() if job is not None]
    for job in jobs:
        job.delete()
    return [(job.kwargs["model"], job.kwargs["by"]) for job in jobs]


def test_slots_rows_and_events_count_once_while_trainers_are_killed(
    trainers: list[Server], real_redis: RedisServer, definitions: Definitions
) -> None:
    redis, queue, random = real_redis.client(), TrainingQueue(real_redis.client(text=False)), Random(5)
    names = {name: str(model.train[0]) for name, model in definitions.models.items()}

    def state(model: str) -> TriggerState:
        return TriggerState.read(redis.hget(keys.triggers(model), names[model]))

    eventually(lambda: all(state(model).position for model in names), within=30, saying="trainers have looked")
    first, told, rows, kills = state("by_slot"), 0, 0, 0
    fired: list[tuple[str, str]] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        bus.append(redis, DriftDetected(model="by_event"))
        bus.append(redis, RowsIngested(table="users", accepted=2, rejected=0, failed_features=0))
        told, rows = told + 1, rows + 2
        fired += eventually(lambda: taken(queue), within=15, saying="something fires")
        if random.random() < 0.4:
            victim = random.choice(trainers)
            victim.kill()
            victim.start()
            kills += 1

    def settled() -> bool:
        fired.extend(taken(queue))
        return sum(seen(redis, definitions)["by_event"]["today"].get(o, 0) for o in ("fired", "joined")) == told

    eventually(settled, within=20, saying="all events have been heard")
    for trainer in trainers:
        trainer.kill()
    fired += taken(queue)
    assert kills > 5
    causes = {model: [by for name, by in fired if name == model] for model in names}
    for model in ("by_slot", "by_event"):
        assert len(set(causes[model])) == len(causes[model]), "something fired twice"

    last, views = state("by_slot"), seen(redis, definitions)
    passed = datetime.fromisoformat(last.position) - datetime.fromisoformat(first.position)
    outcomes = {o: n - first.today.get(o, 0) for o, n in views["by_slot"]["today"].items()}
    assert sum(outcomes.values()) == passed / timedelta(seconds=1), outcomes
    assert outcomes["fired"] <= len(causes["by_slot"]) <= outcomes["fired"] + 1, "one may lie before the first look"

    counted = sum(int(by.split()[-2]) for by in causes["by_row"])
    assert counted + state("by_row").rows == rows
    assert len(causes["by_event"]) == views["by_event"]["today"]["fired"]
    print(f"{kills} trainers killed; {len(fired)} trainings; slots: {outcomes}")
