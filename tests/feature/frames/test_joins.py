"""What a spine sees of stored history, file by file and chunk by chunk, against a reader that looks at every row."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.storage import Storage
from services.feature.frames import joins, spines
from services.feature.frames.frames import Wanted, spine_frame
from services.feature.frames.joins import AsOf
from services.feature.frames.spines import Spine
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME, TIME
from services.feature.store import history
from services.feature.store.snapshots import Snapshot
from tests.feature.frames.test_visibility import CUTS, KEYS, SPINES, TIMES, Ask, brute_force

MILL = """
from modelmill import Entity, Source, feature

user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"a": int | None}, max_age="3s")

@feature(user, dtype=int)
def b(row):
    return row["a"]
"""
SECOND = 1_000_000

Stored = tuple[int, int, str | None, int | None]
"""Event time and ingest time in seconds, key, and value; the function `b` fails where there is none."""


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Definitions:
    path = tmp_path_factory.mktemp("mill") / "mill.py"
    path.write_text(MILL)
    return load(path)


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Five rows of a spine make three chunks, located in two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spines, "ROWS_PER_CHUNK", 2)
        patch.setattr(joins, "LOCATED", 2)
        yield


def store(storage: Storage, definitions: Definitions, rows: Sequence[Stored], cuts: Sequence[int]) -> None:
    """One history file up to each of `cuts`, and one of the rest."""
    [stored] = definitions.derived("users")
    ends = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        part = rows[start:end]
        columns: dict[str, list[Any]] = {
            "user_id": [key for *_, key, _ in part],
            "a": [value for *_, value in part],
            stored: [value for *_, value in part],
            EVENT_TIME: [event * SECOND for event, *_ in part],
            history.INGEST_TIME: [ingest * SECOND for _, ingest, *_ in part],
            FAILED: [f'{{"{stored}":"ValueError: returned None"}}' if value is None else None for *_, value in part],
        }
        table = pa.table(columns, history.schema(definitions, definitions.source("users")))
        history.write(storage, f"history/users/day=2026-01-01/{number:09d}.parquet", table)


def spine_of(asked: Sequence[Ask]) -> Spine:
    table = pa.table({
        "n": pa.array(range(len(asked)), pa.int64()),
        "user_id": pa.array([key for _, key in asked], pa.string()),
        "at": pa.array([time * SECOND for time, _ in asked], TIME),
    })  # fmt: skip
    return Spine(table.schema, "at", table.to_batches())


def expected(asked: Sequence[Ask], rows: Sequence[Stored], as_of: AsOf) -> list[tuple[Any, ...]]:
    """`a`, its status, `b`, its status, for each row of the spine."""
    found: list[tuple[Any, ...]] = []
    for position, expired in brute_force(asked, [row[:3] for row in rows], as_of, max_age=3):
        value = None if position is None or expired else rows[position][3]
        if expired:
            found.append((None, "expired", None, "expired"))
        elif position is None:
            found.append((None, "missing", None, "missing"))
        elif value is None:
            found.append((None, "missing", None, "failed"))
        else:
            found.append((value, "present", value, "present"))
    return found


ROWS = st.lists(st.tuples(TIMES, TIMES, KEYS.filter(bool), st.none() | st.integers(0, 99)), max_size=12)


@settings(max_examples=60)
@given(SPINES, ROWS, st.sampled_from(get_args(AsOf)), CUTS)
def test_a_frame_of_any_spine_and_history_is_what_the_rule_says(
    definitions: Definitions, asked: list[Ask], rows: list[Stored], as_of: AsOf, cuts: list[int]
) -> None:
    refs = definitions.resolve(["user"], ["a", "user.b"])
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder).as_uri())
        if rows:
            store(storage, definitions, rows, cuts)
        with spine_frame(storage, definitions, spine_of(asked), Wanted(refs, as_of, detail=True)) as frame:
            table = frame.table()
        with spine_frame(storage, definitions, spine_of(asked), Wanted(refs, as_of)) as frame:
            plain = frame.table()
    assert table.column_names == ["n", "user_id", "at", "a", "a.status", "user.b", "user.b.status"]
    assert plain == table.select(plain.column_names)
    assert table["n"].to_pylist() == list(range(len(asked)))
    assert [tuple(row.values())[3:] for row in table.to_pylist()] == expected(asked, rows, as_of)


def test_rows_that_are_ingested_meanwhile_are_not_in_the_frame(
    definitions: Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path.as_uri())
    store(storage, definitions, [(0, 0, "u", 1)], [])
    refs = definitions.resolve(["user"], ["a"])
    read = Snapshot.batches

    def read_and_ingest(*asked: Any) -> Any:
        yield from read(*asked)
        store(storage, definitions, [(0, 0, "u", 1), (1, 1, "u", 2)], [1])

    monkeypatch.setattr(Snapshot, "batches", read_and_ingest)
    with spine_frame(storage, definitions, spine_of([(1, "u")]), Wanted(refs)) as frame:
        assert frame.table()["a"].to_pylist() == [1]
