"""Named, typed columns: of a source, and what features and inputs are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Any, get_args

from modelmill.constraints import NO_CONSTRAINTS, ColumnSpec, Constraints

Scalar = float | int | str | bool | None
DTYPES: dict[type, str] = {float: "float", int: "int", bool: "bool", str: "str"}


@dataclass(frozen=True)
class Column:
    """A named, typed column. `dtype` is `float`, `int`, `bool` or `str`; `nullable` columns may lack a value."""

    name: str
    dtype: str
    nullable: bool
    constraints: Constraints = NO_CONSTRAINTS
    description: str = ""

    @classmethod
    def specified(cls, name: str, spec: Any) -> Column:
        """Read a type, or what `column(...)` made of one.

        Raises:
            ValueError: for anything else, and for constraints that contradict the type or each other.
        """
        if not isinstance(spec, ColumnSpec):
            return cls.of(name, spec)
        plain = cls.of(name, spec.annotation)
        try:
            spec.constraints.check(plain.dtype)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
        return replace(plain, constraints=spec.constraints, description=spec.description)

    @classmethod
    def of(cls, name: str, annotation: Any) -> Column:
        """Read `float` or `float | None`.

        Raises:
            ValueError: for anything else.
        """
        if isinstance(annotation, ColumnSpec):
            raise ValueError(f"column {name!r}: column(...) is for the columns of a source; expected its type alone")
        kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        named = [kind for kind in kinds if kind is not NoneType]
        if len(named) != 1 or not isinstance(named[0], type) or named[0] not in DTYPES:
            raise ValueError(
                f"column {name!r} has type {annotation!r}; expected float, int, bool or str, or one of them | None"
            )
        return cls(name, DTYPES[named[0]], NoneType in kinds)

    def __str__(self) -> str:
        return f"{self.dtype}{'?' if self.nullable else ''}"

    def allows(self, value: Scalar) -> bool:
        """Whether `value` is one of this column's; a whole number is also a float."""
        if value is None:
            return self.nullable
        return DTYPES.get(type(value)) == self.dtype or (self.dtype == "float" and type(value) is int)
