"""Workers, trainings, recovery and clients that take turns at every command that they send to Redis.

Each of them runs in a thread of its own that is let on for one step at a time: one command, or one transaction. So any
of them can be stopped between any two steps for as long as one likes, and be killed there. What they do is the real
thing, but for the process that a worker forks, which is another such thread on a copy of what it was given, and for the
training in it, which only records a run and registers a version.
"""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Callable, Collection
from functools import partial
from random import Random
from typing import Any, Self

import fakeredis
import pytest
import redis.connection
from rq.serializers import JSONSerializer

from modelmill.errors import Conflict, InvalidRequest
from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer import worker as workers
from services.trainer.jobs import process
from services.trainer.jobs.journal import readable
from services.trainer.jobs.opening import Opener
from services.trainer.jobs.process import Usage
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.recovery import earlier_attempt, recover
from services.trainer.jobs.run_record import RunRecord
from services.trainer.jobs.view import scheduled
from services.trainer.worker import TrainJob, TrainWorker

KINDS = ("succeeds", "fails", "fails for now", "exits")
"""What becomes of a training that nobody disturbs."""
UNSEEN = (b"UNWATCH", b"HELLO", b"CLIENT")
"""Commands that change nothing, and come when a connection is made or given back."""
STEPS = 1000
"""Turns in which all must end who live."""
ROUNDS = 12
"""Times that everything is let on after all have stood still, until all has ended."""


class Killed(BaseException):
    """Raised at each step of a thread that was killed, so that it takes none."""


class Actor:
    """A thread that takes one step each time it is let on."""

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self.name = name
        self.done = self.killed = False
        self.error: BaseException | None = None
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self.thread.actor = self  # type: ignore[attr-defined]
        self.thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.done = True
        self._waits.release()

    def step(self) -> None:
        """Let it on until its next step, or its end."""
        if not self.done:
            self._go.release()
            assert self._waits.acquire(timeout=30), f"{self.name} hangs"

    def pause(self) -> None:
        """In its thread: wait to be let on."""
        self._waits.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def kill(self) -> None:
        """End it where it is."""
        self.killed = True
        while not self.done:
            self.step()

    @property
    def lives(self) -> bool:
        return not self.done and not self.killed


class Process:
    """What stands for `Horse`: a thread that works on copies, as a forked process does."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.output = self
        self.status = 0

    @classmethod
    def fork(cls, world: World, journal: object, run: str, work: partial[None]) -> Self:
        own = copy.copy(work.func.__self__)  # type: ignore[attr-defined]
        job, *others = work.args
        job = copy.copy(job)
        job.meta = dict(job.meta)
        process = cls(
            world.add(f"training {run}", lambda: process._do(partial(type(own)._carry_out, own, job, *others)))
        )
        world.processes.append(process)
        return process

    def _do(self, work: Callable[[], None]) -> None:
        self.status = os.EX_TEMPFAIL << 8
        work()
        self.status = 0

    def exit(self) -> None:
        """What `os._exit(0)` does in a training: nothing more happens."""
        self.actor.killed, self.status = True, 0
        raise Killed

    def wait(self, seconds: float) -> bool:
        threading.current_thread().actor.pause()  # type: ignore[attr-defined]
        return not self.actor.lives

    def kill(self) -> None:
        if self.actor.lives:
            self.status = signal.SIGKILL
            self.actor.killed = True

    def end(self) -> tuple[int, Usage]:
        self.kill()
        return self.status, Usage(1.0, 1.0)

    def ship(self, *, fenced: bool = True) -> None:
        """Nothing was said."""


class World:
    """A Redis, and those who work with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.name = name
        self.server = fakeredis.FakeServer()
        self.storage = Storage("memory://interleaving")
        self.actors: list[Actor] = []
        self.processes: list[Process] = []
        self.workers: dict[str, Actor] = {}
        self.kinds: dict[str, str] = {}
        """Job to what becomes of its training."""
        self.cancelled: set[str] = set()
        self.turn = 0
        self.queue = TrainingQueue(self.client(text=False))
        self.registry = Registry(self.client())
        monkeypatch.setattr(workers, "Horse", self)
        monkeypatch.setattr(workers, "random", _NoRandom)
        monkeypatch.setattr(Opener, "await_asking", lambda *_: None)
        monkeypatch.setattr(TrainJob, "perform", lambda job: self._train(job))
        monkeypatch.setattr(TrainWorker, "setup_work_horse_signals", lambda _: None)
        for name in ("die_with", "die_without"):
            monkeypatch.setattr(process, name, lambda *_: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for actor in self.actors:
            actor.kill()
        if error is not None:
            error.add_note(f"in the world {self.name}")

    def client(self, *, text: bool = True) -> Any:
        client = fakeredis.FakeRedis(server=self.server, decode_responses=text)
        setattr(client, "__rq_redis_server_version", workers.OLDEST_REDIS)  # RQ asks by INFO, and the twin says 5
        return client

    def fork(self, journal: object, run: str, work: partial[None]) -> Process:
        return Process.fork(self, journal, run, work)

    def _train(self, job: Any) -> None:
        registry = Registry(self.client())
        if earlier_attempt(registry, job):
            return
        kind = self.kinds[job.id]
        run = Run(id=job.run, model="m", job=job.id, lease=job.lease, started=utc_now())
        record = RunRecord(registry, run, job)
        with record.recording():
            with record.stage("fit"):
                if kind == "fails":
                    raise InvalidRequest("no rows")
                if kind == "fails for now":
                    raise ConnectionError("away")
                if kind == "exits":
                    next(one for one in self.processes if one.actor.thread is threading.current_thread()).exit()
            registry.register(record.run, "p", promote=False, champion=None)
        record.done()

    # --- who acts

    def add(self, name: str, work: Callable[[], object]) -> Actor:
        self.actors.append(Actor(name, work))
        return self.actors[-1]

    def enqueue(self, kind: str) -> str:
        job = self.queue.enqueue("m", start=f"{len(self.kinds)}")
        self.kinds[job] = kind
        return job

    def start_worker(self, name: str) -> Actor:
        """A worker that takes jobs until there is none, in place of one that has ended or was killed."""

        def work() -> None:
            redis = self.client(text=False)
            worker = TrainWorker(redis, Registry(self.client()), self.storage)
            while found := worker.queue_class.dequeue_any(
                worker.queues, None, redis, job_class=TrainJob, serializer=JSONSerializer
            ):
                worker.execute_job(*found)

        if name not in self.workers or not self.workers[name].lives:
            self.workers[name] = self.add(name, work)
        return self.workers[name]

    def start_recovery(self) -> Actor:
        queue, registry = TrainingQueue(self.client(text=False)), Registry(self.client())
        return self.add("recovery", lambda: recover(queue.rq, registry, self.storage))

    def start_cancel(self, job: str) -> Actor:
        queue, registry = TrainingQueue(self.client(text=False)), Registry(self.client())

        def cancel() -> None:
            try:
                queue.cancel(job, registry)
            except Conflict:
                return
            self.cancelled.add(job)

        return self.add("cancel", cancel)

    def kill_worker(self, name: str) -> None:
        """SIGKILL for it, by which the system kills its process, too."""
        if name in self.workers and self.workers[name].lives:
            self.workers[name].kill()
            for process in self.processes:
                process.kill()  # of another worker, too: that is killed by hand

    def lapse(self) -> None:
        """Let more time pass than any lease lasts."""
        redis = self.queue.redis
        for key in redis.keys("rq:execution:*"):
            redis.delete(key)
        for key in redis.keys("*first_seen*"):
            redis.expire(key, 100)
        for job in redis.zrange(scheduled(self.queue.rq).key, 0, -1):
            redis.zadd(scheduled(self.queue.rq).key, {job: 0})

    @property
    def living(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.lives]

    def next_by_turns(self, but: Collection[Actor] = ()) -> bool:
        """Let the last that came on by a step, at every tenth turn the first; False where none of them lives.

        In turns of one step each, two that write to what the other watches would never end.
        """
        self.turn += 1
        if living := [actor for actor in self.living if actor not in but]:
            living[-1 if self.turn % 10 else 0].step()
        return bool(living)

    def finish(self, actor: Actor) -> None:
        """Let one on until it has ended, and whoever has come with it; the others stand still."""
        others = [one for one in self.living if one is not actor]
        while self.next_by_turns(but=others):
            pass

    def let_on(self, actor: Actor, random: Random) -> None:
        """Let one on for a few steps."""
        for _ in range(random.choice((1, 1, 3, 12))):
            if actor.lives:
                actor.step()

    def settle(self, random: Random) -> None:
        """Let all on, and time pass, until nothing waits or runs any more."""
        for _ in range(ROUNDS):
            for _ in range(STEPS):
                if not self.living:
                    break
                self.let_on(random.choice(self.living), random)
            if not self.queue._active() and not self.registry.runs.running() and not self._open():
                break
            self.lapse()
            self.start_recovery()
            self.start_worker("worker 1")
        for actor in self.actors:
            if actor.killed:
                actor.kill()
            if actor.error:
                raise AssertionError(f"{actor.name} failed") from actor.error

    def _open(self) -> bool:
        return bool(self.queue.redis.smembers(keys.OPEN_JOBS) or self.queue.redis.hgetall(keys.TRAININGS))

    def check(self) -> None:
        """Nothing is lost, nothing is in two places, nothing was done twice."""
        rq, redis = self.queue.rq, self.queue.redis
        lists = {
            "finished": set(rq.finished_job_registry.get_job_ids(cleanup=False)),
            "failed": set(rq.failed_job_registry.get_job_ids(cleanup=False)),
            "cancelled": set(rq.canceled_job_registry.get_job_ids(cleanup=False)),
        }
        assert not self.queue._active()
        assert not self._open()
        assert not self.registry.runs.running()
        versions = [self.registry.runs.get(version.run).job for version in self.registry.versions("m")]
        assert len(versions) == len(set(versions)), "a job has registered two versions"
        for job, kind in self.kinds.items():
            status = self.queue.job(job).status
            assert [name for name, ids in lists.items() if job in ids] == [status]
            assert (status == "cancelled") == (job in self.cancelled)
            if status == "finished":
                assert job in versions
            runs = [run for run in self.registry.runs.newest("m") if run.job == job]
            assert all(run.status in ("succeeded", "failed", "cancelled", "lost") for run in runs)
            told = [readable(fields) for _, fields in redis.xrange(keys.job_events(job))]
            again = [int(entry["attempt"]) for entry in told if entry["kind"] == "again"]
            assert again == list(range(1, len(again) + 1))
            if status == "failed" and kind == "succeeds":
                assert "attempt 3 of 3" in self.queue.job(job).error or "signal 9" in self.queue.job(job).error
        assert not redis.keys("rq:execution:*")


class _NoRandom:
    """In place of `random`: threads share it with the test, and pauses need not differ."""

    Random = staticmethod(lambda: Random(1))
    seed = staticmethod(lambda: None)


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let actors wait before whatever they send to Redis."""
    send = redis.connection.Connection.send_packed_command

    def wait_and_send(self: Any, command: Any, *arguments: Any, **more: Any) -> None:
        actor = getattr(threading.current_thread(), "actor", None)
        if actor is not None and not any(word in b"".join(command) for word in UNSEEN):
            actor.pause()
        send(self, command, *arguments, **more)

    monkeypatch.setattr(redis.connection.Connection, "send_packed_command", wait_and_send)
