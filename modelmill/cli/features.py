"""The commands of the feature store: definitions, rows in, features and what is known of them out."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.markup import escape
from rich.progress import DownloadColumn

from modelmill import definitions_file, show
from modelmill.cli import terminal
from modelmill.cli.terminal import EXIT_FAILED, json_option
from modelmill.errors import Rejection, UnknownName


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Apply without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@json_option
def apply(file: Path | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Check the definitions FILE, show what would change, and apply it to the running services."""
    api = terminal.client()
    checked = definitions_file.load(file or api.settings.definitions)
    versions = {name: function.version for name, function in checked.functions().items()}
    plan = api.apply(checked.fingerprint, versions=versions, dry_run=True)
    if not as_json:
        for change in plan["changes"]:
            show.console.print(f"  {change}", highlight=False, markup=False)
        for warning in plan["warnings"]:
            show.errors.print("[yellow]warning:[/]", escape(warning), highlight=False, soft_wrap=True)
        for refusal in plan["refusals"]:
            show.errors.print("[red]refused:[/]", escape(refusal), highlight=False)
    if plan["refusals"]:
        sys.exit(EXIT_FAILED)
    if dry_run:
        if as_json:
            show.as_json(plan)
        elif not plan["changes"]:
            show.console.print("Nothing is declared otherwise.")
        return
    if plan["changes"] and not yes and not as_json:
        click.confirm("Apply?", abort=True)
    with show.bar("computing features", as_json) as progress:
        done = api.apply(checked.fingerprint, seconds=24 * 3600, progress=progress)
    if as_json:
        show.as_json(done)
    elif done["changes"] or done["backfilled"]:
        show.console.print(f"Applied; {done['backfilled']} rows backfilled.")
    else:
        show.console.print("Applied: nothing is declared otherwise; trainings go by the text as it is now.")


@click.command()
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", help="Keep the good rows of a file?")
@json_option
def ingest(source: str, file: Path, on_error: str, as_json: bool) -> None:
    """Send FILE (CSV, JSON, NDJSON or Parquet) to SOURCE."""
    with show.bar(f"{file.name} to {source}", as_json, DownloadColumn()) as progress:
        done = terminal.client().ingest(source, file, on_error=on_error, progress=progress)
    if as_json:
        show.as_json(done)
        return
    counts = ", ".join(f"{done[outcome]} {outcome}" for outcome in ("rejected", "late", "duplicate"))
    show.console.print(f"{done['accepted']} rows accepted, {counts}.")
    for reason in done["reasons"]:
        show.console.print(f"  {Rejection(**reason)}", markup=False)
    for feature, count in done["failed_features"].items():
        show.console.print(f"  {feature} failed on {count} rows")


@click.command()
@click.argument("source")
@click.option("--count", default=20, show_default=True, help="How many of the newest.")
@click.option("--since", help="Only those kept from this time on (ISO 8601).")
@json_option
def rejected(source: str, count: int, since: str | None, as_json: bool) -> None:
    """Show the rows of SOURCE that were rejected while others of their file were kept, newest first."""
    found = terminal.client().rejected(source, count=count, since=since)
    if as_json:
        show.as_json(found)
        return
    rows = [{**row, "ingested": show.when(row["ingest_time"])} for row in found["rows"]]
    show.table(rows, ["ingested", "row", "column", "value", "reason", "content"], empty="No rejected rows.")
    show.console.print(f"{found['rejected']} rows rejected ever, {found['kept']} kept.")


@click.command()
@click.argument("source")
@click.option("--column", help="One column, day by day.")
@click.option("--start", help="From this day on, such as 2013-01-31.")
@click.option("--end", help="Before this day.")
@json_option
def statistics(source: str, column: str | None, start: str | None, end: str | None, as_json: bool) -> None:
    """Show what the values of SOURCE's columns are like."""
    found = terminal.client().statistics(source, column=column, start=start, end=end)
    if as_json:
        show.as_json(found)
        return
    rows = [
        {"column": name, "day": day, **figures}
        for name, known in found["columns"].items()
        for day, figures in [*(known["days"].items() if column else ()), ("all", known["merged"] or {})]
    ]
    figures = ["count", "nulls", "mean", "std", "min", "p05", "p50", "p95", "max", "top"]
    for row in rows:
        row["top"] = [f"{top['value']} ({top['count']})" for top in row.get("top", [])[:3]]
    show.table(rows, ["column", *(["day"] if column else []), *figures], empty="No rows.")
    show.console.print(f"Quantiles within {found['relative_error']:.0%}.")


@click.command()
@click.argument("entity", required=False)
@click.argument("key", required=False)
@click.option("--detail", is_flag=True, help="Why each value is there or not, and how old it is.")
@json_option
def features(entity: str | None, key: str | None, detail: bool, as_json: bool) -> None:
    """List all features, or show those stored of one ENTITY by its KEY."""
    if entity is not None and key is not None:
        found = terminal.client().entity(entity, key, detail=detail)
        if as_json:
            show.as_json(found)
        elif detail:
            rows = [{"feature": name, **value} for name, value in found["features"].items()]
            columns = ["feature", "value", "status", "age_seconds", "event_time", "ingest_time", "source", "error"]
            show.table(rows, columns, empty="No features.")
        else:
            show.facts(found)
        return
    if detail:
        raise click.UsageError("--detail is about one entity; name ENTITY and KEY")
    rows = terminal.client().features()
    if entity is not None:
        known = {row["entity"] for row in rows if row["entity"]}
        if entity not in known:
            raise UnknownName("entity", entity, known)
        rows = [row for row in rows if row["entity"] == entity]
    if as_json:
        show.as_json(rows)
    else:
        for row in rows:
            row |= {"newest": show.when(row["newest"]), "nulls": row["null_share"]}
        columns = ["entity", "name", "dtype", "source", "kind", "version", "models", "newest", "nulls", "owner", "tags"]
        show.table(rows, [*columns, "description"], empty="No features.")


COMMANDS = (apply, ingest, rejected, statistics, features)
