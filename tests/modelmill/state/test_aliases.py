"""Aliases: how they move, by hand and back, and what their history tells."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.errors import AliasMoved, Conflict, UnknownName
from modelmill.state.aliases import NONE, ROLLBACKS, AliasMove, stacks
from modelmill.state.connections import Redis
from modelmill.state.events import AliasDeleted, ModelPromoted
from modelmill.state.registry import Registry
from tests.conftest import RedisServer
from tests.modelmill.releases import MODEL, begin, events, release


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


def test_champions_are_of_all_models_that_have_one(registry: Registry) -> None:
    release(registry, "a")
    release(registry, "b")
    release(registry, "b")
    begin(registry, "without")
    assert registry.champions() == {"a": 1, "b": 2}


def test_a_promotion_moves_the_alias_with_its_history_and_its_event(registry: Registry, fake_redis: Redis) -> None:
    release(registry)
    release(registry)
    move = registry.promote(MODEL, 1, by="ada", reason="the newer one drifts")
    assert registry.aliases(MODEL) == {"champion": 1}
    assert registry.history(MODEL)[-1] == move
    event = events(fake_redis)[-1]
    assert isinstance(event, ModelPromoted)
    assert (event.version, event.previous, event.by, event.reason) == (1, 2, "ada", "the newer one drifts")


def test_promoting_an_unknown_version_changes_nothing(registry: Registry) -> None:
    release(registry)
    with pytest.raises(UnknownName, match="version '2'"):
        registry.promote(MODEL, 2, by="ada")
    assert registry.aliases(MODEL) == {"champion": 1}
    assert len(registry.history(MODEL)) == 1


def test_rollback_walks_back_version_by_version(registry: Registry) -> None:
    for _ in range(3):
        release(registry)
    assert [registry.rollback(MODEL, by="ada").version for _ in range(2)] == [2, 1]
    with pytest.raises(Conflict, match="named no version before its present one; nothing to roll back to"):
        registry.rollback(MODEL, by="ada")


def test_rollback_after_a_new_promotion_returns_to_where_it_was_made(registry: Registry) -> None:
    for _ in range(3):
        release(registry)
    registry.rollback(MODEL, by="ada")
    release(registry)
    assert registry.rollback(MODEL, by="ada").version == 2


def test_rollback_of_an_unknown_model_names_it(registry: Registry) -> None:
    with pytest.raises(UnknownName, match="model 'nope' is not known"):
        registry.rollback("nope", by="ada")


def test_aliases_move_apart(registry: Registry) -> None:
    release(registry)
    release(registry)
    registry.promote(MODEL, 1, alias="challenger", by="ada")
    registry.rollback(MODEL, by="ada")
    assert registry.aliases(MODEL) == {"champion": 1, "challenger": 1}


def test_rollback_goes_back_to_a_version_of_long_ago_at_once(registry: Registry) -> None:
    for _ in range(30):
        release(registry)
    move = registry.rollback(MODEL, by="ada", to=3)
    assert (move.version, move.previous, registry.aliases(MODEL)["champion"]) == (3, 30, 3)
    assert registry.rollback(MODEL, by="ada").version == 2, "what came after version 3 is rolled back too"


def test_rollback_goes_only_to_what_the_alias_named_before(registry: Registry) -> None:
    for _ in range(3):
        release(registry)
    for never in (3, 9):
        with pytest.raises(Conflict, match=f"did not name version {never} before its present one; it named 2, 1"):
            registry.rollback(MODEL, by="ada", to=never)


def test_a_move_replaces_only_the_version_that_it_expects(registry: Registry, fake_redis: Redis) -> None:
    for _ in range(3):
        release(registry)
    before = len(events(fake_redis))
    for move in (
        lambda: registry.promote(MODEL, 1, by="ada", expected=2),
        lambda: registry.rollback(MODEL, by="ada", expected=2),
        lambda: registry.delete_alias(MODEL, "champion", by="ada", expected=2),
    ):
        with pytest.raises(AliasMoved, match="names version 3, not version 2 as expected") as refused:
            move()
        assert refused.value.fields["present"] == 3
    assert (len(events(fake_redis)), len(registry.history(MODEL))) == (before, 3)
    assert registry.promote(MODEL, 1, by="ada", expected=3).version == 1


def test_a_move_may_expect_that_the_alias_names_none_yet(registry: Registry) -> None:
    release(registry)
    with pytest.raises(AliasMoved, match="names version 1, not none as expected"):
        registry.promote(MODEL, 1, by="ada", expected=NONE)
    assert registry.promote(MODEL, 1, alias="challenger", by="ada", expected=NONE).previous is None
    with pytest.raises(AliasMoved, match="names no version, not version 1 as expected"):
        registry.promote(MODEL, 1, alias="canary", by="ada", expected=1)


def test_a_deleted_alias_names_nothing_and_keeps_its_history(registry: Registry, fake_redis: Redis) -> None:
    release(registry)
    release(registry)
    registry.delete_alias(MODEL, "champion", by="ada", reason="withdrawn")
    assert (registry.aliases(MODEL), registry.champions()) == ({}, {})
    last = registry.history(MODEL)[-1]
    assert (last.kind, last.version, last.previous, last.reason) == ("delete", None, 2, "withdrawn")
    event = events(fake_redis)[-1]
    assert isinstance(event, AliasDeleted)
    assert (event.alias, event.version, event.by) == ("champion", 2, "ada")
    release(registry)
    with pytest.raises(Conflict, match="nothing to roll back to"):
        registry.rollback(MODEL, by="ada")


def test_an_unknown_alias_cannot_be_deleted(registry: Registry) -> None:
    release(registry)
    with pytest.raises(UnknownName, match="alias 'champoin' is not known; did you mean 'champion'"):
        registry.delete_alias(MODEL, "champoin", by="ada")


def test_a_forced_move_says_what_it_overruled_in_history_event_and_version(
    registry: Registry, fake_redis: Redis
) -> None:
    release(registry, gates={"improves": "failed: no better"})
    registry.promote(MODEL, 1, by="ada", reason="the old one is down", forced=["improves"])
    assert registry.history(MODEL)[-1].forced == ["improves"]
    event = events(fake_redis)[-1]
    assert isinstance(event, ModelPromoted)
    assert (event.forced, event.reason) == (["improves"], "the old one is down")
    [note] = registry.version(MODEL, 1).notes.values()
    assert note == "ada: forced as champion over improves: the old one is down"


def test_the_history_of_one_alias_is_told_apart(registry: Registry) -> None:
    release(registry)
    registry.promote(MODEL, 1, alias="stable", by="ada")
    assert [move.alias for move in registry.history(MODEL)] == ["champion", "stable"]
    assert [move.alias for move in registry.history(MODEL, "stable")] == ["stable"]


def test_live_is_what_an_alias_names_and_what_the_next_rollbacks_return_to(registry: Registry) -> None:
    for _ in range(10):
        release(registry)
    registry.promote(MODEL, 2, alias="stable", by="ada")
    assert registry.live(MODEL) == {2, *range(10 - ROLLBACKS, 11)}
    assert [version.version for version in registry.live_versions()] == sorted(registry.live(MODEL))


@pytest.mark.redis
def test_moves_at_once_leave_one_history(real_redis: RedisServer) -> None:
    registry = Registry(real_redis.client())
    for _ in range(4):
        release(registry)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: registry.promote(MODEL, number, by="ada"), [1, 2, 3, 4] * 5))
    moves = registry.history(MODEL)
    assert [move.previous for move in moves[1:]] == [move.version for move in moves[:-1]]
    assert registry.aliases(MODEL)["champion"] == moves[-1].version


@pytest.mark.redis
def test_of_many_who_expect_the_same_version_one_moves_the_alias(real_redis: RedisServer) -> None:
    registry = Registry(real_redis.client())
    for _ in range(9):
        release(registry)

    def attempt(number: int) -> int | None:
        try:
            return registry.promote(MODEL, number, by="ada", expected=9).version
        except AliasMoved:
            return None

    with ThreadPoolExecutor(8) as pool:
        [winner] = [number for number in pool.map(attempt, range(1, 9)) if number]
    assert registry.aliases(MODEL) == {"champion": winner}


class Aliases:
    """What promote and rollback mean, written as an editor's undo: the oracle of `stacks`."""

    def __init__(self) -> None:
        self.moves: list[AliasMove] = []
        self.stack: list[int] = []

    def promote(self, version: int) -> None:
        if self.stack[-1:] != [version]:
            self.stack.append(version)
        self._note(version, "promote")

    def rollback(self) -> None:
        if len(self.stack) > 1:
            self.stack.pop()
            self._note(self.stack[-1], "rollback")

    def _note(self, version: int, kind: str) -> None:
        self.moves.append(
            AliasMove(time="", alias="champion", version=version, previous=None, kind=kind, by="", reason="")
        )


@given(st.lists(st.none() | st.integers(1, 4)))
def test_the_present_version_is_the_last_promoted_and_not_rolled_back(steps: Sequence[int | None]) -> None:
    aliases = Aliases()
    for version in steps:
        if version is None:
            aliases.rollback()
        else:
            aliases.promote(version)
    steps_taken = [(move.alias, move.kind, move.version) for move in aliases.moves]
    assert stacks(steps_taken).get("champion", []) == aliases.stack
    assert [move.version for move in aliases.moves[-1:]] == aliases.stack[-1:]


def test_a_rollback_to_what_the_bounded_history_forgot_is_still_where_the_alias_is() -> None:
    assert stacks([("champion", "promote", 9), ("champion", "rollback", 4)]) == {"champion": [4]}
