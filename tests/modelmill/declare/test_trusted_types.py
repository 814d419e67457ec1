"""The reviewed list names what is there, and what users add to it is checked."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from modelmill.declare.trusted_types import TRUSTED, checked


@pytest.mark.parametrize("name", sorted(TRUSTED))
def test_a_reviewed_type_is_where_the_list_says(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute)


def test_only_scikit_learn_numpy_and_what_scikit_learn_holds_of_others_is_reviewed() -> None:
    others = {name for name in TRUSTED if name.partition(".")[0] not in ("sklearn", "numpy")}
    assert others == {
        "functools.partial",
        "scipy.interpolate._bsplines.BSpline",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
    }


def test_a_distance_by_a_python_function_is_not_among_them() -> None:
    assert not [name for name in TRUSTED if "PyFunc" in name]


@pytest.mark.parametrize(
    "given, error",
    [
        ("mymodule.MyType", r"model 'm': trusted='mymodule.MyType'; expected a list, \['mymodule.MyType'\]"),
        (["MyType"], "trusted holds 'MyType'; expected the full name of a type, 'mymodule.MyType'"),
        ([int], "trusted holds <class 'int'>; expected the full name"),
    ],
)
def test_what_is_no_list_of_full_names_is_refused(given: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        checked("model 'm'", given)


def test_full_names_are_kept() -> None:
    assert checked("model 'm'", ["mymodule.sub.MyType"]) == ("mymodule.sub.MyType",)
