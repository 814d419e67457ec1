"""How definitions come into force while rows come in, and what a live version keeps."""

from __future__ import annotations

from typing import Any

import pytest

from modelmill.errors import Conflict, UnknownName
from modelmill.state import keys
from modelmill.state.aliases import ROLLBACKS
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, new_run_id
from services.feature.definitions import catalogue as module
from services.feature.definitions.catalogue import Catalogue
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Model, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float, "target": int})

@feature(user, dtype=float, max_failed=0.25)
def f(row):
    return row["x"] * 2

Model("m", entities=[user], features=["x", "f"], label="target", estimator=None)
"""
CHANGED = MILL.replace("* 2", "* 3")
FAILING = MILL.replace('row["x"] * 2', '1 / (row["x"] - 1)')


def row(key: str = "u", x: float = 1.0, at: int = 0) -> dict[str, Any]:
    return {"user_id": key, "at": f"2013-01-31T12:00:{at:02}Z", "x": x, "target": 1}


def field(room: Room) -> str:
    """Where the feature that is in force is stored."""
    return room.catalogue.definitions.features_of("user")["f"].field


def train(room: Room) -> tuple[int, str]:
    """Register a version trained with the definitions in force, as champion; it and the field that it is served from."""
    registry, stored = Registry(room.redis), field(room)
    run = Run(
        id=new_run_id(),
        model="m",
        started="2026-11-25T12:00:00.000000Z",
        fields=["users.x", f"users.{stored}"],
        definitions=room.catalogue.definitions.fingerprint,
    )
    registry.runs.start(run)
    champion = registry.aliases("m").get("champion")
    return registry.register(run, "packages/m", promote=True, champion=champion).version, stored


def online(room: Room, key: str = "u") -> dict[str, str]:
    found: dict[str, str] = room.redis.hgetall(keys.feature("user", key))
    return found


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    room.ingest("users", [row()])
    return room


def test_what_a_live_version_was_trained_with_goes_on_being_computed(room: Room) -> None:
    _, former = train(room)
    room.define(CHANGED)
    room.ingest("users", [row(x=5.0, at=1), row("new", x=7.0)])
    assert (online(room)[former], online(room)[field(room)]) == ("10.0", "15.0")
    assert (online(room, "new")[former], online(room, "new")[field(room)]) == ("14.0", "21.0")


def test_a_service_that_starts_later_computes_it_too(room: Room, open_room: OpenRoom) -> None:
    _, former = train(room)
    room.define(CHANGED)
    later = open_room()
    later.ingest("users", [row("new", x=7.0)])
    assert online(room, "new")[former] == "14.0"


def test_what_no_version_needs_is_gone_at_once(room: Room) -> None:
    former = field(room)
    room.define(CHANGED)
    assert former not in online(room)
    assert online(room)[field(room)] == "3.0"


def test_what_no_version_needs_any_more_is_gone_when_the_last_alias_has_moved_on(room: Room) -> None:
    _, former = train(room)
    room.define(CHANGED)
    for _ in range(ROLLBACKS):
        train(room)
    room.catalogue.serve_live_versions()
    assert former in online(room), "rollbacks would go back to it"
    train(room)
    room.catalogue.serve_live_versions()
    assert former not in online(room)


def test_a_version_that_becomes_live_again_gets_its_features_back(room: Room) -> None:
    number, former = train(room)
    room.define(CHANGED)
    for _ in range(ROLLBACKS + 1):
        train(room)
    room.catalogue.serve_live_versions()
    room.ingest("users", [row("new", x=7.0)])
    Registry(room.redis).promote("m", number, by="test")
    room.catalogue.serve_live_versions()
    assert (online(room)[former], online(room, "new")[former]) == ("2.0", "14.0")


def test_until_all_rows_are_computed_the_former_definitions_are_in_force(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, fingerprint = field(room), room.catalogue.definitions.fingerprint
    seen: list[tuple[str, str | None, bool]] = []
    backfill = module.backfill

    def watched(*arguments: Any) -> int:
        room.ingest("users", [row("meanwhile", x=7.0)])
        coming = next(f for f in online(room, "meanwhile") if f.startswith("f@") and f != former)
        seen.append((field(room), room.redis.hget(keys.DEFINITIONS, "fingerprint"), coming in online(room)))
        return backfill(*arguments)

    monkeypatch.setattr(module, "backfill", watched)
    room.define(CHANGED)
    assert seen == [(former, fingerprint, False)]
    assert (online(room)[field(room)], online(room, "meanwhile")[field(room)]) == ("3.0", "21.0")


def test_a_function_that_fails_on_too_many_rows_leaves_the_former_one_in_force(room: Room) -> None:
    room.ingest("users", [row("v", x=1.0), row("w", x=2.0)])
    former = field(room)
    with pytest.raises(Conflict) as caught:
        room.define(FAILING)
    assert (
        "feature 'f' fails on 2 of 3 stored rows, for instance with 'ZeroDivisionError: float division by zero'; its"
        " max_failed is 0.25, so the former definitions stay in force" in str(caught.value)
    )
    assert field(room) == former
    assert {name for name in online(room, "w") if name.startswith("f@")} == {former}
    room.ingest("users", [row("new", x=7.0)])
    assert {name for name in online(room, "new") if name.startswith("f@")} == {former}
    assert room.catalogue.progress.read()["state"] == "failed"


def test_a_function_that_fails_on_few_rows_comes_into_force_and_says_on_how_many(room: Room) -> None:
    room.ingest("users", [row(str(n), x=2.0) for n in range(4)])
    assert room.define(FAILING).failed == {"f": 1}


def test_a_killed_application_is_brought_to_its_end_by_the_next_start(
    room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, "register", die)
        with pytest.raises(Killed):
            room.define(CHANGED)
    room.redis.delete(keys.DEFINITIONS_LOCK)  # the lease of a process that is dead ends by itself
    another = open_room()
    assert another.catalogue.definitions.code.text == MILL
    another.catalogue.resume()
    assert another.catalogue.definitions.code.text == CHANGED
    assert another.catalogue.progress.read()["state"] == "done"


@pytest.mark.parametrize("text", ["", MILL.replace('"x": float, ', "").split("@feature")[0]])
def test_a_column_that_a_live_version_is_served_from_cannot_go(text: str, room: Room) -> None:
    train(room)
    with pytest.raises(Conflict, match=r"column.x: removed: m version 1 is served from it; keep it until no alias"):
        room.define(text)


def test_a_text_that_was_never_applied_is_not_run(room: Room) -> None:
    room.redis.hset(keys.DEFINITIONS, "applying", "0" * 64)
    with pytest.raises(UnknownName, match=r"definitions .0+. is not known"):
        Catalogue(room.redis, room.catalogue.storage, room.catalogue.path)


AGGREGATED = MILL.replace("import Entity", "import Aggregate, Entity").replace(
    "Model(", 'Aggregate(users, "x", "sum", window="1d", hop="1h", name="total")\n\nModel('
)


def train_on_total(room: Room) -> str:
    """Register a version that is served from the aggregate, as champion; the group of its tiles."""
    [group] = room.catalogue.definitions.tile_groups(room.source("users"))
    registry = Registry(room.redis)
    run = Run(
        id=new_run_id(),
        model="m",
        started="2026-11-25T12:00:00.000000Z",
        fields=[f"users.{group.name}"],
        definitions=room.catalogue.definitions.fingerprint,
    )
    registry.runs.start(run)
    registry.register(run, "packages/m", promote=True, champion=registry.aliases("m").get("champion"))
    return group.name


def test_tiles_of_a_live_version_go_on_being_filled_after_its_aggregate_has_changed(open_room: OpenRoom) -> None:
    room = open_room(AGGREGATED)
    room.ingest("users", [row()])
    group = train_on_total(room)
    room.define(AGGREGATED.replace('hop="1h"', 'hop="2h"'))
    room.ingest("users", [row("new", x=7.0)])
    assert '"7.0"' in room.redis.hvals(keys.tiles(group, "new"))[0]
    room.define(MILL)
    room.ingest("users", [row("later", x=8.0)])
    assert '"8.0"' in room.redis.hvals(keys.tiles(group, "later"))[0]
    assert len({key.split(":")[1] for key in room.redis.scan_iter("tiles:*")}) == 1
