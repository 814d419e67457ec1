"""Tiles of aggregates hold nothing of an entity that was forgotten, and all else, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelmill.errors import Conflict, Unavailable
from modelmill.state import keys
from modelmill.times import micros
from services.feature.proof import erasure
from services.feature.proof import forget as module
from services.feature.proof.forget import forget
from services.feature.proof.receipts import Receipt
from services.feature.store import journal, online, tile_groups
from services.feature.upkeep import rebuild as rebuilding
from services.feature.upkeep.statistics import StatisticsFiles
from tests.feature.brute_force import Row, brute_force
from tests.feature.conftest import OpenRoom, Room

SOURCES = """
from modelmill import Aggregate, Entity, Source
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
sales = Source("sales", entities=[user, item], event_time="at", columns={"amount": float})
"""
MILL = f"""{SOURCES}
Aggregate(sales, "amount", "sum", window="1d", hop="1h", by=item, name="sold")
Aggregate(sales, "amount", "max", window="1d", hop="1h", by=item, name="most")
Aggregate(sales, "amount", "last", window="2d", hop="1d", by=item, name="last")
Aggregate(sales, "amount", "sum", window="1d", hop="1h", by=user, name="spent")
"""
KEY, OTHER = "forget:me *", "other"
USERS, ITEMS = [KEY, OTHER], ["hers", "both", "others", "new"]


class Killed(BaseException):
    """Stands for SIGKILL."""


def sale(user: str, item: str, amount: float, hours: float = 3) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(hours=hours)
    return {"user_id": user, "item_id": item, "at": at.isoformat(), "amount": amount}


def sell(room: Room) -> None:
    room.ingest("sales", [sale(KEY, "hers", 8.0), sale(KEY, "both", 4.0), sale(OTHER, "both", 2.0)])
    room.ingest("sales", [sale(OTHER, "both", 0.1, 5), sale(KEY, "both", 0.2, 5), sale(OTHER, "others", 1.0)])


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    sell(room)
    return room


def forget_user(room: Room) -> Receipt:
    return forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", KEY)


def served(room: Room, entity: str, key: str, at: datetime) -> dict[str, Any]:
    [found] = online.read(room.redis, room.catalogue.definitions, entity, [key], at)
    return dict(found.features) if found.there else {}


def check(room: Room, *, of_key: int = 0) -> None:
    """Require that values are those of the rows in the history, of which so many name the key, and nothing is left
    over."""
    history = room.history("sales").to_pylist()
    assert [row["user_id"] for row in history].count(KEY) == of_key
    at = datetime.now(UTC)
    for entity, names in {"user": USERS, "item": ITEMS}.items():
        for key in names:
            rows = [
                Row(
                    row[f"{entity}_id"],
                    *(micros(row[n]) for n in ("_event_time", "_ingest_time")),
                    row["amount"],
                )
                for row in history
            ]
            wanted = {
                name: brute_force(aggregate.reading, rows, key, micros(at))
                for name, aggregate in room.catalogue.definitions.aggregates.get(entity, {}).items()
            }
            found = served(room, entity, key, at)
            assert found == wanted or (found, set(wanted.values())) == ({}, {None}), (entity, key)
    groups = {group.name for group in room.catalogue.definitions.tile_groups(room.source("sales"))}
    assert {name.split(":")[1] for name in room.redis.scan_iter("tiles:*")} <= groups
    registered = {name.split(":")[1]: room.redis.hkeys(name) for name in room.redis.scan_iter("tilegroup:*")}
    assert registered == {group: ["start", "rows", "filled"] for group in groups}
    for name in room.redis.scan_iter("tiles:*"):
        _, group, key = name.split(":", 2)
        column = "user_id" if ".user." in group else "item_id"
        assert key in {row[column] for row in history}, "no row is left of it"


def before(monkeypatch: pytest.MonkeyPatch, of: object, function: str, happens: Callable[..., Any]) -> None:
    """Let something happen before the first call of a function."""
    real, once = getattr(of, function), [happens]

    def called(*arguments: Any, **more: Any) -> Any:
        if once:
            once.pop()(*arguments, **more)
        return real(*arguments, **more)

    monkeypatch.setattr(of, function, called)


def test_a_forgotten_entity_is_in_no_tile_of_another(room: Room) -> None:
    receipt = forget_user(room)
    check(room)
    assert receipt.counts.tiles == 5, "two items by the hour and by the day, and its own"


def test_tiles_of_entities_that_it_was_never_named_with_are_not_touched(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = []
    before(monkeypatch, tile_groups, "_swap", lambda *arguments: swapped.extend(arguments[3]))
    forget_user(room)
    assert set(swapped) <= {"hers", "both", KEY}


STAGES = [(tile_groups, "_await_earlier"), (tile_groups, "_add_slab"), (journal, "paused"), (module, "_erase_history")]
NAMED = [function for _, function in STAGES]


@pytest.mark.parametrize(("of", "function"), STAGES, ids=NAMED)
def test_rows_that_come_in_while_an_entity_is_forgotten_count_once(
    of: object, function: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = [sale(KEY, "both", 32.0), sale(KEY, "new", 64.0), sale(OTHER, "hers", 128.0), sale(OTHER, "both", 0.7, 5)]
    before(monkeypatch, of, function, lambda *_: room.ingest("sales", coming))
    forget_user(room)
    check(room, of_key=2)


def test_while_tiles_take_the_place_of_others_rows_are_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        with pytest.raises(Unavailable, match="'sales' takes no rows while its tiles are made anew, some seconds"):
            room.ingest("sales", [sale(OTHER, "both", 1.0)])

    before(monkeypatch, tile_groups, "_swap", refused)
    forget_user(room)
    check(room)


def test_nobody_reads_tiles_that_hold_half_of_the_rows(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_groups, "SLAB", 1)
    add_slab, seen = tile_groups._add_slab, []

    def looks(*arguments: Any) -> None:
        add_slab(*arguments)
        seen.append(served(room, "item", "both", at)["sold"])

    at = datetime.now(UTC)
    sold = served(room, "item", "both", at)["sold"]
    monkeypatch.setattr(tile_groups, "_add_slab", looks)
    forget_user(room)
    assert len(seen) == 4, "two rows that are left, by the hour and by the day"
    assert set(seen) <= {sold, served(room, "item", "both", at)["sold"]}


def half_swapped(redis: Any, group: Any, name: str, entities: dict[str, bool], pause: str) -> None:
    swap(redis, group, name, dict(list(entities.items())[:1]), pause)


swap = tile_groups._swap
ENDS = {
    "in a slab": (tile_groups, "_add_slab", tile_groups._add_slab),
    "before the exchange": (tile_groups, "_swap", None),
    "amid the exchange": (tile_groups, "_swap", half_swapped),
    "after the exchange": (tile_groups, "_swap", swap),
    "before the history": (module, "_erase_history", None),
    "amid the history": (erasure, "rewrite", erasure.rewrite),
    "after the history": (module, "remove_tiles", None),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_forgetting_that_was_killed_is_brought_to_its_end_by_the_next(
    end: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_groups, "SLAB", 1)
    of, function, done = ENDS[end]

    def dies(*arguments: Any, **more: Any) -> None:
        if done is not None:
            done(*arguments, **more)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(of, function, dies)
        with pytest.raises(Killed):
            forget_user(room)
    room.ingest("sales", [sale(OTHER, "both", 16.0), sale(KEY, "new", 64.0)])
    receipt = forget_user(room)
    check(room)
    assert receipt.counts.tiles >= 5


def test_an_exchange_that_is_sent_twice_changes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose answer was lost is sent again."""
    before(monkeypatch, tile_groups, "_swap", swap)
    forget_user(room)
    check(room)


def test_who_was_stopped_until_its_pause_had_passed_exchanges_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {name: room.redis.hgetall(name) for name in room.redis.scan_iter("tiles:*")}
    with monkeypatch.context() as patched:
        before(patched, tile_groups, "_swap", lambda *_: room.redis.set(keys.ingest_paused("sales"), "another's"))
        with pytest.raises(Conflict, match="others went on with the tiles sales"):
            forget_user(room)
    assert {name: room.redis.hgetall(name) for name in stored} == stored
    room.redis.delete(keys.ingest_paused("sales"))
    forget_user(room)
    check(room)


def test_who_was_stopped_while_others_filled_the_tiles_exchanges_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = room.catalogue.definitions.tile_groups(room.source("sales"))
    with monkeypatch.context() as patched:
        before(patched, journal, "paused", lambda *_: tile_groups.restart(room.redis, "sales", groups))
        with pytest.raises(Conflict, match="others went on with the tiles sales"):
            forget_user(room)
    for group in groups:
        tile_groups.fill(room.redis, room.catalogue.storage, group, lambda _: None)
    check(room, of_key=3)


@pytest.mark.parametrize("done", [0, 1], ids=["in its first slab", "in its second"])
def test_while_tiles_are_not_filled_nothing_is_forgotten(
    done: int, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_groups, "SLAB", 1)
    room = open_room(SOURCES)
    sell(room)
    add_slab, slabs = tile_groups._add_slab, []

    def dies(*arguments: Any) -> None:
        slabs.append(1)
        if len(slabs) > done:
            raise Killed
        add_slab(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(tile_groups, "_add_slab", dies)
        with pytest.raises(Killed):
            room.define(MILL)
    with pytest.raises(Conflict, match="the tiles of aggregates of source 'sales' are not filled yet; try again later"):
        forget_user(room)
    room.catalogue.apply()
    check(room, of_key=3)
    forget_user(room)
    check(room)


def test_no_rebuild_fills_tiles_with_rows_that_are_being_erased(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "HISTORY_WAIT_SECONDS", 0.1)

    def rebuild(*_: Any) -> None:
        rebuilding._record_begin(room.redis, "")
        rebuilding.rebuild(room.catalogue)

    def refused(*_: Any) -> None:
        with pytest.raises(Conflict, match="others are rewriting sales at this moment"):
            rebuild()

    before(monkeypatch, module, "_erase_history", refused)
    forget_user(room)
    check(room)
    rebuild()
    check(room)


def test_tiles_of_aggregates_that_another_process_has_put_in_force_are_reached(open_room: OpenRoom) -> None:
    room = open_room(SOURCES)
    sell(room)
    other = open_room(None)
    room.define(MILL)
    forget(other.catalogue, StatisticsFiles(other.catalogue.storage), "user", KEY)
    check(room)


def test_tiles_that_were_being_made_go_with_their_group(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(tile_groups, "_swap", dies)
        with pytest.raises(Killed):
            forget_user(room)
    room.define(SOURCES)
    assert [*room.redis.scan_iter("tiles:*"), *room.redis.scan_iter("tilegroup:*")] == []
