"""The commands of the feature store: definitions, rows in, features and what is known of them out."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.markup import escape
from rich.progress import DownloadColumn

from modelmill.cli import show, system
from modelmill.cli.system import EXIT_FAILED, json_option
from modelmill.declare import definitions_file
from modelmill.errors import Rejection, UnknownName


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Apply without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@json_option
def apply(file: Path | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Check the definitions FILE, show what would change, and apply it to the running services."""
    api = system.client()
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
        done = system.client().ingest(source, file, on_error=on_error, progress=progress)
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
    found = system.client().rejected(source, count=count, since=since)
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
    found = system.client().statistics(source, column=column, start=start, end=end)
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
        found = system.client().entity(entity, key, detail=detail)
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
    rows = system.client().features()
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


# --- the commands that prove, explain, erase and restore what the feature store holds


@click.command()
@click.argument("entity")
@click.argument("key")
@click.option("--at", help="As a training frame would see them at this time (ISO 8601); default: online, now.")
@click.option("--as-of", type=click.Choice(["event", "known"]), default="event", show_default=True)
@json_option
def explain(entity: str, key: str, at: str | None, as_of: str, as_json: bool) -> None:
    """Say of each feature of the ENTITY with KEY why it is what it is."""
    found = system.client().explain(entity, key, at=at, as_of=as_of)
    if as_json:
        show.as_json(found)
        return
    rows = [{"feature": name, **told, "age": _age(told["age_seconds"])} for name, told in found["features"].items()]
    show.table(rows, ["feature", "value", "status", "age", "why", "source", "field"], empty="No features.")
    for name, source in found["sources"].items():
        show.console.print()
        show.facts({f"source {name}": source})
        if source["online_equals_history"] is False:
            show.console.print("  [red]online differs from the history[/]; modelmill rebuild restores it")
    if found["forgotten"]:
        show.console.print(f"\nForgotten at {found['forgotten']}.")


def _age(seconds: float | None) -> str:
    """An age in its largest unit, such as `2.5 h`."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


@click.command()
@click.argument("model")
@click.option("--since", default="1h", show_default=True, help="How far back: 15m, 2h, 1d.")
@json_option
def audit(model: str, since: str, as_json: bool) -> None:
    """Compare the features that MODEL's predictions were served with, bit for bit, with what was known at their times.

    Exit code 1 where they differ.
    """
    found = system.client().audit(model, since)
    if as_json:
        show.as_json(found)
    else:
        counts = ["predictions", "rows", "values", "equal", "in_flight", "differences"]
        show.facts({"model": model, "since": found["since"], "until": found["until"]})
        show.table([found], counts, empty="")
        for reason, count in found["not_auditable"].items():
            show.console.print(f"not auditable: {count} {reason}", markup=False, soft_wrap=True)
        if found["first"]:
            show.console.print()
            columns = ["prediction", "row", "feature", "served", "expected", "event_time", "ingest_time"]
            show.table(found["first"], columns, empty="")
    if found["differences"]:
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("entity")
@click.argument("key")
@click.option("--by", default=system.user, help="Who erases it; default: you. Must not name the key either.")
@click.option("--reason", default="", help="Kept in the receipt; must not name the key.")
@click.option("--yes", is_flag=True, help="Erase without asking.")
@json_option
def forget(entity: str, key: str, by: str, reason: str, yes: bool, as_json: bool) -> None:
    """Erase all that is stored of the ENTITY with KEY, for ever, and show the receipt."""
    if not yes and not as_json:
        click.confirm(f"Erase {entity} {key!r} from history, online store, quarantine and predictions?", abort=True)
    receipt = system.client().forget(entity, key, by=by, reason=reason)
    show.as_json(receipt) if as_json else show.facts(receipt)


@click.command()
@click.option("--entity", help="Only this entity's.")
@json_option
def rebuild(entity: str | None, as_json: bool) -> None:
    """Restore the online store from history."""
    with show.bar("restoring", as_json) as progress:
        done = system.client().rebuild(entity, seconds=24 * 3600, progress=progress)
    if as_json:
        show.as_json(done)
    else:
        show.console.print(f"{done['rows']} rows of history are online again.")


COMMANDS = (apply, ingest, rejected, statistics, features, explain, audit, forget, rebuild)
