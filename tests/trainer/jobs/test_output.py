"""What a process writes becomes lines in the journal."""

from __future__ import annotations

import os

import pytest
import redis.exceptions

from modelmill.state.connections import Redis
from services.trainer.jobs import process
from services.trainer.jobs.journal import Journal
from services.trainer.jobs.process import LONGEST_LINE, Output


class Writer:
    """An output, and the end of its pipe that a process would write to."""

    def __init__(self, redis: Redis) -> None:
        self.journal = Journal(redis, "j")
        self.output = Output(self.journal, "r1")
        self._end = os.dup(self.output._writing)
        self.output.hand_over()

    def write(self, content: bytes) -> None:
        os.write(self._end, content)
        self.output.read()
        self.output.ship()

    def end(self) -> None:
        os.close(self._end)
        self.output.close()
        self.output.ship()

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.journal.lines("r1")]


@pytest.fixture
def writer(fake_redis: Redis) -> Writer:
    return Writer(fake_redis)


def test_lines_come_whole_however_they_are_written(writer: Writer) -> None:
    for piece in (b"one\ntw", b"o\n", b"three"):
        writer.write(piece)
    assert writer.lines == ["one", "two"]
    writer.end()
    assert writer.lines == ["one", "two", "three"]


def test_a_progress_bar_is_shown_as_it_ends(writer: Writer) -> None:
    writer.write(b"\r 10 %\r 50 %\r100 %\n\r\n")
    assert writer.lines == ["100 %", ""]


def test_what_is_no_text_and_what_never_ends_is_taken(writer: Writer) -> None:
    writer.write(b"\xff\n" + b"x" * (4 * LONGEST_LINE + 1))
    writer.write(b"y\n")
    assert writer.lines == ["�", "x" * LONGEST_LINE + "...", "y"]


def test_lines_without_the_lease_wait_for_who_knows_that_they_are_right(writer: Writer, fake_redis: Redis) -> None:
    fake_redis.set("lease", "")
    writer.journal.lease = "lease"
    writer.write(b"in time\n")
    fake_redis.delete("lease")
    writer.write(b"last words\n")
    assert writer.lines == ["in time"]
    writer.output.ship(fenced=False)
    assert writer.lines == ["in time", "last words"]


def test_while_redis_is_away_the_newest_lines_wait(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LINES_PER_WRITE", 2)
    add = writer.journal.add

    def away(*_: object, **__: object) -> bool:
        raise redis.exceptions.ConnectionError("away")

    monkeypatch.setattr(writer.journal, "add", away)
    writer.write(b"".join(b"%d\n" % number for number in range(process.WAITING // 10)))
    assert writer.lines == []
    monkeypatch.setattr(writer.journal, "add", add)
    writer.write(b"".join(b"%d\n" % number for number in range(5)))
    assert writer.lines[-6:] == ["999", "0", "1", "2", "3", "4"]
    assert [line.number for line in writer.journal.lines("r1")] == list(range(1, 1006))
