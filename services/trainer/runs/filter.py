"""The language in which runs are asked for: `metrics.roc_auc > 0.7 and params.clf__C = 1`.

    status = succeeded and (metrics.roc_auc > 0.7 or not trigger = manual)
    params.clf__C in (0.1, 1) and started > 7d ago and finished is not missing
    features contains feature_3 and estimator like "%Logistic%"

`parse` turns a text into a tree of the dataclasses below; `services.trainer.runs.matching` says which runs it matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args
from lark.exceptions import VisitError

from modelmill import times
from modelmill.errors import InvalidFilter

LONGEST = 2000
"""Characters of a filter."""

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
EXPECTED = {
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
WORDS = {"true": "True", "false": "False", "none": "None", "null": "None"}
"""Words that mean a Python value, as parameters are recorded."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "like", "ilike", "contains"]


@dataclass(frozen=True)
class Field:
    """The name of a field as it is recorded, such as `metrics.roc_auc`; `at` is its place in the filter."""

    name: str
    at: int


@dataclass(frozen=True)
class Value:
    """What a field is compared with: a number, a text, or a time in seconds since 1970."""

    kind: Literal["number", "text", "time"]
    value: float | str
    at: int


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


def parse(text: str, now: datetime | None = None) -> Condition:
    """The condition that a filter states; `now` is what `ago` counts from (default: the time now).

    Raises:
        InvalidFilter: pointing at the place that cannot be read.
    """
    if len(text) > LONGEST:
        raise InvalidFilter(text, LONGEST, f"a filter has at most {LONGEST} characters")
    try:
        tree = _parser().parse(text)
        condition: Condition = _Conditions(text, now or datetime.now(UTC)).transform(tree)
    except UnexpectedToken as error:
        at = len(text) if error.token.type == "$END" else error.token.start_pos or 0
        found = "the end" if error.token.type == "$END" else repr(str(error.token))
        raise InvalidFilter(text, at, f"{_expected(error.accepts or {'$END'})}, found {found}") from None
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        raise InvalidFilter(text, at, _unread(text, at)) from None
    except VisitError as error:
        raise error.orig_exc from None
    return condition


def names(condition: Condition) -> set[str]:
    """The fields that a condition is about."""
    match condition:
        case And(conditions) | Or(conditions):
            return set().union(*map(names, conditions))
        case Not(inner):
            return names(inner)
        case Comparison(field) | OneOf(field) | Missing(field):
            return {field.name}


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", start="disjunction", maybe_placeholders=False)


def _expected(terminals: set[str]) -> str:
    if "STRING" in terminals:  # a word is a text there, and a text may be a value
        terminals = terminals - ({"NAME", "STRING"} if "NUMBER" in terminals else {"NAME"})
    words = [words for words, names in EXPECTED.items() if names & terminals]
    return f"expected {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else f"expected {words[0]}"


def _unread(text: str, at: int) -> str:
    if text[at] in "\"'":
        return f"the text that begins here has no closing {text[at]}"
    if text.startswith("==", at):
        return "expected = for equal, found =="
    return f"{text[at]!r} cannot be read here"


@v_args(inline=True)
class _Conditions(Transformer[Token, Any]):
    """From lark's tree to conditions."""

    def __init__(self, text: str, now: datetime) -> None:
        super().__init__()
        self.text = text
        self.now = now

    def disjunction(self, *conditions: Condition) -> Condition:
        return Or(conditions)

    def conjunction(self, *conditions: Condition) -> Condition:
        return And(conditions)

    def negated(self, condition: Condition) -> Condition:
        return condition.condition if isinstance(condition, Not) else Not(condition)

    def comparison(self, field: Field, operator: Token, value: Value) -> Condition:
        return Comparison(field, operator.lower(), value)  # type: ignore[arg-type]  # the grammar knows no other

    def unlike(self, field: Field, operator: Token, value: Value) -> Condition:
        return Not(self.comparison(field, operator, value))

    def one_of(self, field: Field, *values: Value) -> Condition:
        return OneOf(field, values)

    def none_of(self, field: Field, *values: Value) -> Condition:
        return Not(OneOf(field, values))

    def missing(self, field: Field) -> Condition:
        return Missing(field)

    def present(self, field: Field) -> Condition:
        return Not(Missing(field))

    def field(self, token: Token) -> Field:
        return Field(token.replace("`", ""), token.start_pos or 0)

    def number(self, token: Token) -> Value:
        return Value("number", float(token), token.start_pos or 0)

    def string(self, token: Token) -> Value:
        return Value("text", str(token[1:-1]), token.start_pos or 0)

    def word(self, token: Token) -> Value:
        return Value("text", WORDS.get(token.lower(), str(token)), token.start_pos or 0)

    def time(self, token: Token) -> Value:
        try:
            return Value("time", seconds(token), token.start_pos or 0)
        except ValueError as error:
            raise InvalidFilter(self.text, token.start_pos or 0, f"{str(token)!r} is no time: {error}") from None

    def ago(self, token: Token) -> Value:
        length = timedelta(seconds=times.seconds(token.split()[0].lower()))
        return Value("time", (self.now - length).timestamp(), token.start_pos or 0)


def seconds(text: str) -> float:
    """A time, as `modelmill.times` reads it, in seconds since 1970.

    Raises:
        ValueError: where it is none.
    """
    return times.read(text).timestamp()
