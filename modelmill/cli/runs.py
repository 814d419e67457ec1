"""The commands that show what was trained how: list, show, compare, export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from modelmill.cli import show, system
from modelmill.cli.system import json_option

COLUMNS = ["id", "model", "status", "version", "metrics", "rows_train", "seconds", "trigger", "started"]
STAGES = ("frame", "fit", "evaluate", "package", "register")
SEARCH = ("trials", "trials_ended", "trials_failed")
LONGEST_CELL = 60
"""Letters of a value in a comparison; `--json` has them all."""

filter_option = click.option(
    "--filter", "matching", default="", help='Such as "metrics.roc_auc > 0.7 and params.C = 1".'
)
order_option = click.option("--order", default="", help="Fields, such as -metrics.roc_auc,started; default -started.")


@click.group(invoke_without_command=True)
@click.option("--model", help="Only runs of this model.")
@filter_option
@order_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@json_option
@click.pass_context
def runs(context: click.Context, model: str | None, matching: str, order: str, limit: int, as_json: bool) -> None:
    """List the newest runs, or those that --filter matches."""
    if context.invoked_subcommand is not None:
        return
    rows = system.client().runs(model, limit, filter=matching, order=order)
    if as_json:
        show.as_json(rows)
        return
    for row in rows:
        row["started"] = show.when(row["started"])
        row["metrics"] = show.scores(row["metrics"], row["metric"])
        row["seconds"] = round(sum(row["seconds"].values()), 2)
    show.table(rows, COLUMNS, empty="No such runs." if matching else "No runs yet.")


@runs.command("show")
@click.argument("run")
@json_option
def show_run(run: str, as_json: bool) -> None:
    """Show one RUN with all its metadata."""
    found = system.client().get_run(run)
    show.as_json(found) if as_json else show.facts(_readable(found))


@runs.command()
@click.argument("run", nargs=-1, required=True)
@click.option("--differences", is_flag=True, help="Leave out what is the same.")
@json_option
def compare(run: tuple[str, ...], differences: bool, as_json: bool) -> None:
    """Show two or more RUNs side by side, what differs marked with ≠."""
    if len(run) < 2:
        raise click.UsageError("a comparison takes two or more runs")
    found = system.client().compare_runs(*run)
    show.as_json(found) if as_json else show.console.print(_side_by_side(found, differences))


@runs.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@filter_option
@order_option
def export(file: Path, matching: str, order: str) -> None:
    """Write runs to FILE: .csv with timestamp, model, parameters, score, model_path; .parquet with all fields."""
    system.client().export_runs(file, filter=matching, order=order)
    show.console.print(f"Wrote {escape(str(file))}.", highlight=False)


def _readable(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run without what only its worker needs, and each part of it in an order: Redis keeps none."""
    shown = {name: value for name, value in run.items() if name != "lease" and (value or name not in SEARCH)}
    for name, part in shown.items():
        if isinstance(part, Mapping):
            shown[name] = dict(sorted(part.items()))
    for name in ("metrics", "intervals"):
        shown[name] = show.scores(run.get(name, {}), run.get("metric", ""))
    seconds = run.get("seconds", {})
    shown["seconds"] = {stage: seconds[stage] for stage in sorted(seconds, key=lambda stage: (_place(stage), stage))}
    return shown


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _side_by_side(found: Mapping[str, Any], differences: bool) -> Table:
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "", *found["runs"]):
        grid.add_column(title, overflow="fold")
    for section, lines in found["sections"].items():
        shown = [line for line in lines if line["differs"] or not differences]
        if shown:
            grid.add_row("", Text(section, style="bold"), *("" for _ in found["runs"]))
        for line in shown:
            style = "yellow" if line["differs"] else "dim"
            mark = "≠" if line["differs"] else ""
            grid.add_row(mark, Text(f"  {line['name']}"), *_cells(line), style=style)
    return grid


def _cells(line: Mapping[str, Any]) -> Sequence[Text]:
    changes = line["change"] or [None] * len(line["values"])
    return [Text(_cell(value, change)) for value, change in zip(line["values"], changes, strict=True)]


def _cell(value: Any, change: float | None) -> str:
    text = " ".join(show.text(value).split())
    shown = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 3]}..."
    return f"{shown} ({change:+.4g})" if change else shown


# --- the command that shows what came of what, as a tree

DIGITS = 12
"""Of a fingerprint."""
MAX_SHOWN_RUNS = 10
"""Runs and versions of a source that are shown; `--json` has all."""


@click.command()
@click.argument("of")
@click.argument("name", required=False)
@json_option
def lineage(of: str, name: str | None, as_json: bool) -> None:
    """Show where OF comes from: a prediction's id, a version (user_target@7, user_target@champion) or a run.

    With `source NAME`, show what was made of that source.
    """
    if (of == "source") != (name is not None):
        raise click.UsageError("expected a prediction's id, MODEL@VERSION, a run's id, or: source NAME")
    found = system.client().source_lineage(name) if name else system.client().lineage(of)
    if as_json:
        show.as_json(found)
        return
    show.console.print(_source(found) if name else _back(found))


def _back(found: Mapping[str, Any]) -> Tree:
    tree = Tree(f"[bold]{found['kind']}[/] {escape(found['asked'])}")
    if prediction := found.get("prediction"):
        facts = ("time", "keys", "features", "predictions", "error")
        _facts(tree, {name: prediction.get(name) for name in facts})
    if version := found.get("version"):
        named = f"[bold]version[/] {version['model']}@{version['version']}"
        aliases = f" ({', '.join(version['aliases'])})" if version["aliases"] else ""
        branch = tree.add(named + aliases)
        created, pruned = show.when(version["created"]), show.when(version["pruned"])
        package = f"pruned {pruned}" if pruned else version["package"]
        _facts(branch, {"created": created, "package": package})
        for move in version["moves"]:
            text = f"{show.when(move['time'])} {move['kind']} {move['alias']}: {move['previous']} -> {move['version']}"
            why = f": {move['reason']}" if move["reason"] else ""
            branch.add(escape(f"{text} by {move['by']}{why}"))
    if run := found.get("run"):
        _run(tree.add(f"[bold]run[/] {run['id']} {run['status']}"), found)
    return tree


def _run(tree: Tree, found: Mapping[str, Any]) -> None:
    run, trigger, code = found["run"], found["trigger"], found["code"]
    facts = {name: run[name] for name in ("parent", "decision", "metrics", "error")}
    _facts(tree, {"started": show.when(run["started"]), **facts})
    for gate, outcome in run["gates"].items():
        tree.add(escape(f"gate {gate} {outcome}"))
    tree.add(escape(f"trigger {trigger['kind']}" + (f": {trigger['by']}" if trigger["by"] else "")))
    frame = found["frame"]
    branch = tree.add(f"[bold]frame[/] {frame['data_fingerprint'][:DIGITS]}")
    _facts(branch, {name: frame[name] for name in ("rows_train", "rows_test", "rows_dropped", "split")})
    branch.add(f"event times {show.when(frame['data_start'])} to {show.when(frame['data_end'])}")
    for name, source in found["sources"].items():
        branch.add(f"[bold]source[/] {name}: {source['rows']} rows until {source['known_until'] or 'the first one'}")
    _features(tree.add("[bold]features[/]"), found["features"])
    branch = tree.add(f"[bold]code[/] {code['definitions'][:DIGITS]}")
    _facts(branch, {name: code[name] for name in ("file", "modules", "git_commit", "packages", "machine")})


def _features(tree: Tree, features: Iterable[Mapping[str, Any]]) -> None:
    for feature in features:
        version = f"@{feature['version']}" if feature.get("version") else ""
        of = f" of {feature['source']}" if feature.get("source") else ""
        node = tree.add(escape(f"{feature['name']}{version} {feature.get('dtype', '')} {feature.get('kind', '')}{of}"))
        for text in (feature.get("code"), feature.get("problem")):
            if text:
                node.add(escape(text), style="dim")


def _source(found: Mapping[str, Any]) -> Tree:
    tree = Tree(f"[bold]source[/] {found['asked']}")
    _facts(tree, {"columns": found["columns"], "models": found["models"]})
    branch = tree.add("[bold]features[/]")
    for feature in found["features"]:
        users = f" for {', '.join(feature['models'])}" if feature["models"] else ""
        _features(branch, [feature | {"kind": f"{feature['kind']}{users}", "source": ""}])
    _listed(tree, "runs", [
        f"{run['id']} {run['model']} {run['status']}, {run['rows']} rows until {run['known_until']}"
        for run in found["runs"]
    ])  # fmt: skip
    _listed(tree, "versions", [
        f"{one['model']}@{one['version']}" + (f" ({', '.join(one['aliases'])})" if one["aliases"] else "")
        for one in found["versions"]
    ])  # fmt: skip
    return tree


def _listed(tree: Tree, what: str, lines: list[str]) -> None:
    branch = tree.add(f"[bold]{what}[/] {len(lines)}")
    for line in lines[:MAX_SHOWN_RUNS]:
        branch.add(escape(line))
    if len(lines) > MAX_SHOWN_RUNS:
        branch.add(f"and {len(lines) - MAX_SHOWN_RUNS} more: --json shows them")


def _facts(tree: Tree, facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            tree.add(f"{name} {escape(show.text(value))}")


COMMANDS = (runs, lineage)
