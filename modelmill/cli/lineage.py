"""The command that shows what came of what, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.markup import escape
from rich.tree import Tree

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option

DIGITS = 12
"""Of a fingerprint."""
SHOWN = 10
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
    found = terminal.client().source_lineage(name) if name else terminal.client().lineage(of)
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
    for line in lines[:SHOWN]:
        branch.add(escape(line))
    if len(lines) > SHOWN:
        branch.add(f"and {len(lines) - SHOWN} more: --json shows them")


def _facts(tree: Tree, facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            tree.add(f"{name} {escape(show.text(value))}")


COMMANDS = (lineage,)
