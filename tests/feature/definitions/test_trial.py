from __future__ import annotations

import pytest

from modelmill.errors import DefinitionsError
from tests.feature.conftest import OpenRoom

MILL = """
import pyarrow.compute as pc
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"x": float, "note": str | None})

"""
REFUSED = {
    "another type than declared": (
        "@feature(user, dtype=float)\ndef f(row):\n    return str(row['x'])\n",
        r"mill.py:7: feature 'f': returned '0.5'; expected float",
    ),
    "a batch that depends on its other rows": (
        "@feature(user, dtype=float, batch=True)\ndef f(rows):\n    return rows['x'] - rows['x'].mean()\n",
        r"mill.py:7: feature 'f': it returns .* for the row .* in a batch of 32, but .* for it alone",
    ),
    "a column of another type": (
        "@feature(user, dtype=str, batch='arrow')\ndef f(rows):\n    return rows['x']\n",
        r"mill.py:7: feature 'f': returned 0.5; expected str",
    ),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_is(text: str, reason: str, open_room: OpenRoom) -> None:
    room = open_room(MILL)
    former = room.catalogue.definitions
    with pytest.raises(DefinitionsError, match=reason):
        room.define(MILL + text)
    assert room.catalogue.definitions is former


ALLOWED = {
    "a function that fails on some rows": "@feature(user, dtype=float)\ndef f(row):\n    return 1 / row['x']\n",
    "one that fails on all that were made up": "@feature(user, dtype=float)\ndef f(row):\n    return len(None)\n",
    "a pandas batch": "@feature(user, dtype=float, batch=True)\ndef f(rows):\n    return rows['x'] * 2\n",
    "an Arrow batch": "@feature(user, dtype=float, batch='arrow')\ndef f(rows):\n    return pc.multiply(rows['x'], 2)\n",
}


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_allowed_is(text: str, open_room: OpenRoom) -> None:
    room = open_room(MILL + text)
    room.ingest("users", [{"user_id": "u", "x": 1.5}])
    assert "f" in room.catalogue.definitions.features["users"]


def test_a_function_is_tried_out_on_stored_rows_too(open_room: OpenRoom) -> None:
    """Of the made-up rows none has a note like this, so that the function fails on all of them."""
    text = "@feature(user, dtype=float)\ndef f(row):\n    return {'paid 3': 'three'}[row['note']]\n"
    open_room(MILL + text)
    room = open_room(MILL)
    room.ingest("users", [{"user_id": "u", "x": 1.5, "note": "paid 3"}])
    with pytest.raises(DefinitionsError, match=r"mill.py:7: feature 'f': returned 'three'; expected float"):
        room.define(MILL + text)
