from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from redis.exceptions import NoPermissionError

from modelmill.errors import Conflict, Pruned, RunEnded, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import ModelPromoted, ModelTrained, RunFailed, RunStarted, VersionsPruned
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from tests.conftest import RedisServer
from tests.modelmill.releases import MODEL, begin, events, release


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


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
    registry.runs.record_usage(replace(run, peak_memory_mb=210.5, cpu_seconds=1.25))
    assert (registry.runs.get(run.id).peak_memory_mb, registry.runs.get(run.id).cpu_seconds) == (210.5, 1.25)
    assert registry.runs.get(run.id).status == "failed"
    fake_redis.delete("lease")
    with pytest.raises(RunEnded, match="did not renew its lease"):
        registry.runs.record_usage(run)


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
        lambda: registry.delete_alias(MODEL, "champion", by="ada"),
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


def test_a_version_knows_what_its_gates_said(registry: Registry, fake_redis: Redis) -> None:
    gates = {"improves": "passed: better by 0.01", "latency_below": "failed: 3 ms"}
    version = registry.register(begin(registry, gates=gates), "p", promote=False, champion=None)
    assert (version.gates, version.failed) == (gates, {"latency_below": "failed: 3 ms"})
    assert registry.version(MODEL, 1) == version
    [trained] = [event for event in events(fake_redis) if isinstance(event, ModelTrained)]
    assert trained.gates == gates


def test_a_registration_may_move_another_alias(registry: Registry) -> None:
    release(registry)
    registry.register(begin(registry), "p", promote=True, champion=1, alias="challenger")
    registry.register(begin(registry), "p", promote=True, champion=1, alias="challenger")
    assert registry.aliases(MODEL) == {"champion": 1, "challenger": 3}
    assert registry.history(MODEL, "challenger")[-1].previous == 2


# --- pruning


def test_pruned_versions_stay_as_records_and_are_told_of(registry: Registry, fake_redis: Redis) -> None:
    for _ in range(9):
        release(registry)
    plan = registry.prune(MODEL, 2, {1: "asked about"}, by="ada")
    assert plan.pruned == [2, 3]
    assert plan.kept[1] == "asked about"
    pruned = registry.version(MODEL, 2)
    assert (pruned.version, pruned.pruned_because, bool(pruned.pruned), pruned.freed) == (2, "keep=2", True, None)
    [event] = [event for event in events(fake_redis) if isinstance(event, VersionsPruned)]
    assert (event.versions, event.by, event.reason) == ([2, 3], "ada", "keep=2")


def test_a_dry_run_prunes_nothing(registry: Registry) -> None:
    for _ in range(9):
        release(registry)
    assert registry.prune(MODEL, 1, {}, by="ada", dry_run=True).pruned == [1, 2, 3]
    assert registry.pruned_with_files(MODEL) == []
    assert not registry.version(MODEL, 1).pruned


def test_a_pruned_version_is_leaving_until_its_files_are_gone(registry: Registry) -> None:
    for _ in range(7):
        release(registry)
    registry.prune(MODEL, 1, {}, by="ada")
    [pruned] = registry.pruned_with_files(MODEL)
    assert registry.prune(MODEL, 1, {}, by="ada").pruned == [], "it is pruned already"
    registry.record_removed(pruned, 12_345)
    assert registry.pruned_with_files(MODEL) == []
    assert (registry.version(MODEL, 1).freed, registry.stored(MODEL)) == (12_345, 6)


def test_the_number_of_a_pruned_version_is_never_used_again(registry: Registry) -> None:
    for _ in range(7):
        release(registry)
    registry.prune(MODEL, 1, {}, by="ada")
    assert release(registry).version == 8


def test_no_alias_can_name_a_pruned_version(registry: Registry) -> None:
    for _ in range(7):
        release(registry)
    registry.prune(MODEL, 1, {}, by="ada")
    for move in (
        lambda: registry.promote(MODEL, 1, alias="challenger", by="ada"),
        lambda: registry.rollback(MODEL, to=1, by="ada"),
    ):
        with pytest.raises(Pruned, match=r"'user_target' version 1 was pruned at .* \(keep=1\): its package is gone"):
            move()
    assert registry.aliases(MODEL) == {"champion": 7}


def test_pruning_an_unknown_model_names_it(registry: Registry) -> None:
    with pytest.raises(UnknownName, match="model 'nope' is not known"):
        registry.prune("nope", 1, {}, by="ada")
