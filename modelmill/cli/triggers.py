"""The commands about what triggers trainings, and about training as of past days."""

from __future__ import annotations

import sys
from typing import Any

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import EXIT_FAILED, json_option


@click.command()
@json_option
def schedules(as_json: bool) -> None:
    """List what trains the models by itself: when next, when last, and what became of it."""
    rows = terminal.client().schedules()
    if as_json:
        show.as_json(rows)
        return
    for row in rows:
        row |= {"next": show.when(row["next"]), "fired": show.when(row["fired"])}
        row["outcome"] = row["waits"] or row["outcome"]
    columns = ["model", "trigger", "next", "fired", "outcome", "today", "rows"]
    show.table(rows, columns, empty="No model is trained by itself.")


@click.command()
@click.argument("model")
@click.option("--from", "start", help="The first point in time (ISO 8601).")
@click.option("--to", "end", help="The last point in time (ISO 8601).")
@click.option("--step", default="1d", show_default=True, help="How much later the next point is: 30d, month, ...")
@click.option("--again", is_flag=True, help="Begin anew instead of going on after what is done.")
@click.option("--wait", is_flag=True, help="Show progress until all trainings have ended.")
@click.option("--cancel", is_flag=True, help="End what goes on.")
@json_option
def backfill(
    model: str, start: str | None, end: str | None, step: str, again: bool, wait: bool, cancel: bool, as_json: bool
) -> None:
    """Train MODEL as of past days: at each point --from, --to on the rows from before it; without them show how far.

    Asked again, it goes on after what is done.
    """
    if (start is None) != (end is None) or (cancel and start is not None):
        raise click.UsageError("expected both --from and --to, or neither of them, or --cancel alone")
    api = terminal.client()
    if cancel:
        state = api.cancel_backfill(model)
    elif start is not None and end is not None:
        by = terminal.user()
        state = api.backfill(model, start=start, end=end, step=step, again=again, by=by)
    else:
        state = api.backfilled(model)
    if wait:
        with show.bar(f"training {model}", as_json) as progress:
            state = api.wait_for_backfill(model, progress=progress)
    show.as_json(state) if as_json else _show(state)
    if wait and state["counts"] != {"succeeded": state["total"]}:
        sys.exit(EXIT_FAILED)


def _show(state: dict[str, Any]) -> None:
    show.table(state["points"], ["as_of", "status", "version", "run", "error"], empty="")
    counts = ", ".join(f"{count} {status}" for status, count in state["counts"].items())
    show.console.print(f"{state['status']}: {counts}", highlight=False)


COMMANDS = (schedules, backfill)
