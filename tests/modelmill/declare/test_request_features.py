"""Request-time features: what may be declared, and what each mistake is answered with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from modelmill.declare.definitions import Definitions, Need, model_features
from modelmill.declare.definitions_file import load
from modelmill.errors import DefinitionsError

Load = Callable[[str], Definitions]

PRELUDE = """\
from modelmill import Entity, Model, Source, request_feature
user = Entity("user", key="user_id")
shop = Entity("shop", key="shop_id")
users = Source("users", entity=user, columns={"mean": float, "age": int | None, "size": float})
shops = Source("shops", entity=shop, columns={"size": float})
orders = Source("orders", entities=[user, shop], event_time="at", columns={"amount": float, "size": float, "bad": bool})
"""
RATIO = """
@request_feature(dtype=float, needs=["amount", "user.mean"])
def ratio(row):
    return row["amount"] / row["user.mean"]
"""


def model(features: str = '["ratio"]', inputs: str = '{"amount": float}', more: str = "") -> str:
    return (
        f'\nModel("m", entities=[user, shop], features={features}, inputs={inputs}, label="bad", source=orders,'
        f" estimator=None, {more})\n"
    )


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Loads `PRELUDE` and what follows it."""

    def load_it(text: str) -> Definitions:
        path = tmp_path / "mill.py"
        path.write_text(PRELUDE + dedent(text))
        return load(path)

    return load_it


def test_what_is_needed_is_an_input_a_feature_of_the_model_or_read_besides(load_text: Load) -> None:
    definitions = load_text(RATIO.replace('"user.mean"]', '"user.mean", "age"]') + model('["ratio", "age"]'))
    found = model_features(definitions, definitions.model("m"))
    assert [ref.name for ref in found.stored] == ["age"]
    assert [(ref.name, ref.field) for ref in found.auxiliary] == [("user.mean", "mean")]
    [ratio] = found.computed
    columns = definitions.source("users").columns
    assert ratio.needs == {
        "amount": Need("amount", definitions.model("m").inputs["amount"], given=True),
        "user.mean": Need("user.mean", columns["mean"], given=False),
        "age": Need("age", columns["age"], given=False),
    }


def test_a_feature_that_two_need_under_two_names_is_read_once(load_text: Load) -> None:
    other = '@request_feature(dtype=float, needs=["mean"])\ndef half(row):\n    return row["mean"] / 2\n'
    definitions = load_text(RATIO + other + model('["half", "ratio"]'))
    assert [ref.name for ref in model_features(definitions, definitions.model("m")).auxiliary] == ["user.mean"]


def test_a_version_is_that_of_code_type_and_needs(load_text: Load) -> None:
    def version(text: str) -> str:
        return load_text(text + model()).request_features["ratio"].version

    first = version(RATIO)
    assert re.fullmatch("[0-9a-f]{8}", first)
    assert version("# a comment\n" + RATIO) == first
    changed = [("row[", "1 + row["), ("dtype=float", "dtype=float | None"), ('"amount", ', '"amount", "age", ')]
    assert len({first, *(version(RATIO.replace(*change, 1)) for change in changed)}) == 4


def test_a_default_may_be_for_what_is_only_needed(load_text: Load) -> None:
    assert load_text(RATIO + model(more='defaults={"user.mean": 1.0}')).models["m"].defaults == {"user.mean": 1.0}


MISTAKES: dict[str, tuple[str, str]] = {
    "unknown need": (
        RATIO.replace("user.mean", "user.men") + model(),
        "request feature 'ratio': needs 'user.men', no feature and no input of any model; did you mean 'user.mean'",
    ),
    "need of another model": (
        RATIO.replace("user.mean", "size") + model() + model(inputs='{"size": float}').replace('"m"', '"n"'),
        "model 'm': request feature 'ratio' needs 'size': no input of the model; feature 'size' is ambiguous",
    ),
    "need that is input and feature": (
        RATIO.replace("user.mean", "mean") + model(inputs='{"amount": float, "mean": float}'),
        "needs 'mean', which is an input and a feature; rename the input, or write user.mean for the feature",
    ),
    "another request feature": (
        RATIO.replace("user.mean", "other") + RATIO.replace("ratio", "other") + model(),
        "request feature 'ratio': needs 'other', a request feature too; expected inputs and stored features alone",
    ),
    "itself": (RATIO.replace("user.mean", "ratio") + model(), "needs 'ratio', a request feature too"),
    "name of a feature": (
        RATIO.replace("ratio", "size") + model('["size"]'),
        "request feature 'size': entity 'user' has a feature or key of this name already",
    ),
    "name of a key": (RATIO.replace("ratio", "user_id"), "entity 'user' has a feature or key of this name already"),
    "name of an input": (
        RATIO.replace("ratio", "size2") + model('["size2"]', '{"amount": float, "size2": float}'),
        "input 'size2' is not a column",
    ),
    "declared twice": (RATIO + RATIO + model(), "another one of this name is declared already"),
    "reserved name": (RATIO.replace("ratio", "_ratio"), "names that start with _ are Modelmill's own"),
    "no needs": (RATIO.replace('["amount", "user.mean"]', "[]"), "needs=[]; expected names of inputs and features"),
    "one text": (RATIO.replace('["amount", "user.mean"]', '"amount"'), "needs='amount'; expected names of inputs"),
    "no name": (RATIO.replace("user.mean", "a b"), "expected names of inputs and features, at least one"),
    "needed twice": (RATIO.replace("user.mean", "amount"), "needs 'amount' twice"),
    "type": (RATIO.replace("dtype=float", "dtype=list"), "expected float, int, bool or str"),
    "the label of several entities": (RATIO + model('["ratio", "bad"]'), "feature 'bad' is not known"),
    "the label, needed": (
        RATIO.replace('"amount", ', "")
        + 'Model("own", entities=[user], features=["ratio", "size"], label="mean", estimator=None)',
        "label 'mean' is also a feature or an input, or what one is computed from",
    ),
    "default of a computed one": (
        RATIO + model(more='defaults={"ratio": 1.0}'),
        "default 'ratio' is not one of the model's features",
    ),
}


@pytest.mark.parametrize("text, reason", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_with_its_line_and_reason(text: str, reason: str, load_text: Load) -> None:
    with pytest.raises(DefinitionsError) as refusal:
        load_text(text)
    assert reason in refusal.value.reason
    assert refusal.value.fields["line"] > PRELUDE.count("\n")


@pytest.mark.parametrize("value, reason", [("much", "TypeError"), (None, "ValueError"), (float("inf"), "ValueError")])
def test_a_value_is_what_is_declared(value: object, reason: str, load_text: Load) -> None:
    feature = load_text(RATIO + model()).request_features["ratio"]
    feature.function = lambda row: value
    with pytest.raises((TypeError, ValueError)) as refusal:
        feature.compute({"amount": 1.0, "user.mean": 1.0})
    assert type(refusal.value).__name__ == reason
