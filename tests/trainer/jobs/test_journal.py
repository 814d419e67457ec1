"""What a job tells: its stream in Redis, and the log of a run as a file."""

from __future__ import annotations

import pytest

from modelmill.state.connections import Redis
from modelmill.storage import Storage
from services.trainer.jobs import journal
from services.trainer.jobs.journal import Journal, archive, as_text, log_entries, read_log


def texts(found: str) -> list[str]:
    """The lines of a log without their times."""
    return [line.partition("  ")[2] or line for line in found.splitlines()]


def test_lines_come_back_by_run_in_their_order(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ENTRIES_PER_PAGE", 2)
    told = Journal(fake_redis, "j")
    told.add(log_entries("r1", 1, ["one", "two", "three"]))
    told.add([{"kind": "stage", "run": "r1", "stage": "fit", "progress": "0.2"}, *log_entries("r2", 1, ["other"])])
    told.add(log_entries("r1", 4, ["four"]))
    assert [line.text for line in told.lines("r1")] == ["one", "two", "three", "four"]
    assert [line.text for line in told.lines("r2")] == ["other"]


def test_nothing_is_added_without_the_lease(fake_redis: Redis) -> None:
    fake_redis.set("lease", "")
    told = Journal(fake_redis, "j", "lease")
    assert told.add(log_entries("r1", 1, ["in time"]))
    fake_redis.delete("lease")
    assert not told.add(log_entries("r1", 2, ["too late"]))
    assert texts(as_text(told.lines("r1"))) == ["in time"]


def test_the_journal_is_bounded_and_says_what_was_dropped(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LENGTH", 3)
    told = Journal(fake_redis, "j")
    for number in range(1, 9):
        told.add(log_entries("r1", number, [str(number)]))
    assert texts(as_text(told.lines("r1"))) == ["... 5 lines dropped ...", "6", "7", "8"]


def test_it_expires_a_day_after_its_last_entry(fake_redis: Redis) -> None:
    Journal(fake_redis, "j").add(log_entries("r1", 1, ["x"]))
    assert 0 < fake_redis.ttl("job:j:events") <= 86400


def test_a_log_is_read_from_the_storage_once_it_lies_there(fake_redis: Redis, storage: Storage) -> None:
    told = Journal(fake_redis, "j")
    told.add(log_entries("r1", 1, ["while it runs", "ünïcode"]))
    live = read_log(storage, told, "m", "r1")
    archive(storage, told, "m", "r1")
    fake_redis.flushall()
    assert read_log(storage, told, "m", "r1") == live
    assert texts(live) == ["while it runs", "ünïcode"]
    assert storage.names("runs", ".txt") == ["runs/m/r1/log.txt"]
