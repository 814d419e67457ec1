"""Workers of one search agree through Redis."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from modelmill.errors import RunEnded
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, new_run_id
from modelmill.times import utc_now
from services.trainer.training.sharing import ATTEMPTS, Board
from tests.conftest import RedisServer

LEASES = ("lease:parent", "lease:one", "lease:two")


@pytest.fixture
def parent(fake_redis: Redis) -> Run:
    return begun(fake_redis)


def begun(redis: Redis) -> Run:
    for lease in LEASES:
        redis.set(lease, "1")
    run = Run(id="parent", model="m", started=utc_now(), lease="lease:parent")
    Registry(redis).runs.start(run)
    return run


def child(lease: str = "lease:one") -> Run:
    return Run(id=new_run_id(), model="m", started=utc_now(), parent="parent", lease=lease)


def succeeded(run: Run) -> Run:
    return replace(run, status="succeeded", finished=utc_now())


def test_trials_are_claimed_one_after_the_other(fake_redis: Redis, parent: Run) -> None:
    board = Board(fake_redis, parent, 2)
    first, second, none = board.claim(child()), board.claim(child("lease:two")), board.claim(child())
    assert first is not None
    assert second is not None
    assert ((first.trial, second.trial), none) == ((1, 2), None)
    assert [run.id for run in Registry(fake_redis).runs.trials("parent")] == [first.id, second.id]
    assert {run.id for run in Registry(fake_redis).runs.running()} == {"parent", first.id, second.id}


def test_a_result_is_kept_with_its_run(fake_redis: Redis, parent: Run) -> None:
    board = Board(fake_redis, parent, 1)
    run = board.claim(child())
    assert run is not None
    board.record(succeeded(run), 0.75, {"C": 1})
    state = board.states()[1]
    assert (state.run, state.status, state.score, state.params, state.ended) == (
        run.id,
        "succeeded",
        0.75,
        {"C": 1},
        True,
    )
    assert Registry(fake_redis).runs.get(run.id).status == "succeeded"
    assert board.claim(child()) is None


def test_a_trial_whose_process_was_killed_is_taken_up_again_and_counts_once(fake_redis: Redis, parent: Run) -> None:
    board = Board(fake_redis, parent, 1)
    lost = board.claim(child())
    assert lost is not None
    assert board.claim(child("lease:two")) is None, "its process lives"
    fake_redis.delete("lease:one")
    again = board.claim(child("lease:two"))
    assert again is not None
    fake_redis.set("lease:one", "1")  # the process was not dead: it had only slept
    with pytest.raises(RunEnded, match="another run has taken over its trial"):
        board.record(succeeded(lost), 0.1, None)
    board.record(succeeded(again), 0.9, None)
    with pytest.raises(RunEnded):
        board.record(succeeded(again), 0.2, None)
    assert [(state.run, state.score, state.attempt) for state in board.states().values()] == [(again.id, 0.9, 2)]


def test_a_trial_whose_process_is_killed_each_time_fails_and_the_next_one_begins(
    fake_redis: Redis, parent: Run
) -> None:
    board = Board(fake_redis, parent, 2)
    for attempt in range(ATTEMPTS):
        fake_redis.set(f"lease:{attempt}", "1")
        run = board.claim(child(f"lease:{attempt}"))
        assert run is not None
        assert run.trial == 1
        fake_redis.delete(f"lease:{attempt}")
    next_one = board.claim(child())
    assert next_one is not None
    assert next_one.trial == 2
    assert (board.states()[1].status, board.states()[1].error) == ("failed", "its process was killed 3 times")


@pytest.mark.parametrize("lease", LEASES[:2])
def test_nothing_is_claimed_without_a_lease(fake_redis: Redis, parent: Run, lease: str) -> None:
    fake_redis.delete(lease)
    with pytest.raises(RunEnded, match="did not renew its lease"):
        Board(fake_redis, parent, 1).claim(child())


def test_nothing_is_claimed_of_a_search_that_has_ended(fake_redis: Redis, parent: Run) -> None:
    Registry(fake_redis).runs.fail(parent, "canceled by me", "")
    with pytest.raises(RunEnded, match="canceled by me"):
        Board(fake_redis, parent, 1).claim(child())


def test_a_late_result_of_a_run_that_was_closed_is_refused(fake_redis: Redis, parent: Run) -> None:
    board = Board(fake_redis, parent, 1)
    run = board.claim(child())
    assert run is not None
    fake_redis.delete("lease:one")
    with pytest.raises(RunEnded):
        board.record(succeeded(run), 0.5, None)
    assert not board.states()[1].ended


def test_the_board_expires(fake_redis: Redis, parent: Run) -> None:
    Board(fake_redis, parent, 1).claim(child())
    assert fake_redis.ttl(keys.search("parent")) > 0


@pytest.mark.redis
def test_many_workers_at_once_carry_out_every_trial_once(real_redis: RedisServer) -> None:
    parent = begun(real_redis.client())
    done: list[int] = []

    def work() -> None:
        board = Board(real_redis.client(), parent, 40)
        while run := board.claim(child()):
            done.append(run.trial or 0)
            board.record(succeeded(run), 1.0, None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(1, 41))
    assert all(state.ended for state in Board(real_redis.client(), parent, 40).states().values())
