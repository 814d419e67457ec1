from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.definitions_file import load_text
from modelmill.errors import DefinitionsError

MILL = """
import math
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
Source("users", entity=user, columns={"x": float})
FACTOR = 2
UNUSED = 1

def helper(x):
    return deeper(x) * FACTOR

def deeper(x):
    return math.floor(x)

@feature(user, dtype=float)
def f(row):
    return float(helper(row["x"]))
"""


def version(text: str) -> str:
    return load_text(Path("mill.py"), text.encode()).features["users"]["f"].version


CHANGED = {
    "its own code": ('float(helper(row["x"]))', 'float(helper(row["x"])) + 0'),
    "a function that it calls": ("deeper(x) * FACTOR", "deeper(x) / FACTOR"),
    "a function further down": ("math.floor(x)", "math.ceil(x)"),
    "a constant": ("FACTOR = 2", "FACTOR = 3"),
    "an import": ("import math", "import cmath as math"),
    "its type": ("dtype=float", "dtype=float | None"),
}


@pytest.mark.parametrize(("old", "new"), CHANGED.values(), ids=CHANGED)
def test_another_version_is_made_by(old: str, new: str) -> None:
    assert version(MILL.replace(old, new)) != version(MILL)


SAME = {
    "a comment": ("def f(row):", "def f(row):  # a remark"),
    "layout": ('float(helper(row["x"]))', "float(\n        helper(row['x'])\n    )"),
    "what it does not use": ("UNUSED = 1", "UNUSED = 2"),
    "what people say about it": ("dtype=float", 'dtype=float, description="of x", owner="me", tags=["a"]'),
    "its place in the file": ("import math\n", "import math\n\n\n"),
}


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_the_same_version_stays_with_another(old: str, new: str) -> None:
    assert version(MILL.replace(old, new)) == version(MILL)


def test_a_function_that_another_made_has_what_it_kept_in_its_version() -> None:
    made = (
        MILL.split("@feature")[0]
        + """
def power(n):
    @feature(user, dtype=float)
    def f(row):
        return row["x"] ** n
power(2)
"""
    )
    assert version(made) != version(made.replace("power(2)", "power(3)"))


def test_a_function_of_another_module_is_refused_at_its_line() -> None:
    text = MILL.split("@feature")[0] + "import shutil\nfeature(user, dtype=float)(shutil.copy)\n"
    with pytest.raises(DefinitionsError, match="its function is not defined in this file; define it here"):
        load_text(Path("mill.py"), text.encode())
