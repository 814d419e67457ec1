"""What kind each recorded field of a run is, by its name: `metrics.roc_auc` is a number, `params.clf__C` a text."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from modelmill.state.runs import Run

Kind = Literal["number", "time", "list", "text"]

FORMS = {item.name: str(item.type) for item in fields(Run)}
"""Field of a run to its type."""
TIMES = {"started", "finished", "data_start", "data_end"}
UNSEARCHED = {"traceback", "lease", "notes"}
"""Fields, and groups of them, that nobody looks for: too long, of use to the machinery alone, or named by a time."""
GROUPS = {name for name, form in FORMS.items() if form.startswith("dict")}
"""Fields that hold others: `params`, `metrics`, ..."""
SINGLE = FORMS.keys() - GROUPS
"""Fields that every run has."""


def kind_of(name: str) -> Kind:
    """The kind of a field; a text may be a number as it prints, as parameters often are."""
    if name in TIMES:
        return "time"
    form = FORMS.get(name.partition(".")[0], "str")
    if form in ("int", "int | None", "float", "float | None", "dict[str, float]", "dict[str, int]"):
        return "number"
    return "list" if form.startswith("list") else "text"
