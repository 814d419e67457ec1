"""The command that shows how good a run's model is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option


@click.command()
@click.argument("run")
@json_option
def evaluation(run: str, as_json: bool) -> None:
    """Show the metrics of RUN on its held-out rows, with 95 % intervals, and by segment."""
    found = terminal.client().evaluation(run)
    if as_json:
        show.as_json(found)
        return
    show.facts({"split": found["split"], "rows": found["rows"]})
    rows = [
        {"metric": name, "value": value, "95_%": _interval(found, name), "labels_alone": found["baseline"].get(name)}
        for name, value in found["metrics"].items()
    ]
    show.table(rows, ["metric", "value", "95_%", "labels_alone"], empty="")
    deciding = next(iter(found["metrics"]))
    segments = list(_segments(found, deciding))
    if segments:
        show.console.print()
        show.table(segments, ["column", "value", "rows", deciding, "95_%"], empty="")


def _segments(found: Mapping[str, Any], metric: str) -> Iterator[dict[str, Any]]:
    for column, values in found["segments"].items():
        for value, one in values.items():
            score = one["metrics"].get(metric, one["missing"].get(metric))
            yield {"column": column, "value": value, "rows": one["rows"], metric: score, "95_%": _interval(one, metric)}


def _interval(of: Mapping[str, Any], metric: str) -> str:
    interval = of["intervals"].get(metric)
    return f"{show.text(interval['lo'])} to {show.text(interval['hi'])}" if interval else ""


COMMANDS = (evaluation,)
