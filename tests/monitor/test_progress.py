"""Lost entries are noticed, and none is reported lost that was not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from services.monitor.aggregates import Progress
from services.monitor.windows import COUNTED, LOST


def stream(*, first: str | None, last: str, length: int, added: int) -> dict[str, Any]:
    """What XINFO STREAM says."""
    entry = (first, {}) if first else None
    return {"first-entry": entry, "last-generated-id": last, "length": length, "entries-added": added}


def at(position: str, entries: int) -> Progress:
    return Progress(position, entries, {COUNTED: entries})


@pytest.mark.parametrize(
    "progress, said",
    [
        (Progress(), {}),
        (Progress(), stream(first="1-0", last="9-0", length=9, added=9)),
        (at("4-0", 4), stream(first="1-0", last="9-0", length=9, added=9)),
        (at("4-0", 4), stream(first="5-0", last="9-0", length=5, added=9)),
        (at("9-0", 9), stream(first="5-0", last="9-0", length=5, added=9)),
        (at("9-0", 9), stream(first=None, last="9-0", length=0, added=9)),
    ],
    ids=["no stream", "first start", "behind", "trimmed to the position", "at the end", "emptied"],
)
def test_nothing_is_lost_while_trimming_stays_behind(progress: Progress, said: dict[str, Any]) -> None:
    assert LOST not in progress.after_trimming(said).outcomes


@pytest.mark.parametrize(
    "progress, said, lost",
    [
        (at("4-0", 4), stream(first="7-0", last="9-0", length=3, added=9), 2),
        (at("4-0", 4), stream(first=None, last="9-0", length=0, added=9), 5),
        (at("9-0", 8), stream(first="5-0", last="9-0", length=5, added=9), 1),
        (Progress(), stream(first="7-0", last="9-0", length=3, added=9), 6),
    ],
    ids=["trimmed past the position", "emptied", "noticed at the end", "before the first start"],
)
def test_entries_that_were_trimmed_unread_are_counted(progress: Progress, said: dict[str, Any], lost: int) -> None:
    assert progress.after_trimming(said).outcomes[LOST] == lost


def test_a_loss_is_counted_once() -> None:
    said = stream(first="7-0", last="9-0", length=3, added=9)
    once = at("4-0", 4).after_trimming(said)
    assert once.after_trimming(said) == once


def test_a_stream_that_was_deleted_and_begins_again_has_lost_nothing() -> None:
    begun_again = stream(first="10-0", last="11-0", length=2, added=2)
    assert LOST not in at("9-0", 9).after_trimming(begun_again).outcomes


def test_what_was_read_adds_up() -> None:
    after = at("4-0", 4).after("6-0", Counter({COUNTED: 2}))
    assert after == Progress("6-0", 6, {COUNTED: 6})


def test_progress_comes_back_from_its_hash() -> None:
    progress = Progress("6-0", 6, {COUNTED: 4, LOST: 2})
    assert Progress.from_hash(progress.to_hash()) == progress
