"""How a filter is read, and what is said of one that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.errors import InvalidFilter
from services.trainer.runs.filter import (
    MAX_FILTER_CHARACTERS,
    And,
    Comparison,
    Condition,
    Missing,
    Not,
    OneOf,
    Or,
    Value,
    parse,
)


def shown(condition: Condition) -> str:
    """A condition with all its parentheses, to be read in a table."""
    match condition:
        case And(conditions):
            return f"({' and '.join(map(shown, conditions))})"
        case Or(conditions):
            return f"({' or '.join(map(shown, conditions))})"
        case Not(inner):
            return f"not {shown(inner)}"
        case Missing(field):
            return f"{field.name} is missing"
        case OneOf(field, values):
            return f"{field.name} in {[value.value for value in values]}"
        case Comparison(field, operator, value):
            return f"{field.name} {operator} {value.value!r}"


@pytest.mark.parametrize(
    "text, meaning",
    [
        ("metrics.roc_auc > 0.7 and params.clf__C = 1", "(metrics.roc_auc > 0.7 and params.clf__C = 1.0)"),
        ("a = 1 or b = 2 and c = 3", "(a = 1.0 or (b = 2.0 and c = 3.0))"),
        ("(a = 1 or b = 2) and c = 3", "((a = 1.0 or b = 2.0) and c = 3.0)"),
        ("not a = 1 and b = 2", "(not a = 1.0 and b = 2.0)"),
        ("not not a = 1", "a = 1.0"),
        ("status = failed", "status = 'failed'"),
        ("status='it is \"so\"'", "status = 'it is \"so\"'"),
        ("params.fit = true", "params.fit = 'True'"),
        ("a LIKE 'x%' AND b Contains y", "(a like 'x%' and b contains 'y')"),
        ("a not like x", "not a like 'x'"),
        ("a in (1, -2.5e3, x, 'y z')", "a in [1.0, -2500.0, 'x', 'y z']"),
        ("a not in (1)", "not a in [1.0]"),
        ("version is missing", "version is missing"),
        ("version is not missing", "not version is missing"),
        ("packages.scikit-learn != '1.9.1'", "packages.scikit-learn != '1.9.1'"),
        ("metrics.`at 5 %` >= .5", "metrics.at 5 % >= 0.5"),
        ("order = 1", "order = 1.0"),
        ("in_stock = 1", "in_stock = 1.0"),
    ],
)
def test_a_filter_means(text: str, meaning: str) -> None:
    assert shown(parse(text)) == meaning


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a > 2026-11-01", "2026-11-01T00:00:00+00:00"),
        ("a > 2026-11-01T10:30", "2026-11-01T10:30:00+00:00"),
        ("a > 2026-11-01T10:30:00.5Z", "2026-11-01T10:30:00.500000+00:00"),
        ("a > 2026-11-01T10:30+01:00", "2026-11-01T09:30:00+00:00"),
        ("a > 36h ago", "2026-11-23T12:00:00+00:00"),
    ],
)
def test_times_are_dates_or_moments_or_so_long_ago(text: str, expected: str) -> None:
    parsed = parse(text, now=datetime(2026, 11, 25, tzinfo=UTC))
    assert isinstance(parsed, Comparison)
    moment = datetime.fromisoformat(expected).timestamp()
    assert parsed.value == Value("time", moment, 4)


@pytest.mark.parametrize(
    "text, place, reason",
    [
        ("", 1, "expected a field, 'not' or '(', found the end"),
        ("a >", 4, "expected a value, found the end"),
        ("a == 1", 4, "expected a value, found '='"),
        ("a = 1 b", 7, "expected 'and', 'or' or the end, found 'b'"),
        ("a = 1 and", 10, "expected a field, 'not' or '(', found the end"),
        ("(a = 1", 7, "expected ')', found the end"),
        ("a = 1)", 6, "expected the end, found ')'"),
        ("a in ()", 7, "expected a value, found ')'"),
        ("a like 5", 8, "expected a text, found '5'"),
        ("a is", 5, "expected 'not' or 'missing', found the end"),
        ("a = 'x", 5, "the text that begins here has no closing '"),
        ("a # 1", 3, "'#' cannot be read here"),
        ("a = 2026-13-01", 5, "'2026-13-01' is no time"),
        ("__import__('os')", 11, "expected"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, place: int, reason: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        parse(text)
    first, line, pointer = raised.value.detail.split("\n")
    assert first.startswith(f"filter, character {place}: {reason}")
    assert line.strip() == text.strip()
    assert pointer.index("^") - 2 == place - 1 == raised.value.fields["position"]


def test_a_filter_has_a_longest_length_that_bounds_its_depth() -> None:
    depth = MAX_FILTER_CHARACTERS // 12
    assert parse("not(a=1 or " * depth + "a=1" + ")" * depth)
    with pytest.raises(InvalidFilter, match=f"at most {MAX_FILTER_CHARACTERS} characters"):
        parse("a" * (MAX_FILTER_CHARACTERS + 1))


@given(st.text(st.sampled_from("ab1 .()'\"=<>!-`and or not in is like missing,2026-11-25T10:00Z"), max_size=60))
def test_any_text_is_a_filter_or_a_mistake_at_a_place_in_it(text: str) -> None:
    try:
        parse(text)
    except InvalidFilter as error:
        assert 0 <= error.fields["position"] <= len(text)  # noqa: PT017  most texts are no filter, some are
