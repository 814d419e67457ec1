"""Runs in Redis: that every change of one is seen by who asks what changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from tests.conftest import ROOT, RedisServer


def ids(changes: list[tuple[str, float]]) -> list[str]:
    return [run_id for run_id, _ in changes]


def run(run_id: str) -> Run:
    return Run(id=run_id, model="m", started="2026-11-25T00:00:00.000000Z")


def follow_every_change(redis: Redis) -> None:
    """Start, note, register and fail runs; after each the change is told once, after those before it."""
    registry = Registry(redis)
    registry.runs.start(run("a"))
    registry.runs.start(run("b"))
    changed, count = registry.runs.changes(0)
    assert (ids(changed), count) == (["a", "b"], 2)
    registry.runs.update(replace(run("a"), stage="fit"))
    changed, count = registry.runs.changes(changed[-1][1])
    assert (ids(changed), count) == (["a"], 2)
    registry.register(run("a"), "models/m/a", promote=False, champion=None)
    registry.runs.fail(run("b"), "no rows", "")
    changed, _ = registry.runs.changes(changed[-1][1])
    assert ids(changed) == ["a", "b"]
    assert registry.runs.changes(changed[-1][1]) == ([], 2)


def test_each_change_is_told_to_who_asks_for_those_after_a_position(fake_redis: Redis) -> None:
    follow_every_change(fake_redis)


@pytest.mark.redis
def test_each_change_is_told_by_a_real_redis(real_redis: RedisServer) -> None:
    follow_every_change(real_redis.client())


def test_a_change_comes_after_all_before_it_even_where_the_clock_was_set_back(fake_redis: Redis) -> None:
    registry = Registry(fake_redis)
    later = 2.0**52
    fake_redis.zadd(keys.RUN_CHANGES, {"of a clock that was fast": later})
    registry.runs.start(run("a"))
    assert ids(registry.runs.changes(later)[0]) == ["a"]


def test_runs_are_read_in_the_order_asked_for_without_those_that_are_gone(fake_redis: Redis) -> None:
    registry = Registry(fake_redis)
    registry.runs.start(run("a"))
    registry.runs.start(run("b"))
    assert [found.id for found in registry.runs.read(["b", "gone", "a"])] == ["b", "a"]


def test_only_write_fields_writes_to_runs() -> None:
    """Any other write would not be marked as a change, and copies would not see it."""
    code = [*(ROOT / "modelmill").rglob("*.py"), *(ROOT / "services").rglob("*.py")]
    writes = {f"{file.name}: {line.strip()}" for file in code for line in file.read_text().splitlines()
              if "hset(keys.run(" in line}  # fmt: skip
    assert writes == {"runs.py: pipe.hset(keys.run(run_id), mapping=fields)"}
