"""What was removed may be declared again, also as something else: what is stored decides whether it may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelmill.errors import Conflict
from services.feature.definitions.catalogue import Catalogue
from services.feature.store import history
from services.feature.upkeep import rebuild
from tests.feature.conftest import OpenRoom, Room

IMPORTS = "from modelmill import Aggregate, Entity, Source, feature\n"
USER = "user = Entity('user', key='user_id')\n"
USERS = "users = Source('users', entity=user, event_time='at', columns={'x': float, 'n': int | None})\n"
MORE = "more = Source('more', entity=user, event_time='at', columns={'m': int})\n"
F = "@feature(users, dtype=float)\ndef f(row):\n    return row['x'] * 2\n"
SUM = "Aggregate(users, 'x', 'sum', window='2h', hop='1m', name='a')\n"
WHOLE = IMPORTS + USER + USERS + MORE + F + SUM

WITHOUT_N = WHOLE.replace(", 'n': int | None", "")
WITHOUT_USERS = IMPORTS + USER + MORE
WITHOUT_F, WITHOUT_SUM = WHOLE.replace(F, ""), WHOLE.replace(SUM, "")
NOTHING = IMPORTS
ACCOUNT = "account = Entity('account', key='user_id')\n"

REFUSED = {
    # what is removed, what is declared then, and why not
    "a column of another type": (WITHOUT_N, ("int | None", "str | None"), "column.n: added (str?): values of a former"),
    "a column of a wider type": (WITHOUT_N, ("int | None", "float | None"), "are stored, as int; declare it under another"),
    "a column that may not be missing": (WITHOUT_N, ("int | None", "int"), "added (int): stored rows have no value for it"),
    "a source with a column of another type": (WITHOUT_USERS, ("float,", "int,"), "column.x: added (int): values of a former"),
    "a source without event times": (WITHOUT_USERS, (", event_time='at', columns={'x'", ", columns={'x'"),
        "added (user by user_id, at their ingest): rows of user by user_id, at their at are stored under it"),
    "a source with another event time": (WITHOUT_USERS, ("'at', columns={'x'", "'time', columns={'x'"), "are stored under it"),
    "a source of another entity with the same key": (
        WITHOUT_USERS, (USERS, ACCOUNT + USERS.replace("=user", "=account")), "rows of user by user_id, at their at"),
    "a source of several entities": (
        WITHOUT_USERS, (USERS + MORE + F + SUM, ACCOUNT.replace("user_id", "id") + USERS.replace("entity=user", "entities=[user, account]")),
        "rows of user by user_id, at their at"),
    "everything, with another key": (NOTHING, ("key='user_id'", "key='uid'"), "added (user by uid, at their at): rows of user by"),
    "a key, while the source is not declared": (WITHOUT_USERS, ("key='user_id'", "key='uid'"), "rows are stored under it"),
}  # fmt: skip
ACCEPTED = {
    "a column": (WITHOUT_N, ("", "")),
    "a column in another source": (
        WITHOUT_N, (USERS + MORE, WITHOUT_N.split(USER)[1].split("more =")[0] + MORE.replace("}", ", 'n': str | None}"))),
    "a column as a function": (
        WITHOUT_N, (", 'n': int | None})\n", "})\n@feature(users, dtype=str)\ndef n(row):\n    return str(row['x'])\n")),
    "a column as an aggregate": (
        WITHOUT_N, (", 'n': int | None})\n", "})\nAggregate(users, 'x', 'max', window='1h', hop='1m', name='n')\n")),
    "a column with limits": (WITHOUT_N, ("int | None", "column(int | None, min=10)")),
    "a source": (WITHOUT_USERS, ("", "")),
    "a source and all": (NOTHING, ("", "")),
    "a source with fewer columns": (WITHOUT_USERS, (", 'n': int | None", "")),
    "a source with more columns": (WITHOUT_USERS, ("'n': int | None", "'n': int | None, 'y': bool | None")),
    "a source whose column may be missing": (WITHOUT_USERS, ("'x': float", "'x': float | None")),
    "a source by another name with another type": (
        WITHOUT_USERS, ("users = Source('users'", "users = Source('people'"), ("'x': float", "'x': int")),
    "a source with another max_age": (WITHOUT_USERS, ("event_time='at', columns={'x'", "event_time='at', max_age='1s', columns={'x'")),
    "a function": (WITHOUT_F, ("", "")),
    "a function of another type": (WITHOUT_F, ("dtype=float)", "dtype=str)"), ("row['x'] * 2", "str(row['x'])")),
    "a function as a column": (WITHOUT_F, (F, ""), ("'n': int", "'f': bool | None, 'n': int")),
    "a function as an aggregate": (WITHOUT_F, (F, "Aggregate(users, None, 'count', window='1h', hop='1m', name='f')\n")),
    "an aggregate": (WITHOUT_SUM, ("", "")),
    "an aggregate of another column and type": (WITHOUT_SUM, ("'x', 'sum'", "'n', 'last'")),
    "an aggregate of another window": (WITHOUT_SUM, ("'2h'", "'3h'")),
    "an aggregate as a column": (WITHOUT_SUM, (SUM, ""), ("'n': int", "'a': str | None, 'n': int")),
    "an aggregate as a function": (WITHOUT_SUM, (SUM, F.replace("def f", "def a").replace("float", "int").replace("row['x'] * 2", "7"))),
}  # fmt: skip


def again(*changes: tuple[str, str]) -> str:
    text = WHOLE.replace("Source,", "Source, column,")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def rows(room: Room, minutes: float, *keys: str) -> None:
    """A row of each of the keys into each source, with what its columns are now."""
    at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    values: dict[str, Any] = {"float": minutes + 0.5, "int": int(100 * minutes), "str": f"{minutes} ago", "bool": True}
    for source in room.catalogue.definitions.sources.values():
        columns = {name: values[column.dtype] for name, column in source.columns.items()}
        room.ingest(source.name, [{"user_id": key, source.event_time: at, **columns} for key in keys])


@pytest.mark.parametrize(("between", "change", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_stored_rows_contradict_is_refused_with_the_way_out(
    between: str, change: tuple[str, str], reason: str, open_room: OpenRoom
) -> None:
    room = open_room(WHOLE)
    rows(room, 30, "u")
    room.define(between)
    with pytest.raises(Conflict) as caught:
        room.define(again(change))
    assert reason in str(caught.value)
    room.define(WHOLE)
    lookup, explained, frame = room.told("user", "u")
    assert repr(lookup) == repr(explained) == repr(frame)
    assert lookup == {"x": 30.5, "n": 3000, "m": 3000, "f": 61.0, "a": 30.5}


@pytest.mark.parametrize(
    "killed",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["", "after a process was killed amid removing"],
)
@pytest.mark.parametrize(("between", "changes"), [(b, c) for b, *c in ACCEPTED.values()], ids=ACCEPTED)
def test_what_is_accepted_is_the_same_in_lookups_explanations_and_frames(
    between: str, changes: list[tuple[str, str]], killed: bool, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(WHOLE)
    rows(room, 30, "once", "before and between", "before and after")
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(Catalogue, "_remove_unneeded", lambda *_: None)
        room.define(between)
    rows(room, 20, "before and between", "between")
    room.define(again(*changes))
    rows(room, 10, "before and after")
    for restored in (False, True):
        for key in ("once", "before and between", "between", "before and after"):
            lookup, explained, frame = room.told("user", key)
            assert repr(lookup) == repr(explained) == repr(frame), (key, restored)
        room.redis.delete(*room.redis.scan_iter("feature:user:*"))
        rebuild._record_begin(room.redis, "")
        rebuild.rebuild(room.catalogue)


def test_a_row_of_a_process_that_has_not_heard_of_a_column_leaves_no_older_value_of_it(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, other = open_room(WHOLE), open_room()
    rows(room, 30, "u")
    room.define(WITHOUT_N)
    other.catalogue.catch_up()
    write = history.write

    def declare_again_in_between(*arguments: Any, **more: Any) -> None:
        write(*arguments, **more)
        monkeypatch.undo()
        room.define(WHOLE)

    monkeypatch.setattr(history, "write", declare_again_in_between)
    rows(other, 20, "u")
    lookup, explained, frame = room.told("user", "u")
    assert repr(lookup) == repr(explained) == repr(frame)
    assert lookup["n"] is None
