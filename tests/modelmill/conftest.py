"""Fixtures of the shared modules' tests: definitions files, written and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load

Load = Callable[[str], Definitions]

PRELUDE = """\
from modelmill import Aggregate, Entity, Model, Source, after, at_random, by_group, cron, every, feature
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
users = Source("users", entity=user, columns={"a": float, "b": float | None, "target": int})
visits = Source("visits", entity=user, event_time="at", columns={"pages": int})
items = Source("items", entity=item, columns={"a": float, "price": float})
clicks = Source("clicks", entities=[user, item], event_time="at", columns={"hour": int, "clicked": bool})
"""


@pytest.fixture
def mill(tmp_path: Path) -> Path:
    return tmp_path / "mill.py"


@pytest.fixture
def load_text(mill: Path) -> Load:
    """Loads `PRELUDE` and what follows it."""

    def load_it(text: str) -> Definitions:
        mill.write_text(PRELUDE + dedent(text))
        return load(mill)

    return load_it
