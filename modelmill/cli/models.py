"""The commands of the registry: models, their versions, and which of these stay."""

from __future__ import annotations

from collections.abc import Mapping

import click

from modelmill import show
from modelmill.cli import aliases, terminal
from modelmill.cli.terminal import json_option

ALWAYS = ("version", "aliases", "metrics", "created", "run")
"""Columns of versions that are shown even if they are empty."""
MOVES = 5
"""Moves of aliases that are shown with a model."""


@click.command()
@click.argument("model", required=False)
@json_option
def models(model: str | None, as_json: bool) -> None:
    """List all models, or the versions of one MODEL with its aliases and their newest moves."""
    if model is None:
        rows = terminal.client().models()
        columns = ["name", "aliases", "latest", "metric", "promote", "train"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No models.")
        return
    found = terminal.client().model(model)
    if as_json:
        show.as_json(found)
        return
    for row in found["versions"]:
        row["aliases"] = [alias for alias, number in found["aliases"].items() if number == row["version"]]
        row["created"] = show.when(row["created"])
        row["pruned"] = show.when(row["pruned"])
        row["gates"] = _gates(row["gates"])
        row["metrics"] = show.scores(row["metrics"], found["metric"])
    columns = ["version", "aliases", "metrics", "gates", "tags", "created", "run", "pruned"]
    used = [column for column in columns if column in ALWAYS or any(row[column] for row in found["versions"])]
    show.table(found["versions"], used, empty="No versions yet.")
    if found["history"]:
        show.console.print()
        aliases.show_moves(found["history"][: -MOVES - 1 : -1])


def _gates(gates: Mapping[str, str]) -> str:
    """Which gates failed, or that none did."""
    failed = [name for name, said in gates.items() if said.startswith("failed")]
    return f"failed: {', '.join(failed)}" if failed else "passed" if gates else ""


@click.command()
@click.argument("model", required=False)
@click.option("--dry-run", is_flag=True, help="Print what would go, and remove nothing.")
@json_option
def prune(model: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove packages and run files of old versions of MODEL, or of all models, as their `keep` says.

    Never what an alias names, what five rollbacks return to, or what the monitor counts predictions of.
    """
    client = terminal.client()
    names = [model] if model else [found["name"] for found in client.models() if found["latest"]]
    done = [client.prune(name, dry_run=dry_run, by=terminal.user()) for name in names]
    if as_json:
        show.as_json(done)
        return
    rows = [{"model": one["model"], **removed} for one in done for removed in one["removed"]]
    show.table(rows, ["model", "version", "run", "bytes"], empty="Nothing to prune.")
    if rows:
        does = "would free" if dry_run else "freed"
        show.console.print(f"{does} {sum(one['bytes'] for one in done):,} bytes of {len(rows)} versions")


COMMANDS = (models, prune)
