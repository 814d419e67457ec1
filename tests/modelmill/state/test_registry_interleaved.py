"""Whatever many clients do to one model at once: numbers, aliases and history stay those of some order of the moves.

The history is that order. It is replayed on an oracle that knows nothing of Redis: each move must have been allowed at
its turn, and each client must have been told what the history says of its move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from modelmill.errors import Conflict, UnknownName
from modelmill.state import bus, keys
from modelmill.state.aliases import ROLLBACKS
from modelmill.state.events import AliasDeleted, ModelPromoted, ModelTrained
from modelmill.state.registry import AliasMove, Registry, Version
from tests.conftest import RedisServer
from tests.modelmill.releases import begin

CLIENTS = 4
KEEP = 2
ALIASES = ("champion", "stable")
Operation = Callable[[Registry, str], Any]
"""What one client does, signing with a name of its own."""


@dataclass
class Oracle:
    """What one alias names, and the versions that it can go back to, as an editor's undo."""

    stack: list[int] = field(default_factory=list)

    @property
    def present(self) -> int | None:
        return self.stack[-1] if self.stack else None

    def take(self, move: AliasMove) -> None:
        """Follow a move; fails where it was not allowed."""
        assert move.previous == self.present
        if move.kind == "delete":
            assert self.stack
            assert move.version is None
            self.stack = []
        elif move.kind == "promote":
            assert move.version is not None
            if move.version != self.present:
                self.stack.append(move.version)
        else:
            assert move.version in self.stack[:-1]
            self.stack.pop()
            while self.stack[-1] != move.version:
                self.stack.pop()


def promote(version: int, alias: str, expected: int | None) -> Operation:
    return lambda registry, by: registry.promote(
        model_of(by), version, alias=alias, by=by, expected=expected, reason=f"expected {expected}"
    )


def rollback(alias: str, to: int | None) -> Operation:
    return lambda registry, by: registry.rollback(model_of(by), alias=alias, by=by, to=to)


def delete(alias: str) -> Operation:
    return lambda registry, by: registry.delete_alias(model_of(by), alias, by=by)


def register(promoted: bool) -> Operation:
    def operation(registry: Registry, by: str) -> Version:
        model = model_of(by)
        champion = registry.aliases(model).get("champion")
        return registry.register(begin(registry, model), "p", promote=promoted, champion=champion)

    return operation


def prune(registry: Registry, by: str) -> Any:
    return registry.prune(model_of(by), KEEP, {}, by=by)


def model_of(by: str) -> str:
    return by.partition("/")[0]


VERSIONS = st.integers(1, 6)
OPERATIONS = st.one_of(
    st.builds(promote, VERSIONS, st.sampled_from(ALIASES), st.none() | st.integers(0, 6)),
    st.builds(rollback, st.sampled_from(ALIASES), st.none() | VERSIONS),
    st.builds(delete, st.sampled_from(ALIASES)),
    st.builds(register, st.booleans()),
    st.just(prune),
)
MODELS = count(1)


class Clients(RuleBasedStateMachine):
    """Several clients of one registry, each on connections of its own."""

    def __init__(self, registries: Sequence[Registry], pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self.registries = registries
        self.pool = pool

    @initialize()
    def a_new_model(self) -> None:
        self.model = f"m{next(MODELS)}"
        self.names = count(1)
        self.told: dict[str, AliasMove] = {}
        self.registered: list[Version] = []
        self._at_once([register(True)])

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=CLIENTS))
    def act_at_once(self, operations: Sequence[Operation]) -> None:
        self._at_once(operations)

    def _at_once(self, operations: Sequence[Operation]) -> None:
        waiting = []
        for registry, operation in zip(self.registries, operations, strict=False):
            by = f"{self.model}/{next(self.names)}"
            waiting.append((by, self.pool.submit(partial(operation, registry, by))))
        for by, doing in waiting:
            try:
                done = doing.result(timeout=30)
            except (Conflict, UnknownName):
                continue
            if isinstance(done, AliasMove):
                self.told[by] = done
            elif isinstance(done, Version):
                self.registered.append(done)

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        numbers = sorted(version.version for version in self.registered)
        assert numbers == list(range(1, len(numbers) + 1))
        stored = {version.version: version.run for version in self.registry.versions(self.model)}
        assert stored == {version.version: version.run for version in self.registered}

    @invariant()
    def the_history_is_an_order_of_allowed_moves(self) -> None:
        history = self.registry.history(self.model)
        oracles = {alias: Oracle() for alias in ALIASES}
        for move in history:
            oracles[move.alias].take(move)
            if move.reason.startswith("expected ") and move.reason != "expected None":
                assert move.reason == f"expected {move.previous or 0}"
        named = {alias: oracle.present for alias, oracle in oracles.items() if oracle.present}
        assert self.registry.aliases(self.model) == named
        by_hand = {move.by: move for move in history if move.by != "trainer"}
        assert by_hand == self.told

    @invariant()
    def the_events_tell_the_same_in_the_same_order(self) -> None:
        told = [
            (event.alias, event.previous if isinstance(event, ModelPromoted) else event.version)
            for event in self._events()
            if isinstance(event, ModelPromoted | AliasDeleted)
        ]
        assert told == [(move.alias, move.previous) for move in self.registry.history(self.model)]
        trained = [event.version for event in self._events() if isinstance(event, ModelTrained)]
        assert trained == list(range(1, len(self.registered) + 1))

    @invariant()
    def nothing_was_pruned_that_an_alias_names(self) -> None:
        gone = {version.version for version in self.registry.versions(self.model) if version.pruned}
        assert not gone & set(self.registry.aliases(self.model).values())

    def _events(self) -> list[Any]:
        found = bus.newest(self.registry.redis, keys.EVENTS_MODELS, 5000)
        return [event for _, event in found if getattr(event, "model", None) == self.model]

    @property
    def registry(self) -> Registry:
        return self.registries[0]


@pytest.mark.redis
def test_any_interleaving_of_clients_is_one_history(real_redis: RedisServer) -> None:
    registries = [Registry(real_redis.client()) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: Clients(registries, pool),
            settings=settings(
                max_examples=25,
                stateful_step_count=12,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],  # what threads did at once does not come again smaller
            ),
        )


@pytest.mark.redis
def test_what_rollbacks_return_to_is_never_pruned_meanwhile(real_redis: RedisServer) -> None:
    registries = [Registry(real_redis.client()) for _ in range(CLIENTS)]
    model = "pruned"
    for _ in range(30):
        register(True)(registries[0], f"{model}/0")

    def roll(registry: Registry) -> list[int | None]:
        return [registry.rollback(model, by="ada").version for _ in range(ROLLBACKS)]

    with ThreadPoolExecutor(2) as pool:
        rolled = pool.submit(roll, registries[0])
        pruned = pool.submit(registries[1].prune, model, 1, {}, by="bob")
        assert rolled.result(timeout=30) == [29, 28, 27, 26, 25]
        gone = set(pruned.result(timeout=30).pruned)
    assert gone >= set(range(1, 20))
    assert 25 not in gone  # whenever it pruned, five rollbacks from there returned to it
