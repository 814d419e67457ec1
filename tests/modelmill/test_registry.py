from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError

from modelmill import bus, keys
from modelmill.connections import Redis
from modelmill.errors import Conflict, RunEnded, UnknownName
from modelmill.events import ModelPromoted, ModelTrained, RunFailed, RunStarted, utc_now
from modelmill.registry import AliasMove, Registry, Version, promoted
from modelmill.runs import Run, new_run_id
from tests.conftest import RedisServer

MODEL = "user_target"


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


def begin(registry: Registry, model: str = MODEL, **known: object) -> Run:
    run = Run(id=new_run_id(), model=model, started=utc_now(), **known)  # type: ignore[arg-type]
    registry.runs.start(run)
    return run


def release(registry: Registry, model: str = MODEL) -> Version:
    """A new version of the model, promoted."""
    champion = registry.aliases(model).get("champion")
    return registry.register(begin(registry, model), "packages/p", promote=True, champion=champion)


def events(redis: Redis) -> list[object]:
    return [event for _, event in bus.newest(redis, keys.EVENTS_MODELS, 100)]


def contents(server: RedisServer) -> dict[bytes, bytes]:
    """Every key with its serialised value."""
    redis = server.client(text=False)
    return {key: redis.dump(key) for key in redis.scan_iter()}


# --- runs


def test_a_run_is_the_same_after_a_way_through_redis(registry: Registry) -> None:
    run = begin(
        registry,
        trigger="every",
        version=None,
        features=["a", "user.b"],
        params={"clf__C": "1.0", "a.b.c": ""},
        metrics={"accuracy": 0.1 + 0.2, "loss": float("inf")},
        packages={"scikit-learn": "1.8"},
        seconds={"fit": 1e-9},
        rows_train=3,
        traceback="line 1\nline 2",
    )
    assert registry.runs.get(run.id) == run


def test_a_run_is_plain_text_in_redis(registry: Registry, fake_redis: Redis) -> None:
    run = begin(registry, metrics={"accuracy": 0.5}, features=["a", "b"])
    stored = fake_redis.hgetall(keys.run(run.id))
    assert (stored["metrics.accuracy"], stored["features"], stored["version"]) == ("0.5", '["a","b"]', "")


def test_a_run_begins_with_its_event(registry: Registry, fake_redis: Redis) -> None:
    run = begin(registry, trigger="every")
    [event] = events(fake_redis)
    assert isinstance(event, RunStarted)
    assert (event.model, event.run, event.trigger) == (MODEL, run.id, "every")


def test_a_failed_run_keeps_its_error_and_traceback(registry: Registry, fake_redis: Redis) -> None:
    run = begin(registry)
    registry.runs.fail(run, "no such column", "Traceback ...")
    failed = registry.runs.get(run.id)
    assert (failed.status, failed.error, failed.traceback) == ("failed", "no such column", "Traceback ...")
    assert failed.finished
    assert isinstance(events(fake_redis)[-1], RunFailed)


def test_a_lost_run_and_a_cancelled_one_say_so_and_tell_it(registry: Registry, fake_redis: Redis) -> None:
    lost, cancelled = begin(registry), begin(registry)
    registry.runs.lose(lost, "its process was killed")
    registry.runs.cancel(cancelled, "me")
    assert [(run.status, run.error, run.canceled_by) for run in map(registry.runs.get, (lost.id, cancelled.id))] == [
        ("lost", "its process was killed", ""),
        ("cancelled", "cancelled by me", "me"),
    ]
    told = [event for event in events(fake_redis) if isinstance(event, RunFailed)]
    assert [(event.status, event.error) for event in told] == [
        ("lost", "its process was killed"),
        ("cancelled", "cancelled by me"),
    ]


def test_who_closes_a_run_keeps_what_its_process_has_recorded_meanwhile(registry: Registry) -> None:
    run = begin(registry)
    registry.runs.update(replace(run, stage="fit", rows_train=300))
    registry.runs.lose(run, "its process was killed")
    closed = registry.runs.get(run.id)
    assert (closed.status, closed.stage, closed.rows_train) == ("lost", "fit", 300)


def test_what_a_run_took_is_recorded_after_its_end_but_not_without_its_lease(
    registry: Registry, fake_redis: Redis
) -> None:
    fake_redis.set("lease", "")
    run = begin(registry, lease="lease")
    registry.runs.fail(run, "error", "")
    registry.runs.measured(replace(run, peak_memory_mb=210.5, cpu_seconds=1.25))
    assert (registry.runs.get(run.id).peak_memory_mb, registry.runs.get(run.id).cpu_seconds) == (210.5, 1.25)
    assert registry.runs.get(run.id).status == "failed"
    fake_redis.delete("lease")
    with pytest.raises(RunEnded, match="did not renew its lease"):
        registry.runs.measured(run)


def test_running_are_those_that_have_not_ended(registry: Registry) -> None:
    first, second, third = begin(registry), begin(registry), begin(registry)
    registry.runs.fail(first, "error", "")
    registry.register(second, "p", promote=False, champion=None)
    assert [run.id for run in registry.runs.running()] == [third.id]


def test_a_run_that_has_ended_takes_no_more_writes(registry: Registry) -> None:
    run = begin(registry)
    registry.runs.fail(run, "lost", "")
    for write in (
        lambda: registry.runs.update(run),
        lambda: registry.runs.fail(run, "again", ""),
        lambda: registry.register(run, "p", promote=True, champion=None),
    ):
        with pytest.raises(RunEnded, match=f"run {run.id} has ended already \\(failed: lost\\)"):
            write()
    assert registry.runs.get(run.id).error == "lost"


def test_a_run_registers_one_version(registry: Registry) -> None:
    run = begin(registry)
    registry.register(run, "p", promote=False, champion=None)
    with pytest.raises(RunEnded, match="succeeded"):
        registry.register(run, "p", promote=False, champion=None)
    assert len(registry.versions(MODEL)) == 1


def test_runs_come_newest_first_over_all_models(registry: Registry) -> None:
    ids = [begin(registry, model).id for model in ("a", "b", "a")]
    assert [run.id for run in registry.runs.newest()] == ids[::-1]
    assert [run.id for run in registry.runs.newest("a")] == [ids[2], ids[0]]
    assert [run.id for run in registry.runs.newest(limit=1)] == [ids[2]]


def test_an_unknown_run_is_named(registry: Registry) -> None:
    with pytest.raises(UnknownName, match="run 'nope' is not known"):
        registry.runs.get("nope")


@pytest.mark.redis
def test_no_state_changes_whose_event_cannot_be_appended(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    registry = Registry(redis)
    release(registry)
    release(registry)
    run = begin(registry)
    before = contents(real_redis)
    redis.execute_command("ACL", "SETUSER", "default", "-xadd")
    for write in (
        lambda: begin(registry),
        lambda: registry.runs.fail(run, "error", ""),
        lambda: registry.register(run, "p", promote=True, champion=2),
        lambda: registry.promote(MODEL, 1, by="ada"),
        lambda: registry.rollback(MODEL, by="ada"),
    ):
        with pytest.raises(NoPermissionError):
            write()
    assert contents(real_redis) == before


# --- versions


def test_a_version_knows_its_run_and_the_run_its_version(registry: Registry) -> None:
    run = begin(registry, metrics={"accuracy": 0.9})
    version = registry.register(run, "packages/p", promote=False, champion=None)
    assert registry.version(MODEL, 1) == version
    assert (version.version, version.run, version.package, version.metrics) == (
        1,
        run.id,
        "packages/p",
        {"accuracy": 0.9},
    )
    assert (registry.runs.get(run.id).status, registry.runs.get(run.id).version) == ("succeeded", 1)


def test_a_registration_tells_of_the_version_and_of_the_promotion(registry: Registry, fake_redis: Redis) -> None:
    release(registry)
    _, trained, moved = events(fake_redis)
    assert isinstance(trained, ModelTrained)
    assert isinstance(moved, ModelPromoted)
    assert (trained.version, moved.version, moved.previous, moved.alias) == (1, 1, None, "champion")


def test_a_version_that_is_not_promoted_leaves_the_champion(registry: Registry) -> None:
    release(registry)
    registry.register(begin(registry), "p", promote=False, champion=1)
    assert registry.aliases(MODEL) == {"champion": 1}


def test_a_champion_that_moved_meanwhile_is_a_conflict_and_registers_nothing(
    registry: Registry, fake_redis: Redis
) -> None:
    release(registry)
    run = begin(registry)
    release(registry)
    before = len(events(fake_redis))
    with pytest.raises(Conflict, match="champion of 'user_target' is version 2 by now, not 1; decide again"):
        registry.register(run, "p", promote=True, champion=1)
    assert [v.version for v in registry.versions(MODEL)] == [2, 1]
    assert len(events(fake_redis)) == before
    assert registry.register(run, "p", promote=True, champion=2).version == 3


@pytest.mark.redis
def test_versions_are_numbered_without_gaps_however_many_register_at_once(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    registry = Registry(redis)
    many = [begin(registry) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda run: registry.register(run, "p", promote=False, champion=None), many))
    assert sorted(v.version for v in versions) == list(range(1, 41))
    assert {v.version: v.run for v in registry.versions(MODEL)} == {v.version: v.run for v in versions}
    assert all(registry.runs.get(v.run).version == v.version for v in versions)
    assert sorted(e.version for e in events(redis) if isinstance(e, ModelTrained)) == list(range(1, 41))


@pytest.mark.redis
def test_of_many_who_would_replace_one_champion_one_does(real_redis: RedisServer) -> None:
    registry = Registry(real_redis.client())
    release(registry)
    many = [begin(registry) for _ in range(8)]

    def attempt(run: Run) -> int | None:
        try:
            return registry.register(run, "p", promote=True, champion=1).version
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(attempt, many) if number]
    assert winners == [2]
    assert registry.aliases(MODEL) == {"champion": 2}


def test_an_unknown_version_is_named_with_the_known(registry: Registry) -> None:
    release(registry)
    with pytest.raises(UnknownName, match="version '7' is not known; known: 1"):
        registry.version(MODEL, 7)


def test_a_version_of_an_unknown_model_names_the_model(registry: Registry) -> None:
    release(registry)
    with pytest.raises(UnknownName, match="model 'user_tarpet' is not known; did you mean 'user_target'"):
        registry.version("user_tarpet", 1)


def test_versions_come_newest_first(registry: Registry) -> None:
    for _ in range(3):
        release(registry)
    assert [v.version for v in registry.versions(MODEL, limit=2)] == [3, 2]


# --- aliases


def test_champions_are_of_all_models_that_have_one(registry: Registry) -> None:
    release(registry, "a")
    release(registry, "b")
    release(registry, "b")
    begin(registry, "without")
    assert registry.champions() == {"a": 1, "b": 2}


def test_a_promotion_moves_the_alias_with_its_history_and_its_event(registry: Registry, fake_redis: Redis) -> None:
    release(registry)
    release(registry)
    move = registry.promote(MODEL, 1, by="ada", reason="the newer one drifts")
    assert registry.aliases(MODEL) == {"champion": 1}
    assert registry.history(MODEL)[-1] == move
    event = events(fake_redis)[-1]
    assert isinstance(event, ModelPromoted)
    assert (event.version, event.previous, event.by, event.reason) == (1, 2, "ada", "the newer one drifts")


def test_promoting_an_unknown_version_changes_nothing(registry: Registry) -> None:
    release(registry)
    with pytest.raises(UnknownName, match="version '2'"):
        registry.promote(MODEL, 2, by="ada")
    assert registry.aliases(MODEL) == {"champion": 1}
    assert len(registry.history(MODEL)) == 1


def test_rollback_walks_back_version_by_version(registry: Registry) -> None:
    for _ in range(3):
        release(registry)
    assert [registry.rollback(MODEL, by="ada").version for _ in range(2)] == [2, 1]
    with pytest.raises(Conflict, match="never named another version; nothing to roll back to"):
        registry.rollback(MODEL, by="ada")


def test_rollback_after_a_new_promotion_returns_to_where_it_was_made(registry: Registry) -> None:
    for _ in range(3):
        release(registry)
    registry.rollback(MODEL, by="ada")
    release(registry)
    assert registry.rollback(MODEL, by="ada").version == 2


def test_rollback_of_an_unknown_model_names_it(registry: Registry) -> None:
    with pytest.raises(UnknownName, match="model 'nope' is not known"):
        registry.rollback("nope", by="ada")


def test_aliases_move_apart(registry: Registry) -> None:
    release(registry)
    release(registry)
    registry.promote(MODEL, 1, alias="challenger", by="ada")
    registry.rollback(MODEL, by="ada")
    assert registry.aliases(MODEL) == {"champion": 1, "challenger": 1}


@pytest.mark.redis
def test_moves_at_once_leave_one_history(real_redis: RedisServer) -> None:
    registry = Registry(real_redis.client())
    for _ in range(4):
        release(registry)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: registry.promote(MODEL, number, by="ada"), [1, 2, 3, 4] * 5))
    moves = registry.history(MODEL)
    assert [move.previous for move in moves[1:]] == [move.version for move in moves[:-1]]
    assert registry.aliases(MODEL)["champion"] == moves[-1].version


class Aliases:
    """What promote and rollback mean, written as an editor's undo: the oracle of `promoted`."""

    def __init__(self) -> None:
        self.moves: list[AliasMove] = []
        self.stack: list[int] = []

    def promote(self, version: int) -> None:
        if self.stack[-1:] != [version]:
            self.stack.append(version)
        self._note(version, "promote")

    def rollback(self) -> None:
        if len(self.stack) > 1:
            self.stack.pop()
            self._note(self.stack[-1], "rollback")

    def _note(self, version: int, kind: str) -> None:
        self.moves.append(
            AliasMove(time="", alias="champion", version=version, previous=None, kind=kind, by="", reason="")
        )


@given(st.lists(st.none() | st.integers(1, 4)))
def test_the_present_version_is_the_last_promoted_and_not_rolled_back(steps: Sequence[int | None]) -> None:
    aliases = Aliases()
    for version in steps:
        if version is None:
            aliases.rollback()
        else:
            aliases.promote(version)
    assert promoted(aliases.moves, "champion") == aliases.stack
    assert [move.version for move in aliases.moves[-1:]] == aliases.stack[-1:]
