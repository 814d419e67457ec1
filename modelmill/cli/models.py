"""The commands of the registry: versions of models, and which of them serves."""

from __future__ import annotations

import os

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option


@click.command()
@click.argument("model", required=False)
@json_option
def models(model: str | None, as_json: bool) -> None:
    """List all models, or the versions of one MODEL with its aliases."""
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
    show.table(found["versions"], ["version", "aliases", "metrics", "created", "run"], empty="No versions yet.")


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--alias", default="champion", show_default=True)
@click.option("--reason", default="", help="Kept in the alias's history.")
@json_option
def promote(model: str, version: int, alias: str, reason: str, as_json: bool) -> None:
    """Let the alias of MODEL name VERSION; predictors serve the alias `champion`."""
    done = terminal.client().promote(model, version, alias=alias, by=os.environ.get("USER", "cli"), reason=reason)
    show.as_json(done) if as_json else show.facts(done)


@click.command()
@click.argument("model")
@click.option("--reason", default="", help="Kept in the alias's history.")
@json_option
def rollback(model: str, reason: str, as_json: bool) -> None:
    """Let the champion of MODEL be the version that it was before."""
    done = terminal.client().rollback(model, by=os.environ.get("USER", "cli"), reason=reason)
    show.as_json(done) if as_json else show.facts(done)


COMMANDS = (models, promote, rollback)
