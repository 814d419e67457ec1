"""The command that shows what was trained how."""

from __future__ import annotations

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option


@click.command()
@click.argument("run", required=False)
@click.option("--model", help="Only runs of this model.")
@click.option("--limit", default=20, show_default=True)
@json_option
def runs(run: str | None, model: str | None, limit: int, as_json: bool) -> None:
    """List the newest runs, or show one RUN with all its metadata."""
    if run:
        found = terminal.client().run(run)
        show.as_json(found) if as_json else show.facts(found)
        return
    rows = terminal.client().runs(model, limit)
    if as_json:
        show.as_json(rows)
        return
    for row in rows:
        row["started"] = show.when(row["started"])
        row["seconds"] = round(sum(row["seconds"].values()), 2)
    columns = ["id", "model", "status", "version", "metrics", "rows_train", "seconds", "trigger", "started"]
    show.table(rows, columns, empty="No runs yet.")


COMMANDS = (runs,)
