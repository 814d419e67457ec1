from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmill.declare import code_version
from modelmill.declare.definitions_file import load, load_code
from modelmill.declare.user_code import UserCode
from modelmill.errors import DefinitionsError

ROOT = Path(__file__).parents[3]
HEAD = """
import functools, math, re, enum, dataclasses, datetime, random, io, threading, collections, operator
import numpy as np
import pandas as pd
from modelmill import Entity, Model, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"x": float})
"""
DECORATED = """
def checked(limit):
    def decorate(function):
        @functools.wraps(function)
        def inner(row):
            return min(function(row), limit)
        return inner
    return decorate
"""
CLASSES = """
class Base:
    factor = 2
    def of(self, x):
        return x * self.factor
class Scale(Base):
    def __init__(self, by):
        self.by = by
    def of(self, x):
        return super().of(x) * self.by
SCALE = Scale(3)
"""
PLAIN = "@feature(user, dtype=float)\ndef f(row):\n    return float("
ZOO = {
    "a wrapped function": DECORATED
    + "@feature(user, dtype=float)\n@checked(9.0)\n@checked(8.0)\ndef f(row):\n    return row['x']",
    "a closed-over function": "def made(g):\n    @feature(user, dtype=float)\n    def f(row):\n        return g(row['x'])\nmade(lambda x: x + 1)",
    "a closed-over object": CLASSES
    + "def made(s):\n    @feature(user, dtype=float)\n    def f(row):\n        return s.of(row['x'])\nmade(SCALE)",
    "a closed-over set": "def made(s):\n    @feature(user, dtype=float)\n    def f(row):\n        return float('a' in s)\nmade({'a', 'b', 'c', 'd'})",
    "a set of tuples of texts": "S = frozenset({('a', 'b'), ('c', 'd'), ('e', 'f')})\n" + PLAIN + "('a', 'b') in S)",
    "a dict of sets": "D = {'x': {'a', 'b', 'c'}, 'y': {1, 2}}\n" + PLAIN + "'a' in D['x'])",
    "a default": "N = 9\n@feature(user, dtype=float)\ndef f(row, n=N, *, more={'a', 'b'}):\n    return row['x'] * n",
    "the second lambda on a line": "g, h = lambda x: x * 2, lambda x: x * 3\n" + PLAIN + "h(row['x']))",
    "a lambda in a lambda": "g = lambda n: lambda x: x * n\nh = g(3)\n" + PLAIN + "h(row['x']))",
    "a lambda as a feature": "f = lambda row: row['x']\nf.__name__ = 'f'\nfeature(user, dtype=float)(f)",
    "a large array": "T = np.arange(100_000) % 7\n" + PLAIN + "T[3])",
    "an array of objects": "T = np.array(['a', None, 3.5], dtype=object)\n" + PLAIN + "len(T))",
    "a table": "T = pd.DataFrame({'k': ['a', 'b'], 'v': [1.5, None]})\n" + PLAIN + "T['v'][0])",
    "a frozen dataclass": "@dataclasses.dataclass(frozen=True)\nclass P:\n    a: int\n    b: set = dataclasses.field(default_factory=set)\nQ = P(1, {'a', 'b'})\n"
    + PLAIN
    + "Q.a)",
    "an enum": "class E(enum.Enum):\n    A = 1\n    B = 2\n" + PLAIN + "E.A.value)",
    "a named tuple": "P = collections.namedtuple('P', 'a b')\nQ = P(1, 2)\n" + PLAIN + "Q.a)",
    "a class with a property": "class C:\n    @property\n    def a(self):\n        return 1\n    @staticmethod\n    def b():\n        return 2\n    @functools.cached_property\n    def c(self):\n        return 3\n"
    + PLAIN
    + "C().a)",
    "a compiled pattern": "R = re.compile('a+', re.I)\n" + PLAIN + "bool(R.match('a')))",
    "a partial": "add = functools.partial(pow, 2, mod=7)\n" + PLAIN + "add(3))",
    "a bound method": CLASSES + "of = SCALE.of\n" + PLAIN + "of(row['x']))",
    "a bound method of a dict": "get = {'a': 1}.get\n" + PLAIN + "get('a'))",
    "a cache": "@functools.lru_cache\ndef slow(x):\n    return x + 1\n" + PLAIN + "slow(row['x']))",
    "a cached feature": "@feature(user, dtype=float)\n@functools.lru_cache\ndef f(row):\n    return 1.0",
    "functions that call each other": "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n"
    + PLAIN
    + "even(4))",
    "times and dates": "D = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), datetime.timedelta(days=3)\n"
    + PLAIN
    + "len(D))",
    "a seeded generator": "rng = random.Random(3)\n" + PLAIN + "rng.random())",
    "functions of installed modules": "from math import floor\nfrom numpy import log1p\nget = operator.itemgetter('x')\n"
    + PLAIN
    + "floor(log1p(get(row))))",
    "an import inside": "@feature(user, dtype=float)\ndef f(row):\n    import math as m\n    from statistics import mean\n    return m.floor(mean([row['x']]))",
    "a comprehension": "K = {'a': 1}\n" + PLAIN + "sum(v * w for v in K.values() for w in [math.pi]))",
    "a list that holds itself": "L = [1]\nL.append(L)\n" + PLAIN + "len(L))",
}


def version(text: str) -> str:
    return load_code(UserCode(Path("mill.py"), HEAD + text, {})).features["users"]["f"].version


def test_it_is_the_same_in_every_process() -> None:
    program = (
        "import json, sys; from tests.modelmill.declare.test_code_version import ZOO, version;"
        "print(json.dumps({name: version(text) for name, text in ZOO.items()}))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (json.loads(process.communicate(timeout=60)[0]) for process in started)
    assert first == second
    assert len(set(first.values())) == len(ZOO), "and another one for each"


CALLS = "FACTOR = 2\ndef helper(x):\n    return deeper(x) * FACTOR\ndef deeper(x):\n    return math.floor(x)\n"
BODY = CALLS + PLAIN + "helper(row['x']))"
CHANGED = {
    "its own code": (BODY, "float(helper(", "float(1 + helper("),
    "a function that it calls": (BODY, "deeper(x) * FACTOR", "deeper(x) / FACTOR"),
    "a function further down": (BODY, "math.floor(x)", "math.ceil(x)"),
    "a constant": (BODY, "FACTOR = 2", "FACTOR = 3"),
    "the type of a constant": (BODY, "FACTOR = 2", "FACTOR = 2.0"),
    "a constant that is changed later": (BODY, "FACTOR = 2\n", "FACTOR = 2\nFACTOR += 1\n"),
    "an import": (BODY, "FACTOR = 2\n", "FACTOR = 2\nimport cmath as math\n"),
    "its type": (BODY, "dtype=float", "dtype=float | None"),
    "a default": (ZOO["a default"], "N = 9", "N = 27"),
    "a default of a keyword": (ZOO["a default"], "more={'a'", "more={'z'"),
    "the lambda that it uses": (ZOO["the second lambda on a line"], "x * 3", "x * 4"),
    "a lambda inside": (ZOO["a lambda in a lambda"], "lambda x: x * n", "lambda x: x + n"),
    "what a lambda kept": (ZOO["a lambda in a lambda"], "g(3)", "g(4)"),
    "a decorator's code": (ZOO["a wrapped function"], "min(", "max("),
    "a decorator's argument": (ZOO["a wrapped function"], "checked(8.0)", "checked(7.0)"),
    "the function under decorators": (ZOO["a wrapped function"], "return row['x']", "return -row['x']"),
    "a decorator more": (ZOO["a wrapped function"], "@checked(9.0)", "@checked(9.0)\n@checked(9.0)"),
    "the code of a closed-over function": (ZOO["a closed-over function"], "x + 1", "x + 2"),
    "a value of an object": (ZOO["a closed-over object"], "Scale(3)", "Scale(4)"),
    "a value of a class": (ZOO["a closed-over object"], "factor = 2", "factor = 5"),
    "the code of a method": (ZOO["a closed-over object"], "* self.by", "+ self.by"),
    "the code of a method of a base": (ZOO["a closed-over object"], "x * self.factor", "x + self.factor"),
    "an element of a set": (ZOO["a closed-over set"], "'d'", "'e'"),
    "the order of a dict": ("D = {'a': 1, 'b': 2}\n" + PLAIN + "next(iter(D.values())))", "'a': 1, 'b': 2", "'b': 2, 'a': 1"),
    "an element of a large array": (ZOO["a large array"], "% 7", "% 7\nT[50_000] = 99"),
    "the type of an array": (ZOO["a large array"], "% 7", "% 7.0"),
    "the shape of an array": (ZOO["a large array"], "% 7", "% 7\nT = T.reshape(2, -1)"),
    "a value of a table": (ZOO["a table"], "1.5", "2.5"),
    "the index of a table": (ZOO["a table"], "})\n", "}, index=[5, 6])\n"),
    "a column's name": (ZOO["a table"], "'k': [", "'l': ["),
    "a field of a dataclass": (ZOO["a frozen dataclass"], "P(1,", "P(2,"),
    "a default of a dataclass": ("@dataclasses.dataclass\nclass P:\n    a: int = 1\n" + PLAIN + "P().a)", "int = 1", "int = 2"),
    "a member of an enum": (ZOO["an enum"], "A = 1", "A = 3"),
    "a field of a named tuple": (ZOO["a named tuple"], "'P', 'a b'", "'P', 'a c'"),
    "a value of a named tuple": (ZOO["a named tuple"], "P(1, 2)", "P(1, 3)"),
    "a property": (ZOO["a class with a property"], "return 1", "return 4"),
    "a static method": (ZOO["a class with a property"], "return 2", "return 4"),
    "a cached property": (ZOO["a class with a property"], "return 3", "return 4"),
    "the flags of a pattern": (ZOO["a compiled pattern"], ", re.I", ""),
    "an argument of a partial": (ZOO["a partial"], "mod=7", "mod=9"),
    "what a bound method is bound to": (ZOO["a bound method"], "Scale(3)", "Scale(4)"),
    "what is cached": (ZOO["a cache"], "x + 1", "x + 2"),
    "one of two that call each other": (ZOO["functions that call each other"], "n != 0", "n > 0"),
    "a date": (ZOO["times and dates"], "2026, 1, 2", "2026, 1, 3"),
    "an attribute of a function": ("def g(): return g.n\ng.n = 1\n" + PLAIN + "g())", "g.n = 1", "g.n = 2"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new"), CHANGED.values(), ids=CHANGED)
def test_another_one_is_made_by(text: str, old: str, new: str) -> None:
    assert old in text
    assert version(text.replace(old, new)) != version(text)


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 1e300])
    | st.text("ab", max_size=2)
)
HASHABLE = st.recursive(ATOMS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
DATA = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3) | st.sets(HASHABLE, max_size=3) | st.dictionaries(ATOMS, inner, max_size=3)
    ),
    max_leaves=8,
)


def written(value: object) -> str:
    """A value as source text that says its types, the elements of sets in an order: equal texts, equal values."""
    kind = type(value).__name__
    if isinstance(value, set | frozenset):
        return f"{kind}([{', '.join(sorted(map(written, value)))}])"
    if isinstance(value, list | tuple):
        return f"{kind}([{', '.join(map(written, value))}])"
    if isinstance(value, dict):
        return f"dict([{', '.join(f'({written(key)}, {written(held)})' for key, held in value.items())}])"
    return repr(value)


def backwards(value: object) -> str:
    """The same with the elements of sets in the other order."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}([{', '.join(sorted(map(written, value), reverse=True))}])"
    return written(value)


@settings(max_examples=60)
@given(DATA, DATA)
def test_data_have_equal_versions_where_they_are_equal_and_others_where_they_are_not(
    one: object, other: object
) -> None:
    def of(text: str) -> str:
        return version(f"T = {text}\n{PLAIN}bool(T))")

    assert of(backwards(one)) == of(written(one))
    assert (of(written(one)) == of(written(other))) == (written(one) == written(other))


SAME = {
    "a comment": ("def f(row):", "def f(row):  # a remark"),
    "layout": ("float(helper(row['x']))", 'float(\n        helper(row["x"])\n    )'),
    "what it does not use": ("FACTOR = 2\n", "FACTOR = 2\nUNUSED = threading.Lock()\n"),
    "an annotation": ("def f(row):", "def f(row: dict) -> float:"),
    "what people say about it": ("dtype=float", 'dtype=float, description="of x", owner="me", tags=["a"]'),
    "its place in the file": ("FACTOR = 2\n", "\n\n\nFACTOR = 2\n"),
    "another way to write a constant": ("FACTOR = 2\n", "FACTOR = 1 + 1\n"),
}


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_the_same_one_stays_with_another(old: str, new: str) -> None:
    assert version(BODY.replace(old, new)) == version(BODY)


REFUSED = {
    "an open file": (
        "H = io.TextIOWrapper(io.BytesIO())\n" + PLAIN + "H.read())",
        "uses H -> a TextIOWrapper, which has no value",
    ),
    "a generator": ("G = (i for i in [1])\n" + PLAIN + "next(G))", "uses G -> a generator, which has no value"),
    "a lock in an object": (
        "class C:\n    def __init__(self):\n        self.lock = threading.Lock()\nC1 = C()\n"
        + PLAIN
        + "bool(C1.lock))",
        "uses C1 -> a lock, which has no value",
    ),
    "a file that a helper uses": (
        "H = io.TextIOWrapper(io.BytesIO())\ndef helper():\n    return H.read()\n" + PLAIN + "helper())",
        "uses helper -> H -> a TextIOWrapper",
    ),
    "code made of text": (
        "exec('def g(x): return x')\n" + PLAIN + "g(1))",
        "uses g -> g, a function that no statement",
    ),
    "too many values": ("L = [0] * 1_001\n" + PLAIN + "L[0])", "uses L -> more than 1,000 values"),
    "nesting without end": ("L = []\nfor i in range(900): L = [L]\n" + PLAIN + "len(L))", "nested too deeply"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_identified_is_refused_with_its_line(
    text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_version, "MAX_VALUES", 1000)
    line = (HEAD + text).splitlines().index("@feature(user, dtype=float)") + 1
    with pytest.raises(DefinitionsError) as caught:
        version(text)
    assert str(caught.value).startswith(f"mill.py:{line}: feature 'f': ")
    assert reason in str(caught.value)


def test_a_function_of_an_installed_module_is_refused_at_its_line() -> None:
    with pytest.raises(
        DefinitionsError, match=r"mill\.py:10: .*its function is not defined in this file; define it here"
    ):
        version("\nimport shutil\nfeature(user, dtype=float)(shutil.copy)\n")


MODULES = {
    "maths.py": "import consts\nUNUSED = 1\ndef area(x):\n    return x * consts.PI\ndef other(x):\n    return x\n",
    "consts.py": "PI = 3\nE = 2\n",
    "pack/__init__.py": "from .inner import ONE\n",
    "pack/inner.py": "ONE = 1\ndef two():\n    from .deep import TWO\n    return TWO\n",
    "pack/deep.py": "TWO = 2\n",
}
USES = {
    "by import": ("import maths\n", "maths.area(row['x']))"),
    "from it": ("from maths import area as of\n", "of(row['x']))"),
    "inside the function": ("", "__import__('math').floor(1))\n    import maths\n    return maths.area(row['x'])"),
    "from it inside the function": ("", "1)\n    from maths import area\n    return area(row['x'])"),
    "as a value": ("import maths\n", "getattr(maths, 'area')(row['x']))"),
}


def beside(folder: Path, text: str, **changed: tuple[str, str]) -> str:
    """The version of f in `text` with `MODULES` beside it; each of `changed` has something replaced."""
    for name, module in MODULES.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(module.replace(*changed.get(file.stem, ("", ""))))
    (folder / "mill.py").write_text(HEAD + text)
    return load(folder / "mill.py").features["users"]["f"].version


@pytest.mark.parametrize(("head", "use"), USES.values(), ids=USES)
def test_a_module_beside_the_file_is_followed_as_the_file_is(head: str, use: str, tmp_path: Path) -> None:
    text = head + PLAIN + use
    before = beside(tmp_path, text)
    assert beside(tmp_path, text) == before
    assert beside(tmp_path, text, maths=("import consts", "# a remark\nimport consts")) == before
    assert beside(tmp_path, text, maths=("x * consts", "x + consts")) != before
    assert beside(tmp_path, text, consts=("PI = 3", "PI = 4")) != before


def test_of_a_module_only_what_is_used_counts(tmp_path: Path) -> None:
    text = "import maths\n" + PLAIN + "maths.area(row['x']))"
    before = beside(tmp_path, text)
    assert beside(tmp_path, text, maths=("UNUSED = 1", "UNUSED = 2"), consts=("E = 2", "E = 3")) == before


def test_a_package_beside_the_file_is_followed(tmp_path: Path) -> None:
    text = "import pack\nfrom pack.inner import two\n" + PLAIN + "pack.ONE + two())"
    before = beside(tmp_path, text)
    assert beside(tmp_path, text, inner=("ONE = 1", "ONE = 5")) != before
    assert beside(tmp_path, text, deep=("TWO = 2", "TWO = 5")) != before


def test_a_function_of_a_module_beside_the_file_may_be_a_feature(tmp_path: Path) -> None:
    text = "import maths\nmaths.area.__name__ = 'f'\nfeature(user, dtype=float)(maths.area)\n"
    assert beside(tmp_path, text) != beside(tmp_path, text, consts=("PI = 3", "PI = 4"))
