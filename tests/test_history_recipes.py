"""The recipes in docs/history.md, run as they stand there, say what the store itself says."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelmill.settings import Settings
from modelmill.storage import Storage
from services.feature.app import feature_app
from services.feature.definitions.catalogue import Catalogue
from services.feature.upkeep.compaction import compact
from tests.conftest import ROOT
from tests.feature.conftest import Room

MILL = """
from modelmill import Entity, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={
    "x": float | None, "day": int | None, "year": str | None, "last": bool | None,%s
})
"""
LATER = (
    MILL % ' "later": int | None,'
    + """
from modelmill import feature

@feature(user, dtype=float | None)
def double(row):
    return None if row["x"] is None else 2 * row["x"]
"""
)
VALUES: dict[str, list[Any]] = {
    "x": [None, -0.5, 1e300], "day": [None, 7, 2**53 + 1], "year": [None, "", "2013", "ü"], "last": [None, True, False],
    "later": [None, 10**18 - 1],
}  # fmt: skip
RECIPES = dict(re.findall(r"```python (\w+)\n(.*?)```", (ROOT / "docs/history.md").read_text(), re.DOTALL))


def generated(room: Room, seed: int) -> None:
    """Rows with nulls, of few users at few times, in requests in any order; definitions that grow; compactions."""
    draw = random.Random(seed)
    columns = ["x", "day", "year", "last"]
    for request in range(10):
        if request == 5:
            room.define(LATER)
            columns.append("later")
        rows = [
            {"user_id": draw.choice("abc"), "at": f"2013-01-31T12:0{draw.randrange(3)}:00Z"}
            | {name: draw.choice(VALUES[name]) for name in columns}
            for _ in range(draw.randrange(1, 6))
        ]
        room.ingest("users", rows)
        if not draw.randrange(4):
            compact(room.catalogue, "users", fewest=2)


@pytest.fixture
def room(tmp_path: Path, fake_redis: Any, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A store whose history lies where the recipes look for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mill.py").write_text(MILL % "")
    catalogue = Catalogue(fake_redis, Storage(f"file://{tmp_path}/.modelmill/storage"), tmp_path / "mill.py")
    catalogue.apply()
    return Room(catalogue, feature_app(catalogue, Settings()).test_client())


def newest(library: str) -> dict[str, dict[str, Any]]:
    """User to the row that a recipe finds, from whatever its library calls a table."""
    names: dict[str, Any] = {}
    exec(RECIPES[library], names)
    found = names["newest"]
    if library == "duckdb":
        table = found.to_arrow_table()
    else:
        table = found.to_arrow() if library == "polars" else pa.Table.from_pandas(found, preserve_index=False)
    rows = {row["user_id"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows, "a user has one newest row"
    return rows


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("library", ["duckdb", "pandas", "polars"])
@pytest.mark.parametrize("seed", range(4))
def test_a_recipe_finds_what_a_lookup_shows_of_each_user(library: str, seed: int, room: Room) -> None:
    generated(room, seed)
    [field] = room.catalogue.definitions.derived("users")
    found = newest(library)
    answer = room.http.post("/entities/user/lookup", json={"keys": ["a", "b", "c"]})
    shown = {key: entity["features"] for key, entity in answer.get_json()["entities"].items() if entity}
    assert {key: {name: row[name] for name in VALUES} | {"double": row[field]} for key, row in found.items()} == shown


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("library", ["duckdb", "pandas", "polars"])
def test_a_recipe_does_not_find_who_is_forgotten(library: str, room: Room) -> None:
    generated(room, 0)
    assert room.http.delete("/entities/user/b").status_code == 200
    assert newest(library).keys() == {"a", "c"}
