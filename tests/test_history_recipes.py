"""The recipes in docs/history.md, run as they stand there on a real history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from modelmill.storage import Storage
from services.feature.definitions.catalogue import Catalogue
from services.feature.store.compaction import compact
from tests.conftest import ROOT
from tests.feature.conftest import Room

MILL = """
from modelmill import Entity, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float})
"""
RECIPES = dict(re.findall(r"```python (\w+)\n(.*?)```", (ROOT / "docs/history.md").read_text(), re.DOTALL))


@pytest.fixture
def room(tmp_path: Path, fake_redis: Any, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A history of two files, one of them compacted, where the recipes look for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mill.py").write_text(MILL)
    storage = Storage(f"file://{tmp_path}/.modelmill/storage")
    catalogue = Catalogue(fake_redis, storage, tmp_path / "mill.py")
    catalogue.apply()
    room = Room(catalogue, None)  # type: ignore[arg-type]
    for number in (3, 1):
        room.ingest("users", [{"user_id": "a", "at": f"2013-01-31T12:0{number}:00Z", "x": float(number)}])
    compact(catalogue, "users", fewest=2)
    room.ingest("users", [{"user_id": "b", "at": "2013-01-31T12:02:00Z", "x": 5.0}])
    return room


def rows(newest: Any) -> list[tuple[str, float]]:
    """User and value, from whatever the recipe's library calls a table."""
    table = newest.df() if hasattr(newest, "df") else newest.to_pandas() if hasattr(newest, "to_pandas") else newest
    table = table.reset_index() if "user_id" not in table.columns else table
    return sorted(zip(table["user_id"], table["x"], strict=True))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("library", ["duckdb", "pandas", "polars"])
def test_a_recipe_reads_the_newest_row_of_each_user(library: str, room: Room) -> None:
    names: dict[str, Any] = {}
    exec(RECIPES[library], names)
    assert rows(names["newest"]) == [("a", 3.0), ("b", 5.0)]
