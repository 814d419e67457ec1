"""The commands of the registry: models, their versions, and which of these stay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from modelmill.cli import show, system
from modelmill.cli.system import json_option
from modelmill.client import Json

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
        rows = system.client().models()
        columns = ["name", "aliases", "latest", "metric", "promote", "train"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No models.")
        return
    found = system.client().model(model)
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
        show_moves(found["history"][: -MOVES - 1 : -1])


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
    client = system.client()
    names = [model] if model else [found["name"] for found in client.models() if found["latest"]]
    done = [client.prune(name, dry_run=dry_run, by=system.user()) for name in names]
    if as_json:
        show.as_json(done)
        return
    rows = [{"model": one["model"], **removed} for one in done for removed in one["removed"]]
    show.table(rows, ["model", "version", "run", "bytes"], empty="Nothing to prune.")
    if rows:
        does = "would free" if dry_run else "freed"
        show.console.print(f"{does} {sum(one['bytes'] for one in done):,} bytes of {len(rows)} versions")


# --- the commands that move aliases: which version serves, and which one did before

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
        system.client().promote(
            model, version, alias=alias, by=system.user(), reason=reason, expected=expected, force=force
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
        system.client().rollback(
            model, alias=alias, by=system.user(), reason=reason, to=to, expected=expected, force=force
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
        system.client().delete_alias(model, alias, by=system.user(), reason=reason, expected=expected),
        as_json,
    )


@click.command()
@click.argument("model")
@click.option("--alias", help="Only moves of this alias.")
@click.option("--limit", default=50, show_default=True)
@json_option
def history(model: str, alias: str | None, limit: int, as_json: bool) -> None:
    """List the moves of every alias of MODEL, newest first: which version, before it, how, by whom, why."""
    moves = system.client().history(model, alias, limit)
    show.as_json(moves) if as_json else show_moves(moves)


def show_moves(moves: Sequence[Json]) -> None:
    """Print moves of aliases as a table."""
    rows = [{**move, "time": show.when(move["time"]), "reason": _reason(move)} for move in moves]
    show.table(rows, COLUMNS, empty="No alias has moved yet.")


def _reason(move: Json) -> str:
    return f"forced over {', '.join(move['forced'])}: {move['reason']}" if move["forced"] else str(move["reason"])


def _show(done: Json, as_json: bool) -> None:
    show.as_json(done) if as_json else show.facts(done)


# --- the commands that say something of a version or a run: tags and notes


@click.command()
@click.argument("of", metavar="MODEL@VERSION|MODEL@ALIAS|RUN")
@click.argument("tags", nargs=-1, required=True, metavar="NAME=VALUE...")
@json_option
def tag(of: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Tag a version or a run: `stage=reviewed`; `stage=` takes the tag away."""
    given = {}
    for one in tags:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"tag {one!r}: expected NAME=VALUE, or NAME= to take it away")
        given[name] = value or None
    done = system.client().tag(of, given)
    show.as_json(done) if as_json else show.facts({"tags": done["tags"]})


@click.command()
@click.argument("of", metavar="MODEL@VERSION|MODEL@ALIAS|RUN")
@click.argument("text")
@json_option
def note(of: str, text: str, as_json: bool) -> None:
    """Add a note to a version or a run, which keeps who wrote it and when."""
    done = system.client().note(of, text, by=system.user())
    show.as_json(done) if as_json else show.facts({"notes": done["notes"]})


# --- the command that fetches a model's card


@click.command()
@click.argument("model", metavar="MODEL[@VERSION|@ALIAS]", required=False)
@click.option("--run", help="Of this run instead, also of one that failed.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it here; `-` is standard output.")
@click.option("--open", "open_it", is_flag=True, help="Show it in the browser.")
def card(model: str | None, run: str | None, output: Path | None, open_it: bool) -> None:
    """Write the card of a model as one HTML file: of its champion, of a version, or of what an alias names."""
    if (model is None) == (run is None):
        raise click.UsageError("expected MODEL[@VERSION|@ALIAS], or --run RUN")
    if run is not None:
        html, name = system.client().card(run=run), run
    else:
        name, _, which = str(model).partition("@")
        version, alias = (int(which), "champion") if which.isdecimal() else (None, which or "champion")
        html, name = system.client().card(name, version=version, alias=alias), str(model)
    if output == Path("-"):
        sys.stdout.write(html)
        return
    path = output or Path(f"{name}.html")
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    show.console.print(f"{path}", highlight=False, soft_wrap=True, markup=False)
    if open_it:
        click.launch(path.resolve().as_uri())


COMMANDS = (models, prune, promote, rollback, unalias, history, tag, note, card)
