from __future__ import annotations

import inspect

import pytest

from modelmill.state import keys

FUNCTIONS = [function for _, function in inspect.getmembers(keys, inspect.isfunction)]


def example(function: object) -> str:
    """The key of arguments that are all different."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    values = [number if p.annotation == "int" else f"name{number}" for number, p in enumerate(parameters, start=1)]
    return function(*values)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_key_holds_all_that_tells_it_apart(function: object) -> None:
    for number in range(1, len(inspect.signature(function).parameters) + 1):  # type: ignore[arg-type]
        assert str(number) in example(function)


def test_no_two_things_lie_under_one_key() -> None:
    constants = [value for name, value in vars(keys).items() if name.isupper()]
    every = [*constants, *(example(function) for function in FUNCTIONS)]
    assert len(every) == len(set(every))


def test_features_of_a_key_with_colons_lie_under_it() -> None:
    assert keys.feature("user", "a:b c") == "feature:user:a:b c"
