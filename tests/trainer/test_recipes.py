"""The definitions in force follow the file when it is applied, and survive a mistake in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmill import bus
from modelmill.connections import Redis
from modelmill.events import DefinitionsApplied
from services.trainer.recipes import Recipes
from tests.conftest import USERS_MILL
from tests.eventually import eventually


@pytest.fixture
def recipes(fake_redis: Redis, tmp_path: Path) -> Iterator[Recipes]:
    """The users example, followed."""
    path = tmp_path / "mill.py"
    path.write_text(USERS_MILL.read_text())
    recipes, stop = Recipes(path), threading.Event()
    thread = threading.Thread(target=recipes.follow, args=(fake_redis, "0-0", stop))
    thread.start()
    yield recipes
    stop.set()
    thread.join(timeout=10)


def apply(redis: Redis, fingerprint: str) -> None:
    bus.append(redis, DefinitionsApplied(fingerprint=fingerprint, changes=[]))


def test_an_applied_file_is_loaded(recipes: Recipes, fake_redis: Redis) -> None:
    recipes.path.write_text(USERS_MILL.read_text().replace("user_target", "renamed"))
    apply(fake_redis, "new")
    eventually(lambda: "renamed" in recipes.definitions.models, within=5, saying="the new file is in force")


def test_a_file_with_a_mistake_leaves_the_former_definitions_in_force(
    recipes: Recipes, fake_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    recipes.path.write_text("Model(")
    with caplog.at_level(logging.ERROR):
        apply(fake_redis, "broken")
        eventually(lambda: caplog.messages, within=5, saying="the mistake is logged")
    assert "the former definitions stay in force" in caplog.text
    assert "mill.py:1" in caplog.text
    assert "user_target" in recipes.definitions.models
