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
    "a function that draws its value": (
        "import random\n@feature(user, dtype=float)\ndef f(row):\n    return random.random()\n",
        r"mill.py:8: feature 'f': it returns .* for the row .*, and .* when it is asked again; a feature may depend on its"
        r" row alone, not on chance, on the time, or on what was computed before",
    ),
    "a function that counts its calls": (
        "calls = []\n@feature(user, dtype=int)\ndef f(row):\n    calls.append(row)\n    return len(calls)\n",
        r"mill.py:8: feature 'f': it returns 1 for the row .*, and 64 when it is asked again",
    ),
    "a function that remembers the row before": (
        "last = [0.0]\n@feature(user, dtype=float)\ndef f(row):\n    last.append(row['x'])\n    return row['x'] - last[-2]\n",
        r"mill.py:8: feature 'f': it returns .* when it is asked again",
    ),
    "a function that fails at chance": (
        "calls = []\n@feature(user, dtype=float)\ndef f(row):\n    calls.append(row)\n    return 1 / (len(calls) - 3)\n",
        r"mill.py:8: feature 'f': it returns .* when it is asked again",
    ),
    "a batch function that draws its values": (
        "import numpy\n@feature(user, dtype=float, batch=True)\ndef f(rows):\n    return numpy.random.rand(len(rows))\n",
        r"mill.py:8: feature 'f': it returns .* when it is asked again",
    ),
    "a request feature that draws its value": (
        "import random\nfrom modelmill import Model, request_feature\n@request_feature(dtype=float, needs=['x'])\n"
        "def f(row):\n    return random.random()\n"
        "Model('m', entities=[user], features=['f'], label='note', estimator=None)\n",
        r"mill.py:9: request feature 'f': it returns .* for the row {'x': 0.5}, and .* when it is asked again",
    ),
    "a column of another type": (
        "@feature(user, dtype=str, batch='arrow')\ndef f(rows):\n    return rows['x']\n",
        r"mill.py:7: feature 'f': returned 0.5; expected str",
    ),
    "a function that returns what cannot be shown": (
        "class Shy:\n    def __repr__(self):\n        exit()\n"
        "@feature(user, dtype=float)\ndef f(row):\n    return Shy()\n",
        r"returned \(Shy that cannot be shown: its text raised SystemExit\); expected float",
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
    "a function that ends the process on some rows": (
        "@feature(user, dtype=float)\ndef f(row):\n    return row['x'] if row['x'] < 1 else exit(1)\n"
    ),
    "a batch function that returns nullable whole numbers": (
        "@feature(user, dtype=int | None, batch=True)\ndef f(rows):\n    return rows['note'].str.len().astype('Int64')\n"
    ),
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
