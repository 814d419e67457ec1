"""How long `modelmill up` waits for a process that it has started."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelmill import local as module
from modelmill.errors import Unavailable
from modelmill.local import Local
from modelmill.settings import Settings


class Clock:
    """A time of its own, which passes while somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def wait(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Wait for a service of which supervisord tells process ids and a state, and which answers after some seconds."""

    def wait(pids: Iterator[int], state: str = "RUNNING", answers_after: float = float("inf")) -> None:
        def told(_: Local, *__: Any) -> dict[str, Any]:
            return {"pid": next(pids), "statename": state}

        monkeypatch.setattr(Local, "_ask", told)
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs/feature.log").write_text("one\nModuleNotFoundError: no module\n")
        Local(tmp_path, Settings())._wait_for("feature", lambda: clock.now >= answers_after)

    return wait


def test_up_waits_for_a_process_as_long_as_it_lives(wait: Callable[..., None], clock: Clock) -> None:
    wait(itertools.repeat(7), answers_after=500)
    assert 500 <= clock.now < 501


@pytest.mark.parametrize(
    ("pids", "state"),
    [(itertools.count(1), "RUNNING"), (itertools.repeat(0), "FATAL")],
    ids=["started again and again", "given up by supervisord"],
)
def test_up_gives_up_at_once_where_a_process_ends_each_time(
    pids: Iterator[int], state: str, wait: Callable[..., None], clock: Clock
) -> None:
    with pytest.raises(
        Unavailable, match=r"feature ended each time that it was started; its log ends:\none\nModuleNot"
    ):
        wait(pids, state)
    assert clock.now < 1


def test_up_does_not_wait_for_ever(wait: Callable[..., None], clock: Clock) -> None:
    with pytest.raises(Unavailable, match=r"waited 600 s for feature; its log ends:\none\n"):
        wait(itertools.repeat(7))
    assert 600 <= clock.now < 601
