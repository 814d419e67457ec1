"""The command that shows what a training tried."""

from __future__ import annotations

from collections.abc import Sequence

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option
from modelmill.client import Json


@click.command()
@click.argument("run")
@json_option
def trials(run: str, as_json: bool) -> None:
    """List the trials of the search of RUN, the best first, with the parameters in which they differ."""
    found = terminal.client().trials(run)
    if as_json:
        show.as_json(found)
        return
    rows = found["runs"]
    metric = rows[0]["metric"] if rows else ""
    for row in rows:
        row["tried"] = differing(row, rows)
        row["seconds"] = row["seconds"].get("fit")
        row[metric] = row["metrics"].get(metric)
        row["std"] = row["metrics"].get(f"{metric}_std")
    rows.sort(key=lambda row: (row[metric] is None, -(row[metric] or 0.0), row["trial"]))
    columns = ["trial", "status", metric, "std", "tried", "seconds", "id", "error"]
    show.table(rows, columns, empty="No trials: this run searched nothing.")
    if rows:
        click.echo(f"{found['trials_ended']} of {found['trials']} trials have ended, {found['trials_failed']} failed")


def differing(trial: Json, trials: Sequence[Json]) -> dict[str, str]:
    """The parameters in which a trial differs from others: from those of the same candidate, or in its candidate."""
    own = trial["params"]
    candidates = {other["params"].get("candidate", "") for other in trials} - {""}
    same = [other["params"] for other in trials if other["params"].get("candidate") == own.get("candidate")]
    shown = {"candidate": own["candidate"]} if "candidate" in own and len(candidates) > 1 else {}
    varied = {name: own[name] for name in sorted(own) if any(other.get(name) != own[name] for other in same)}
    return shown | varied


COMMANDS = (trials,)
