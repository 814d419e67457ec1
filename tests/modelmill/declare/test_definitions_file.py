from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from modelmill.declare.definitions_file import load
from modelmill.errors import DefinitionsError
from tests.conftest import USERS_MILL
from tests.modelmill.conftest import PRELUDE, Load


def test_the_users_example_loads() -> None:
    definitions = load(USERS_MILL)
    assert list(definitions.features_of("user")) == ["feature_1", "feature_2", "target", "feature_3"]


def test_the_fingerprint_is_that_of_the_file(load_text: Load) -> None:
    assert load_text("").fingerprint == load_text("").fingerprint != load_text("# more\n").fingerprint


def test_a_change_within_the_same_tick_of_the_clock_is_another_version(load_text: Load, mill: Path) -> None:
    def version(power: int) -> str:
        text = f"@feature(users, dtype=float)\ndef squared(row):\n    return row['a'] ** {power}\n"
        mill.write_text(PRELUDE + text)
        os.utime(mill, (0, 0))
        return load(mill).features["users"]["squared"].version

    assert version(2) != version(3)


def test_a_feature_may_be_declared_before_another_source_of_its_entity(load_text: Load) -> None:
    definitions = load_text("@feature(visits, dtype=int)\ndef pages_twice(row):\n    return row['pages'] * 2\n")
    assert definitions.columns(definitions.source("visits"))["pages_twice"].dtype == "int"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match=re.escape(f"{tmp_path}/none.py: cannot be read: No such file")):
        load(tmp_path / "none.py")


MODEL = 'Model("m", entities=[user], features={features}, label="{label}", estimator=None{more})  # here'


def model(features: str = '["a"]', label: str = "target", more: str = "") -> str:
    return MODEL.format(features=features, label=label, more=more and f", {more}")


def aggregate(
    source: str = "visits", column: str = '"pages"', function: str = "sum", window: str = "2h", more: str = ""
) -> str:
    return f'Aggregate({source}, {column}, "{function}", window="{window}"{more and ", " + more})  # here'


MISTAKES = {
    "syntax": ("x = (1,  # here\n", "'(' was never closed"),
    "null byte": ("x = '\0'", "source code string cannot contain null bytes"),
    "error while it runs": ("x = 1 / 0  # here", "ZeroDivisionError: division by zero"),
    "error in a function it calls": (
        "def columns():\n    return {'a': floaty}  # here\nSource('s', entity=user, columns=columns())",
        "NameError: name 'floaty' is not defined",
    ),
    "missing module": ("import nothing_like_this  # here", "ModuleNotFoundError"),
    "unknown type": ('Source("s", entity=user, columns={"x": list})  # here', "column 'x' has type <class 'list'>"),
    "unknown type over several lines": (
        'Source(  # here\n    "s",\n    entity=user,\n    columns={"x": list},\n)',
        "column 'x' has type <class 'list'>",
    ),
    "two types": ('Source("s", entity=user, columns={"x": int | str})  # here', "column 'x' has type int | str"),
    "bad entity name": ('Entity("us er", key="k")  # here', "entity name 'us er': expected letters"),
    "entity name not a text": ('Entity(3, key="k")  # here', "entity name 3: expected letters"),
    "bad key name": ('Entity("x", key="x id")  # here', "entity 'x': key name 'x id': expected letters"),
    "reserved key": ('Entity("x", key="_event_time")  # here', "names that start with _ are Modelmill's own"),
    "bad column name": (
        'Source("s", entity=user, columns={"x y": int})  # here',
        "column name 'x y': expected letters",
    ),
    "reserved column": (
        'Source("s", entity=user, columns={"_failed": int})  # here',
        "start with _ are Modelmill's own",
    ),
    "column is the key": ('Source("s", entity=user, columns={"user_id": str})  # here', "'user_id' is named twice"),
    "column is the event time": (
        'Source("s", entity=user, event_time="at", columns={"at": str})  # here',
        "'at' is named twice",
    ),
    "event time is the key": (
        'Source("s", entity=user, event_time="user_id", columns={"x": str})  # here',
        "'user_id' is named twice",
    ),
    "two entities with one key": (
        'Source("s", entities=[user, Entity("other", key="user_id")], columns={"x": str})  # here',
        "'user_id' is named twice",
    ),
    "no entity": ('Source("s", columns={"x": int})  # here', "expected either entity=... or entities=[...]"),
    "entity by name": ('Source("s", entity="user", columns={"x": int})  # here', "source 's': 'user' is not an Entity"),
    "entity twice": ('Entity("user", key="k")  # here', "entity 'user' is declared twice, first in line 2"),
    "source twice": ('Source("users", entity=item, columns={})  # here', "source 'users' is declared twice, first in"),
    "model twice": (model().replace("  # here", "") + "\n" + model(), "model 'm' is declared twice, first in line 8"),
    "column in two sources": (
        'Source("s", entity=user, columns={"pages": int})  # here',
        "source 's': shares pages with source 'visits' of the same entity",
    ),
    "feature twice": (
        "@feature(users, dtype=float)\ndef x(row): return 1.\n@feature(users, dtype=float)  # here\ndef x(row): return 2.",
        "feature 'x': source 'users' has a column or feature of this name already",
    ),
    "feature named as a column": (
        "@feature(users, dtype=float)  # here\ndef a(row): return 1.0",
        "feature 'a': source 'users' has a column or feature of this name already",
    ),
    "feature named as the key": (
        "@feature(users, dtype=float)  # here\ndef user_id(row): return 1.0",
        "feature 'user_id': source 'users' has a column or feature of this name already",
    ),
    "reserved feature": (
        "@feature(users, dtype=float)  # here\ndef _failed(row): return 1.0",
        "feature name '_failed': names that start with _ are Modelmill's own",
    ),
    "feature of which source?": (
        "@feature(user, dtype=float)  # here\ndef x(row): return 1.0",
        "feature 'x': entity 'user' has as its own sources: users, visits; write @feature(<source>)",
    ),
    "feature of an entity without source": (
        'lonely = Entity("lonely", key="k")\n@feature(lonely, dtype=float)  # here\ndef x(row): return 1.0',
        "entity 'lonely' has as its own sources: none",
    ),
    "feature of events": (
        "@feature(clicks, dtype=float)  # here\ndef x(row): return 1.0",
        "source 'clicks' is about several entities; features need a source about one",
    ),
    "feature without its entity": (
        "@feature  # here\ndef x(row): return 1.0",
        "TypeError: feature() missing 1 required keyword-only argument: 'dtype'",
    ),
    "feature of a text": (
        '@feature("user", dtype=float)  # here\ndef x(row): return 1.0',
        "@feature('user'): expected an Entity or a Source",
    ),
    "feature of unknown type": (
        "@feature(users, dtype=complex)  # here\ndef x(row): return 1.0",
        "column 'x' has type <class 'complex'>",
    ),
    "aggregate of a text": (
        'Aggregate("visits", "pages", "sum", window="2h")  # here',
        "Aggregate('visits'): expected a Source",
    ),
    "aggregate of an unknown column": (
        aggregate(column='"pagez"'),
        "aggregate 'pagez_sum_2h': 'pagez' is not a column of source 'visits'; did you mean 'pages'?",
    ),
    "aggregate of texts": (
        'notes = Source("notes", entity=user, columns={"x": str})\n' + aggregate("notes", '"x"'),
        "aggregate 'x_sum_2h': sum of 'x', which is str; expected a column of float, int or bool",
    ),
    "aggregate by an unknown function": (
        aggregate(function="median"),
        "function 'median' is not one of count, sum, mean, min, max, std, last, count_distinct",
    ),
    "sum of no column": (aggregate(column="None"), "sum needs a column of source 'visits'; only count goes without"),
    "window without unit": (aggregate(window="120"), "window='120' is no length of time"),
    "no window": ('Aggregate(visits, "pages", "sum", window=None)  # here', "window=None is no length of time"),
    "hop without unit": (aggregate(more='hop="5"'), "hop='5' is no length of time"),
    "delay without unit": (aggregate(more="available_after=0"), "available_after=0 is no length of time"),
    "window shorter than its hop": (aggregate(more='hop="3h"'), "window 2h is shorter than hop 3h"),
    "bad hop": (aggregate(more='hop="7m"'), "hop is 7m; expected whole minutes that divide a day, or whole days"),
    "aggregate by which entity?": (
        aggregate(source="clicks", column='"hour"'),
        "source 'clicks' is about several entities; add by=(key,), one of user_id, item_id",
    ),
    "aggregate by another's entity": (
        aggregate(more="by=item"),
        "entity 'item' is not one of source 'visits', whose keys are user_id",
    ),
    "aggregate by another's key": (
        aggregate(more='by=("item_id",)'),
        "by=('item_id',) is not a join key of source 'visits'",
    ),
    "aggregate by nothing": (aggregate(more="by=()"), "by=() is not a join key of source 'visits'; known: user_id"),
    "aggregate by two keys": (
        aggregate(source="clicks", column='"hour"', more='by=("user_id", "item_id")'),
        "by=('user_id', 'item_id') names several keys; expected one: declare an entity for the pair",
    ),
    "aggregate twice": (
        'Aggregate(visits, "pages", "sum", window="2h")\n' + aggregate(),
        "aggregate 'pages_sum_2h': entity 'user' has a column or feature of this name already; add name=",
    ),
    "aggregate named as a column": (
        aggregate(more='name="target"'),
        "aggregate 'target': entity 'user' has a column or feature of this name already; add name=",
    ),
    "aggregate named as the key": (aggregate(more='name="user_id"'), "has a column or feature of this name already"),
    "aggregate named as a feature": (
        aggregate(more='name="twice"') + "\n@feature(visits, dtype=int)\ndef twice(row): return row['pages'] * 2",
        "entity 'user' has a column or feature of this name already",
    ),
    "reserved aggregate": (aggregate(more='name="_rows"'), "names that start with _ are Modelmill's own"),
    "nothing to predict from": (model("[]"), "model 'm': expected at least one feature or input"),
    "unknown feature": (model('["aa", "pagez"]'), "model 'm': feature 'aa' is not known"),
    "near feature": (model('["pagez"]'), "feature 'pagez' is not known; did you mean 'pages'?"),
    "feature of an entity left out": (model('["item.a"]'), "feature 'item.a' is not known"),
    "ambiguous feature": (
        'Model("m", entities=[user, item], features=["a"], label="clicked", estimator=None)  # here',
        "model 'm': feature 'a' is ambiguous; write user.a or item.a",
    ),
    "missing label": (model(label="tarpet"), "label 'tarpet': expected one source with this column, found none"),
    "label in two sources": (
        'Source("more", entities=[user, item], columns={"target": int})\n' + model(),
        "label 'target': expected one source with this column, found users, more; add source=",
    ),
    "label not in its source": (
        model(label="target", more="source=visits"),
        "label 'target' is not a column of source 'visits'; known: pages",
    ),
    "label among features": (model('["a", "target"]'), "label 'target' is also a feature or an input"),
    "label named as another's feature": (
        'sales = Source("sales", entities=[user, item], columns={"price": int})\n'
        'Model("m", entities=[user, item], features=["price"], label="price", source=sales, estimator=None)  # here',
        "label 'price' is also a feature or an input",
    ),
    "entity without labels": (
        'Model("m", entities=[user, item], features=["price"], label="target", estimator=None, source=users)  # here',
        "source 'users' has no rows about entity 'item'",
    ),
    "input not in the source": (model(more='inputs={"hour": int}'), "input 'hour' is not a column of source 'users'"),
    "input of another type": (model('["b"]', more='inputs={"a": int}'), "input 'a' is int here, but float in source"),
    "feature and input": (model('["a"]', more='inputs={"a": float}'), "a is named twice among features and inputs"),
    "feature named twice": (model('["a", "a"]'), "a is named twice among features and inputs"),
    "default of nothing": (model(more='defaults={"b": 1.0}'), "default 'b' is not one of the model's features"),
    "default of another type": (model(more='defaults={"a": "no"}'), "default of 'a' is 'no'; expected float"),
    "default None": (model(more='defaults={"a": None}'), "default of 'a' is None; expected float"),
    "unknown policy": (model(more='promote="maybe"'), "promote='maybe'; expected one of auto, manual, canary"),
    "no gate": (model(more="gates=[3]"), "gate 3: expected improves(...), at_least(...)"),
    "keeps nothing": (model(more="keep=0"), "keep=0; expected a number of versions, at least 1"),
    "share over one": (model(more="split=at_random(1.5)"), "split: share=1.5; expected a share between 0 and 1"),
    "unknown group": (model(more='split=by_group("shop")'), "'shop' is no feature or input of the model, no join key"),
    "label as segment": (model(more='segments=["target"]'), "segments: 'target' is no feature or input"),
    "bad schedule": (model(more='train=cron("every day")'), "cron('every day'): expected five fields"),
    "rows of nothing": (model(more='train=after(rows=5, source="user")'), "source 'user' is not known"),
    "no trigger": (model(more='train="daily"'), "train='daily'; expected every(seconds=60), cron(...), or a list"),
    "trigger twice": (
        model(more="train=[every(seconds=60), every(seconds=60, daily=5)]"),
        "train has 'every 60 s' twice; expected it once",
    ),
    "bad interval": (model(more="train=every(seconds=0)"), "every(seconds=0): expected a whole number of at least 1"),
}


@pytest.mark.parametrize("text, reason", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_file_line_and_reason(text: str, reason: str, load_text: Load, mill: Path) -> None:
    lines = (PRELUDE + text).splitlines()
    line = next((number for number, content in enumerate(lines, start=1) if "# here" in content), 0)
    with pytest.raises(DefinitionsError) as caught:
        load_text(text)
    where = f"{mill}:{line}: " if line else f"{mill}: "
    assert str(caught.value).startswith(where)
    assert reason in str(caught.value)


def test_a_mistake_in_an_imported_module_is_told_at_the_import(load_text: Load, mill: Path, tmp_path: Path) -> None:
    (tmp_path / "broken_neighbour.py").write_text("\n\n\n\nx = (\n")
    with pytest.raises(DefinitionsError, match=f"{mill}:8: SyntaxError: .*never closed"):
        load_text("import broken_neighbour\n")


def test_what_a_module_beside_the_file_declares_is_declared_at_every_load(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("from modelmill import Entity\nshop = Entity('shop', key='shop_id')\n")
    text = "from neighbour import shop\nSource('shops', entity=shop, columns={'size': float})\n"
    assert list(load_text(text).entities) == list(load_text(text).entities) == ["user", "item", "shop"]


def test_a_mistake_in_what_a_module_declares_is_told_at_its_own_line(load_text: Load, tmp_path: Path) -> None:
    more = "from modelmill import Entity\n\nEntity('user', key='k')\n"
    (tmp_path / "neighbour.py").write_text(more)
    with pytest.raises(DefinitionsError, match=r"neighbour\.py:3: entity 'user' is declared twice, first in line 2"):
        load_text("import neighbour\n")


def test_an_error_in_an_imported_module_is_told_with_both_lines(load_text: Load, mill: Path, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("\n\nx = 1 / 0\n")
    both = rf"{mill}:8: ZeroDivisionError: division by zero \({tmp_path}/neighbour\.py:3\)"
    with pytest.raises(DefinitionsError, match=both):
        load_text("import neighbour\n")


ENDS = {
    "sys.exit": ("import sys\nsys.exit('no arguments')  # here", "SystemExit: no arguments: it ends the process"),
    "argparse": (
        "import argparse, sys\nsys.argv[1:] = ['--port']\nargparse.ArgumentParser().parse_args()  # here",
        "SystemExit: 2: it ends the process that reads it; put what does under `if __name__",
    ),
    "a message that cannot be encoded": ("raise KeyError('\\udc80')  # here", r"KeyError: '\udc80'"),
    "a message that cannot be shown": (
        "class Odd(Exception):\n    def __str__(self):\n        return 1 / 0\nraise Odd()  # here",
        "Odd: (Odd that cannot be shown: its text raised ZeroDivisionError)",
    ),
}


@pytest.mark.parametrize("text, reason", ENDS.values(), ids=ENDS)
def test_what_ends_the_process_or_cannot_be_said_is_told_with_its_line(
    text: str, reason: str, load_text: Load, mill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["modelmill"])
    test_a_mistake_is_told_with_file_line_and_reason(text, reason, load_text, mill)
