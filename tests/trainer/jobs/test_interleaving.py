"""Whatever order the steps of all come in, and whoever is stopped or killed between two of them: each job ends."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.trainer.jobs.interleaving import KINDS, World, stepwise  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("stepwise")
SLOW = (pytest.mark.slow, pytest.mark.timeout(600))


def at_random(world: World, random: Random) -> None:
    """Two hundred turns of whoever comes first; now and then somebody is killed, cancels, or all stand still."""
    jobs = [world.enqueue(random.choice(KINDS)) for _ in range(random.choice((1, 1, 2)))]
    world.start_worker("worker 1")
    for _ in range(200):
        what = random.random()
        if what < 0.015:
            world.lapse()
        elif what < 0.03:
            world.start_recovery()
        elif what < 0.035:
            world.start_cancel(random.choice(jobs))
        elif what < 0.045:
            world.kill_worker(random.choice(("worker 1", "worker 2")))
        elif what < 0.055:
            world.start_worker(random.choice(("worker 1", "worker 2")))
        elif what < 0.06 and world.processes:
            random.choice(world.processes).kill()
        elif living := world.living:
            world.let_on(random.choice(living), random)


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 500), marks=SLOW)], ids=len)
def test_jobs_end_after_any_order_of_steps(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in seeds:
        with World(monkeypatch, f"seed {seed}") as world:
            at_random(world, Random(seed))
            world.settle(Random(seed))
            world.check()


def nobody(world: World, job: str) -> None:
    """All stand still."""


def recovery(world: World, job: str) -> None:
    world.finish(world.start_recovery())


def another_worker(world: World, job: str) -> None:
    recovery(world, job)
    world.finish(world.start_worker("worker 2"))


def cancel(world: World, job: str) -> None:
    world.finish(world.start_cancel(job))


@pytest.mark.parametrize(
    "meanwhile", [nobody, *(pytest.param(one, marks=SLOW) for one in (recovery, another_worker, cancel))]
)
@pytest.mark.parametrize("lapsed", [True, pytest.param(False, marks=SLOW)], ids=["longer than a lease", "shortly"])
@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=SLOW) for kind in KINDS[1:])])
def test_jobs_end_when_their_processes_stand_still_at_any_step(
    kind: str, lapsed: bool, meanwhile: Callable[[World, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, over = 0, False
    while not over:
        with World(monkeypatch, f"after {step} steps") as world:
            job = world.enqueue(kind)
            world.start_worker("worker 1")
            for _ in range(step):
                world.next_by_turns()
            over = not world.living
            if lapsed:
                world.lapse()
            meanwhile(world, job)
            world.settle(Random(0))
            world.check()
        step += 1
    assert step > 30
