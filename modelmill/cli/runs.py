"""The commands that show what was trained how: list, show, compare, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option

COLUMNS = ["id", "model", "status", "version", "metrics", "rows_train", "seconds", "trigger", "started"]
STAGES = ("frame", "fit", "evaluate", "package", "register")
SEARCH = ("trials", "trials_ended", "trials_failed")
LONGEST_CELL = 60
"""Letters of a value in a comparison; `--json` has them all."""

filter_option = click.option(
    "--filter", "matching", default="", help='Such as "metrics.roc_auc > 0.7 and params.C = 1".'
)
order_option = click.option("--order", default="", help="Fields, such as -metrics.roc_auc,started; default -started.")


@click.group(invoke_without_command=True)
@click.option("--model", help="Only runs of this model.")
@filter_option
@order_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@json_option
@click.pass_context
def runs(context: click.Context, model: str | None, matching: str, order: str, limit: int, as_json: bool) -> None:
    """List the newest runs, or those that --filter matches."""
    if context.invoked_subcommand is not None:
        return
    rows = terminal.client().runs(model, limit, filter=matching, order=order)
    if as_json:
        show.as_json(rows)
        return
    for row in rows:
        row["started"] = show.when(row["started"])
        row["metrics"] = show.scores(row["metrics"], row["metric"])
        row["seconds"] = round(sum(row["seconds"].values()), 2)
    show.table(rows, COLUMNS, empty="No such runs." if matching else "No runs yet.")


@runs.command("show")
@click.argument("run")
@json_option
def show_run(run: str, as_json: bool) -> None:
    """Show one RUN with all its metadata."""
    found = terminal.client().get_run(run)
    show.as_json(found) if as_json else show.facts(_readable(found))


@runs.command()
@click.argument("run", nargs=-1, required=True)
@click.option("--differences", is_flag=True, help="Leave out what is the same.")
@json_option
def compare(run: tuple[str, ...], differences: bool, as_json: bool) -> None:
    """Show two or more RUNs side by side, what differs marked with ≠."""
    if len(run) < 2:
        raise click.UsageError("a comparison takes two or more runs")
    found = terminal.client().compare_runs(*run)
    show.as_json(found) if as_json else show.console.print(_side_by_side(found, differences))


@runs.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@filter_option
@order_option
def export(file: Path, matching: str, order: str) -> None:
    """Write runs to FILE: .csv with timestamp, model, parameters, score, model_path; .parquet with all fields."""
    terminal.client().export_runs(file, filter=matching, order=order)
    show.console.print(f"Wrote {escape(str(file))}.", highlight=False)


def _readable(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run without what only its worker needs, and each part of it in an order: Redis keeps none."""
    shown = {name: value for name, value in run.items() if name != "lease" and (value or name not in SEARCH)}
    for name, part in shown.items():
        if isinstance(part, Mapping):
            shown[name] = dict(sorted(part.items()))
    for name in ("metrics", "intervals"):
        shown[name] = show.scores(run.get(name, {}), run.get("metric", ""))
    seconds = run.get("seconds", {})
    shown["seconds"] = {stage: seconds[stage] for stage in sorted(seconds, key=lambda stage: (_place(stage), stage))}
    return shown


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _side_by_side(found: Mapping[str, Any], differences: bool) -> Table:
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "", *found["runs"]):
        grid.add_column(title, overflow="fold")
    for section, lines in found["sections"].items():
        shown = [line for line in lines if line["differs"] or not differences]
        if shown:
            grid.add_row("", Text(section, style="bold"), *("" for _ in found["runs"]))
        for line in shown:
            style = "yellow" if line["differs"] else "dim"
            mark = "≠" if line["differs"] else ""
            grid.add_row(mark, Text(f"  {line['name']}"), *_cells(line), style=style)
    return grid


def _cells(line: Mapping[str, Any]) -> Sequence[Text]:
    changes = line["change"] or [None] * len(line["values"])
    return [Text(_cell(value, change)) for value, change in zip(line["values"], changes, strict=True)]


def _cell(value: Any, change: float | None) -> str:
    text = " ".join(show.text(value).split())
    shown = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 3]}..."
    return f"{shown} ({change:+.4g})" if change else shown


COMMANDS = (runs,)
