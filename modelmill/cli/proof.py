"""The commands that prove, explain, erase and restore what the feature store holds."""

from __future__ import annotations

import sys

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import EXIT_FAILED, json_option


@click.command()
@click.argument("entity")
@click.argument("key")
@click.option("--at", help="As a training frame would see them at this time (ISO 8601); default: online, now.")
@click.option("--as-of", type=click.Choice(["event", "known"]), default="event", show_default=True)
@json_option
def explain(entity: str, key: str, at: str | None, as_of: str, as_json: bool) -> None:
    """Say of each feature of the ENTITY with KEY why it is what it is."""
    found = terminal.client().explain(entity, key, at=at, as_of=as_of)
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
    found = terminal.client().audit(model, since)
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
@click.option("--by", default=terminal.user, help="Who erases it; default: you. Must not name the key either.")
@click.option("--reason", default="", help="Kept in the receipt; must not name the key.")
@click.option("--yes", is_flag=True, help="Erase without asking.")
@json_option
def forget(entity: str, key: str, by: str, reason: str, yes: bool, as_json: bool) -> None:
    """Erase all that is stored of the ENTITY with KEY, for ever, and show the receipt."""
    if not yes and not as_json:
        click.confirm(f"Erase {entity} {key!r} from history, online store, quarantine and predictions?", abort=True)
    receipt = terminal.client().forget(entity, key, by=by, reason=reason)
    show.as_json(receipt) if as_json else show.facts(receipt)


@click.command()
@click.option("--entity", help="Only this entity's.")
@json_option
def rebuild(entity: str | None, as_json: bool) -> None:
    """Restore the online store from history."""
    with show.bar("restoring", as_json) as progress:
        done = terminal.client().rebuild(entity, seconds=24 * 3600, progress=progress)
    if as_json:
        show.as_json(done)
    else:
        show.console.print(f"{done['rows']} rows of history are online again.")


COMMANDS = (explain, audit, forget, rebuild)
