"""The language in which runs are asked for: `metrics.roc_auc > 0.7 and params.clf__C = 1`.

    status = succeeded and (metrics.roc_auc > 0.7 or not trigger = manual)
    params.clf__C in (0.1, 1) and started > 7d ago and finished is not missing
    features contains feature_3 and estimator like "%Logistic%"

`parse` turns a text into a tree of the dataclasses below; `services.trainer.runs.index` says which runs it matches.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args
from lark.exceptions import VisitError

from modelmill import times
from modelmill.errors import InvalidFilter, did_you_mean
from modelmill.state.runs import Run

Kind = Literal["number", "time", "list", "text"]
"""Of a field of a run; a text may be a number as it prints, as parameters often are."""
FIELD_TYPES = {item.name: str(item.type) for item in fields(Run)}
GROUPS = {name for name, type_ in FIELD_TYPES.items() if type_.startswith("dict")}
"""Fields that hold others: `params`, `metrics`, ..."""
SINGLE_FIELDS = FIELD_TYPES.keys() - GROUPS
TIME_FIELDS = {"started", "finished", "data_start", "data_end"}
UNSEARCHED_FIELDS = {"traceback", "lease", "notes"}
"""Fields, and groups of them, that nobody looks for: too long, of use to the machinery alone, or named by a time."""

MAX_FILTER_CHARACTERS = 2000

GRAMMAR = r"""
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: condition | _NOT negation -> negated
?condition: field COMPARISON value -> comparison
    | field MATCHES text -> comparison
    | field _NOT MATCHES text -> unlike
    | field _IN "(" value ("," value)* ")" -> one_of
    | field _NOT _IN "(" value ("," value)* ")" -> none_of
    | field _IS _MISSING -> missing
    | field _IS _NOT _MISSING -> present
    | "(" disjunction ")"
field: NAME
value: NUMBER -> number
    | TIME -> time
    | AGO -> ago
    | STRING -> string
    | NAME -> word
text: STRING -> string
    | NAME -> word

COMPARISON: "<=" | ">=" | "!=" | "=" | "<" | ">"
MATCHES.2: /(like|ilike|contains)(?![\w.])/i
_OR.2: /or(?![\w.])/i
_AND.2: /and(?![\w.])/i
_NOT.2: /not(?![\w.])/i
_IN.2: /in(?![\w.])/i
_IS.2: /is(?![\w.])/i
_MISSING.2: /missing(?![\w.])/i
NAME: /[A-Za-z_]\w*(\.([\w@%+-]+|`[^`]+`))*/
TIME.2: /\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?(Z|[+-]\d\d:\d\d)?(?![\w.:-])/
AGO.2: /[1-9]\d{0,5}[smhd]\s+ago(?![\w.])/i
NUMBER: /[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?(?![\w.])/i
STRING: /"[^"]*"|'[^']*'/
%ignore /\s+/
"""
TERMINAL_WORDS = {
    "a value": {"NUMBER"},
    "a text": {"STRING"},
    "a field": {"NAME"},
    "'and'": {"_AND"},
    "'or'": {"_OR"},
    "'not'": {"_NOT"},
    "= != < <= > >=": {"COMPARISON"},
    "'like'": {"MATCHES"},
    "'in'": {"_IN"},
    "'is'": {"_IS"},
    "'missing'": {"_MISSING"},
    "'('": {"LPAR"},
    "')'": {"RPAR"},
    "','": {"COMMA"},
    "the end": {"$END"},
}
"""What people call the terminals of the grammar, in the order in which they are told."""
PYTHON_VALUES = {"true": "True", "false": "False", "none": "None", "null": "None"}
"""Words that mean a Python value, as parameters are recorded."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "like", "ilike", "contains"]
LIKE_OPERATORS = {"like", "ilike", "contains"}
"""Operators of texts and of lists alone."""


@dataclass(frozen=True)
class Field:
    """The name of a field as it is recorded, such as `metrics.roc_auc`, and its place in the filter."""

    name: str
    position: int


@dataclass(frozen=True)
class Value:
    """What a field is compared with: a number, a text, or a time in seconds since 1970."""

    kind: Literal["number", "text", "time"]
    value: float | str
    position: int


@dataclass(frozen=True)
class Comparison:
    """True of the runs whose field has such a value, never of those that lack it."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True)
class OneOf:
    """True of the runs whose field has one of the values."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Missing:
    """True of the runs that lack the field."""

    field: Field


@dataclass(frozen=True)
class Not:
    """True where the condition is not."""

    condition: Condition


@dataclass(frozen=True)
class And:
    """True where all conditions are."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """True where any condition is."""

    conditions: tuple[Condition, ...]


Condition = Comparison | OneOf | Missing | Not | And | Or


def parse(text: str, known: Collection[str] | None = None, now: datetime | None = None) -> Condition:
    """The condition that a filter states on runs with the fields `known` (default: any).

    `now` is what `ago` counts from (default: the time now).

    Raises:
        InvalidFilter: pointing at the place that cannot be read, at a field that no run has, or at a value that is
            not of its field's kind.
    """
    if len(text) > MAX_FILTER_CHARACTERS:
        raise InvalidFilter(text, MAX_FILTER_CHARACTERS, f"a filter has at most {MAX_FILTER_CHARACTERS} characters")
    try:
        tree = _parser().parse(text)
        condition: Condition = _Conditions(text, known, now or datetime.now(UTC)).transform(tree)
    except UnexpectedToken as error:
        position = len(text) if error.token.type == "$END" else error.token.start_pos or 0
        found = "the end" if error.token.type == "$END" else repr(str(error.token))
        raise InvalidFilter(text, position, f"{_expected(error.accepts or {'$END'})}, found {found}") from None
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        raise InvalidFilter(text, position, _unread(text, position)) from None
    except VisitError as error:
        raise error.orig_exc from None
    return condition


def field_names(condition: Condition) -> set[str]:
    """The fields that a condition is about."""
    match condition:
        case And(conditions) | Or(conditions):
            return set().union(*map(field_names, conditions))
        case Not(inner):
            return field_names(inner)
        case Comparison(field) | OneOf(field) | Missing(field):
            return {field.name}


@lru_cache(maxsize=10_000)
def kind_of(name: str) -> Kind:
    """The kind of a field such as `metrics.roc_auc`."""
    if name in TIME_FIELDS:
        return "time"
    type_ = FIELD_TYPES.get(name.partition(".")[0], "str")
    if "int" in type_ or "float" in type_:
        return "number"
    return "list" if type_.startswith("list") else "text"


def field_problem(name: str, known: Collection[str]) -> str | None:
    """Why `name` is no field that runs, which have the fields `known`, can be asked for; None where it is one."""
    listed = {*known, *SINGLE_FIELDS} - UNSEARCHED_FIELDS
    if name in listed:
        return None
    group, _, rest = name.partition(".")
    siblings = {field for field in listed if field.startswith(f"{group}.")}
    if group in GROUPS and rest and not siblings:
        return None  # no run has any of these yet, so none can be called wrong
    same_end = sorted(field for field in listed if field.rpartition(".")[2] == name)[:3]
    if same_end:
        return f"no run has a field {name!r}; did you mean {' or '.join(map(repr, same_end))}?"
    return f"no run has a field {name!r}{did_you_mean(name, siblings if rest and siblings else listed)}"


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", start="disjunction", maybe_placeholders=False)


def _expected(terminals: set[str]) -> str:
    if "STRING" in terminals:  # a word is a text there, and a text may be a value
        terminals = terminals - ({"NAME", "STRING"} if "NUMBER" in terminals else {"NAME"})
    words = [words for words, names in TERMINAL_WORDS.items() if names & terminals]
    return f"expected {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else f"expected {words[0]}"


def _unread(text: str, position: int) -> str:
    if text[position] in "\"'":
        return f"the text that begins here has no closing {text[position]}"
    if text.startswith("==", position):
        return "expected = for equal, found =="
    return f"{text[position]!r} cannot be read here"


@v_args(inline=True)
class _Conditions(Transformer[Token, Any]):
    """From lark's tree to conditions."""

    def __init__(self, text: str, known: Collection[str] | None, now: datetime) -> None:
        super().__init__()
        self.text = text
        self.known = known
        self.now = now

    def disjunction(self, *conditions: Condition) -> Condition:
        return Or(conditions)

    def conjunction(self, *conditions: Condition) -> Condition:
        return And(conditions)

    def negated(self, condition: Condition) -> Condition:
        return condition.condition if isinstance(condition, Not) else Not(condition)

    def comparison(self, field: Field, operator: Token, value: Value) -> Condition:
        symbol: Operator = operator.lower()  # type: ignore[assignment]  # the grammar knows no other
        return Comparison(field, symbol, self._typed(field, symbol, value))

    def unlike(self, field: Field, operator: Token, value: Value) -> Condition:
        return Not(self.comparison(field, operator, value))

    def one_of(self, field: Field, *values: Value) -> Condition:
        return OneOf(field, tuple(self._typed(field, "=", value) for value in values))

    def none_of(self, field: Field, *values: Value) -> Condition:
        return Not(self.one_of(field, *values))

    def missing(self, field: Field) -> Condition:
        return Missing(field)

    def present(self, field: Field) -> Condition:
        return Not(Missing(field))

    def field(self, token: Token) -> Field:
        field = Field(token.replace("`", ""), token.start_pos or 0)
        if self.known is not None and (problem := field_problem(field.name, self.known)):
            raise InvalidFilter(self.text, field.position, problem)
        return field

    def _typed(self, field: Field, operator: Operator, value: Value) -> Value:
        """`value` as the kind of `field` is compared with it."""
        name, kind = field.name, kind_of(field.name)
        if self.known is None:
            return value
        if kind == "list" and operator not in LIKE_OPERATORS:
            raise InvalidFilter(self.text, field.position, f"{name} is a list; expected {name} contains ...")
        if kind in ("number", "time") and operator in LIKE_OPERATORS:
            raise InvalidFilter(self.text, field.position, f"{name} is a {kind}; {operator} is for texts")
        if kind == "number" and value.kind != "number":
            raise InvalidFilter(self.text, value.position, f"{name} is a number; expected one such as 0.7")
        if kind == "time" and value.kind == "text":
            with suppress(ValueError):
                return Value("time", times.read(value.value).timestamp(), value.position)
        if kind == "time" and value.kind != "time":
            expected = "expected one such as 2026-11-25T14:00Z or 7d ago"
            raise InvalidFilter(self.text, value.position, f"{name} is a time; {expected}")
        if kind == "text" and value.kind == "time":
            raise InvalidFilter(self.text, value.position, f"{name} is no time; put a text in quotes")
        return value

    def number(self, token: Token) -> Value:
        return Value("number", float(token), token.start_pos or 0)

    def string(self, token: Token) -> Value:
        return Value("text", str(token[1:-1]), token.start_pos or 0)

    def word(self, token: Token) -> Value:
        return Value("text", PYTHON_VALUES.get(token.lower(), str(token)), token.start_pos or 0)

    def time(self, token: Token) -> Value:
        try:
            return Value("time", times.read(str(token)).timestamp(), token.start_pos or 0)
        except ValueError as error:
            raise InvalidFilter(self.text, token.start_pos or 0, f"{str(token)!r} is no time: {error}") from None

    def ago(self, token: Token) -> Value:
        length = timedelta(seconds=times.seconds(token.split()[0].lower()))
        return Value("time", (self.now - length).timestamp(), token.start_pos or 0)
