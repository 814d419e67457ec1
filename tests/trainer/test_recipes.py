"""The trainer works with the definitions in force, whatever the file holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from modelmill.declare import applied
from modelmill.declare.definitions_file import load_code
from modelmill.declare.user_code import UserCode
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import DefinitionsApplied
from services.trainer.recipes import Recipes
from tests.conftest import USERS_MILL
from tests.eventually import eventually


@pytest.fixture
def recipes(fake_redis: Redis) -> Iterator[Recipes]:
    """The users example, followed."""
    recipes, stop = Recipes(fake_redis, USERS_MILL), threading.Event()
    thread = threading.Thread(target=recipes.follow, args=("0-0", stop))
    thread.start()
    yield recipes
    stop.set()
    thread.join(timeout=10)


def apply(redis: Redis, text: str) -> None:
    """Put definitions in force as the feature service does, whatever their text."""
    definitions = load_code(UserCode(USERS_MILL, text, {}))
    applied.keep(redis, definitions)
    redis.hset(keys.DEFINITIONS, "fingerprint", definitions.fingerprint)
    bus.append(redis, DefinitionsApplied(fingerprint=definitions.fingerprint, changes=[]))


RENAMED = USERS_MILL.read_text().replace("user_target", "renamed")


def test_applied_definitions_are_taken_over(recipes: Recipes, fake_redis: Redis) -> None:
    apply(fake_redis, RENAMED)
    eventually(lambda: "renamed" in recipes.definitions.models, within=5, saying="the new definitions are in force")


def test_a_later_start_takes_the_definitions_in_force_and_not_the_file(fake_redis: Redis) -> None:
    apply(fake_redis, RENAMED)
    assert "renamed" in Recipes(fake_redis, USERS_MILL).definitions.models


def test_definitions_that_cannot_be_loaded_here_leave_the_former_ones_in_force(
    recipes: Recipes, fake_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        fake_redis.hset(keys.DEFINITIONS, "fingerprint", "broken")
        fake_redis.hset(keys.definitions_text("broken"), mapping={"text": "Model(", "path": "mill.py"})
        bus.append(fake_redis, DefinitionsApplied(fingerprint="broken", changes=[]))
        eventually(lambda: caplog.messages, within=5, saying="the mistake is logged")
    assert "the former definitions stay in force" in caplog.text
    assert "mill.py:1" in caplog.text
    assert "user_target" in recipes.definitions.models
