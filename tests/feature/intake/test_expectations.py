from __future__ import annotations

from typing import Any

import pytest

from modelmill.errors import ExpectationFailed, Violation
from services.feature.intake.decode import RawRows
from services.feature.intake.ingest import ingest
from services.feature.store import history
from tests.feature.conftest import OpenRoom, Room, csv_rows

MILL = """
from modelmill import Entity, Expect, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float | None},
               expect=Expect(min_rows=2, max_rows=4, null_share={"x": 0.5}, unique=["user_id", "at"]))
"""
AT = "2013-01-31T12:00:00Z"


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def row(key: str, x: float | None = 1.0, at: str = AT) -> dict[str, Any]:
    return {"user_id": key, "at": at, "x": x}


def refused(room: Room, *rows: dict[str, Any]) -> list[Violation]:
    """What a batch violates, of which nothing was stored."""
    with pytest.raises(ExpectationFailed) as caught:
        room.ingest("users", rows)
    assert history.names(room.catalogue.storage, "users") == []
    assert list(room.redis.scan_iter("feature:*")) == []
    return [Violation(**violation) for violation in caught.value.fields["violations"]]


def test_a_batch_as_expected_is_stored(room: Room) -> None:
    assert room.ingest("users", [row("a"), row("a", at="2013-02-01"), row("b"), row("c", None)]).accepted == 4


def test_too_few_and_too_many_rows_are_named(room: Room) -> None:
    assert refused(room, row("a")) == [Violation("min_rows", "1 rows", "at least 2")]
    assert refused(room, *(row(key) for key in "abcde")) == [Violation("max_rows", "5 rows", "at most 4")]


def test_a_share_of_missing_values_is_named_with_what_was_found(room: Room) -> None:
    [violation] = refused(room, row("a"), row("b", None), row("c", None))
    assert violation == Violation("null_share of x", "2 of 3 rows (0.667) without a value", "a share of at most 0.5")


def test_repeated_rows_are_counted_and_one_is_shown(room: Room) -> None:
    [violation] = refused(room, row("a"), row("a", 2.0), row("b"))
    assert (violation.expectation, violation.expected) == ("unique by user_id, at", "each row once")
    assert violation.found.startswith("1 repeated rows, such as user_id=a, at=2013-01-31 12:00:00")


def test_missing_values_count_as_equal(open_room: OpenRoom) -> None:
    room = open_room(MILL.replace('unique=["user_id", "at"]', 'unique=["x"]'))
    [violation] = refused(room, row("a", None), row("b", None), row("c"), row("d", 2.0))
    assert violation.found == "1 repeated rows, such as x=None 2 times"


def test_every_violated_expectation_is_named(room: Room) -> None:
    answer = room.post("users", csv_rows(*[row("a", None)] * 5))
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    problem = answer.get_json()
    assert problem["type"] == "urn:modelmill:expectation-failed"
    assert [v["expectation"] for v in problem["violations"]] == ["max_rows", "null_share of x", "unique by user_id, at"]
    assert (
        "the batch is not what source 'users' expects and nothing was stored: max_rows: found 5 rows"
        in (problem["detail"])
    )


def test_rows_that_are_rejected_do_not_count_and_are_not_kept(room: Room) -> None:
    raw = RawRows({"user_id": ["a", ""], "at": [AT, AT], "x": [1.0, 1.0]}, range(1, 3))
    with pytest.raises(ExpectationFailed, match="min_rows: found 1 rows, expected at least 2"):
        ingest(room.catalogue, "users", raw, "digest", skip_bad=True)
    assert room.redis.keys("rejected:*") == []


def test_of_no_rows_at_all_only_the_number_is_violated(room: Room) -> None:
    answer = room.post("users", b"user_id,at,x\n")
    assert [v["expectation"] for v in answer.get_json()["violations"]] == ["min_rows"]
