"""The commands that move aliases: which version serves, and which one did before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option
from modelmill.client import Json

COLUMNS = ("time", "alias", "version", "previous", "kind", "by", "reason")


def _reasoned(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--expected` and `--reason`."""
    expected = click.option(
        "--expected", type=int, help="Refuse unless the alias names this version by now; 0: unless it names none."
    )
    return expected(click.option("--reason", default="", help="Kept in the alias's history.")(command))


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--alias", default="champion", show_default=True)
@click.option("--force", is_flag=True, help="Although it failed its gates; --reason says why, and is kept.")
@_reasoned
@json_option
def promote(
    model: str, version: int, alias: str, force: bool, expected: int | None, reason: str, as_json: bool
) -> None:
    """Let the alias of MODEL name VERSION; predictors serve the alias `champion`."""
    if force and not reason:
        raise click.UsageError("--force needs --reason TEXT: why are the gates overruled?")
    _show(
        terminal.client().promote(
            model, version, alias=alias, by=terminal.user(), reason=reason, expected=expected, force=force
        ),
        as_json,
    )


@click.command()
@click.argument("model")
@click.option("--to", type=int, metavar="VERSION", help="Go back to this version at once.")
@click.option("--alias", default="champion", show_default=True)
@click.option("--force", is_flag=True, help="Although features that it is served from have to be computed again.")
@_reasoned
@json_option
def rollback(
    model: str, to: int | None, alias: str, force: bool, expected: int | None, reason: str, as_json: bool
) -> None:
    """Let the champion of MODEL be the version that it was before; again, the one before that."""
    _show(
        terminal.client().rollback(
            model, alias=alias, by=terminal.user(), reason=reason, to=to, expected=expected, force=force
        ),
        as_json,
    )


@click.command()
@click.argument("model")
@click.argument("alias")
@_reasoned
@json_option
def unalias(model: str, alias: str, expected: int | None, reason: str, as_json: bool) -> None:
    """Let ALIAS of MODEL name nothing; its history stays. Without `champion` a model is not served."""
    _show(
        terminal.client().delete_alias(model, alias, by=terminal.user(), reason=reason, expected=expected),
        as_json,
    )


@click.command()
@click.argument("model")
@click.option("--alias", help="Only moves of this alias.")
@click.option("--limit", default=50, show_default=True)
@json_option
def history(model: str, alias: str | None, limit: int, as_json: bool) -> None:
    """List the moves of every alias of MODEL, newest first: which version, before it, how, by whom, why."""
    moves = terminal.client().history(model, alias, limit)
    show.as_json(moves) if as_json else show_moves(moves)


def show_moves(moves: Sequence[Json]) -> None:
    """Print moves of aliases as a table."""
    rows = [{**move, "time": show.when(move["time"]), "reason": _reason(move)} for move in moves]
    show.table(rows, COLUMNS, empty="No alias has moved yet.")


def _reason(move: Json) -> str:
    return f"forced over {', '.join(move['forced'])}: {move['reason']}" if move["forced"] else str(move["reason"])


def _show(done: Json, as_json: bool) -> None:
    show.as_json(done) if as_json else show.facts(done)


COMMANDS = (promote, rollback, unalias, history)
