"""The process of one attempt: waited for, killed, and ended with what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from modelmill.state.connections import Redis
from services.trainer.jobs.journal import LENGTH, Journal
from services.trainer.jobs.process import Horse, descendants, from_outside, how
from tests.eventually import eventually
from tests.trainer.workers import lives

Fork = Callable[[Callable[[], None]], Horse]


@pytest.fixture
def journal(fake_redis: Redis) -> Journal:
    return Journal(fake_redis, "j")


@pytest.fixture
def fork(journal: Journal) -> Fork:
    return lambda work: Horse.fork(journal, "r1", work)


def test_it_is_awaited_and_its_lines_are_shipped(fork: Fork, journal: Journal) -> None:
    def work() -> None:
        print("printed")
        os.write(2, b"written by a library\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)

    horse = fork(work)
    assert eventually(lambda: horse.wait(0.1), within=10, saying="it ends")
    status, usage = horse.end()
    horse.output.ship()
    assert status == 0
    assert usage.peak_memory_mb > 1
    assert [line.text for line in journal.lines("r1")] == ["printed", "written by a library", "by a child"]


def test_waiting_ends_in_time_and_a_killed_one_says_how(fork: Fork) -> None:
    horse = fork(lambda: time.sleep(60))
    begun = time.monotonic()
    assert not horse.wait(0.2)
    assert 0.2 <= time.monotonic() - begun < 2
    horse.kill()
    assert horse.wait(5)
    status, _ = horse.end()
    assert how(status) == "signal 9 (SIGKILL); the system may have been out of memory"


def test_one_that_never_stops_talking_is_bounded_in_time_and_in_memory(fork: Fork, journal: Journal) -> None:
    def work() -> None:
        while True:
            os.write(1, b"and on and on\n" * 1000)

    horse = fork(work)
    begun = time.monotonic()
    assert not horse.wait(0.5)
    assert time.monotonic() - begun < 5
    horse.kill()
    assert horse.wait(5)
    horse.end()
    horse.output.ship_some()
    numbers = [line.number for line in journal.lines("r1")]
    assert len(numbers) <= LENGTH
    assert numbers[-1] > len(numbers), "some were dropped, and that can be seen"


def test_a_burst_of_lines_is_shipped_while_it_goes_on_in_silence(fork: Fork, journal: Journal) -> None:
    def work() -> None:
        print("\n".join(map(str, range(2000))))
        time.sleep(60)

    horse = fork(work)
    for _ in range(100):
        if horse.wait(0.2) or len(list(journal.lines("r1"))) == 2000:
            break
    assert [line.text for line in journal.lines("r1")] == list(map(str, range(2000)))
    horse.end()


def test_nothing_that_it_started_outlives_it(fork: Fork, journal: Journal) -> None:
    def work() -> None:
        print(subprocess.Popen(["sleep", "60"]).pid)

    horse = fork(work)
    assert horse.wait(10)
    horse.end()
    horse.output.ship()
    [line] = journal.lines("r1")
    eventually(lambda: not lives(int(line.text)), within=5, saying="its child is gone")


DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); time.sleep(60)"
"""A program that leaves its session and its parents, as `daemon(3)` does."""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere who has lost its parent is not found")
@pytest.mark.parametrize("way", ["its end", "SIGKILL"])
@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run([sys.executable, "-c", DAEMON], check=True),
        lambda: subprocess.Popen(["sleep", "60"], start_new_session=True),
        lambda: subprocess.Popen(["sh", "-c", "(setsid sleep 60 &) ; setsid sleep 60"], start_new_session=True),
    ],
    ids=["daemon", "session", "family"],
)
def test_what_it_started_in_a_session_of_its_own_is_gone_with_it(
    fork: Fork, start: Callable[[], object], way: str
) -> None:
    def work() -> None:
        start()
        if way == "SIGKILL":
            time.sleep(60)

    before = set(descendants(os.getpid()))
    horse = fork(work)
    eventually(lambda: len(_beside(before)) > (way == "SIGKILL"), within=10, saying="it has started others")
    if way == "SIGKILL":
        horse.kill()
    assert horse.wait(10)
    horse.end()
    assert _beside(before) == []


def _beside(before: set[int]) -> list[int]:
    return [pid for pid in descendants(os.getpid()) if pid not in before]


def test_processes_that_are_none_of_its_business_live_on(fork: Fork) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        horse = fork(lambda: None)
        assert horse.wait(10)
        horse.end()
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    "status, outside",
    [
        (signal.SIGKILL, True),
        (signal.SIGTERM, True),
        (os.EX_TEMPFAIL << 8, True),
        (signal.SIGSEGV, False),
        (signal.SIGABRT, False),
        (0, False),
        (1 << 8, False),
    ],
)
def test_what_a_process_did_itself_is_told_from_what_came_from_outside(status: int, outside: bool) -> None:
    assert from_outside(status) is outside


def test_an_exit_code_is_told() -> None:
    assert how(3 << 8) == "exit code 3"
    assert how(signal.SIGSEGV) == "signal 11 (SIGSEGV)"
