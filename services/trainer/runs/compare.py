"""Runs side by side: what is recorded of each, and where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelmill.state.runs import Run

MOST = 20
"""Runs that are put side by side."""

Facts = Mapping[str, Any]
"""What one run says in one section, by name."""


@dataclass(frozen=True)
class Line:
    """One fact of all compared runs: `values` in their order, None where a run has none."""

    name: str
    values: list[Any]
    differs: bool
    change: list[float | None] | None = None
    """Of numbers: what each is more than the first run's."""


def _of(*names: str) -> Callable[[Run], Facts]:
    return lambda run: {name: getattr(run, name) for name in names}


def _features(run: Run) -> Facts:
    """Each feature with the version that it had; inputs of the request, which no source holds, are just there."""
    stored = {name: version for name, _, version in (field.partition("@") for field in run.fields)}
    ends = {name.rpartition(".")[2] for name in stored}
    asked = {name: "input" for name in run.features if name not in ends}
    return {name: version or "column" for name, version in stored.items()} | asked


SECTIONS: dict[str, Callable[[Run], Facts]] = {
    "run": _of("model", "status", "version", "decision", "started", "finished", "trigger", "by", "error"),
    "params": lambda run: run.params,
    "metrics": lambda run: run.metrics,
    "intervals": lambda run: run.intervals,
    "segments": lambda run: run.segments,
    "data": _of("data_fingerprint", "rows_train", "rows_test", "rows_dropped", "data_start", "data_end", "split"),
    "sources": lambda run: {name: f"{rows} rows until {run.history[name]}" for name, rows in run.source_rows.items()},
    "features": _features,
    "packages": lambda run: run.packages,
    "code": lambda run: {**_of("estimator", "definitions", "git_commit", "machine")(run), **run.modules},
    "seconds": lambda run: run.seconds,
}
"""What is compared, in the order in which it is shown."""
MEASURED = {"metrics", "data", "seconds"}
"""Sections whose numbers are amounts, so that one can be more than another."""


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs' ids, and of each section its lines: those of the first run in its order, then what only others have."""
    sections = {}
    for section, facts_of in SECTIONS.items():
        facts = [facts_of(run) for run in runs]
        names = dict.fromkeys(name for some in facts for name in some)
        measured = section in MEASURED
        lines = [_line(name, [some.get(name) for some in facts], measured=measured) for name in names]
        sections[section] = [asdict(line) for line in lines if any(value not in (None, "") for value in line.values)]
    return {"runs": [run.id for run in runs], "sections": sections}


def _line(name: str, values: list[Any], *, measured: bool) -> Line:
    differs = any(value != values[0] for value in values)
    numbers = measured and differs and isinstance(values[0], int | float)
    change = [value - values[0] if isinstance(value, int | float) else None for value in values] if numbers else None
    return Line(name, values, differs, change)
