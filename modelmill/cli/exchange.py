"""The commands that take models which were trained elsewhere, and give versions away."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from modelmill.cli import show, system
from modelmill.cli.system import EXIT_FAILED, json_option


@click.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--promote", is_flag=True, help="Let it serve at once, over gates and policy.")
@click.option("--reason", default="", help="Kept in the alias's history, with --promote.")
@click.option(
    "--classes", help="The labels in the order of the probabilities, such as 0,1, where the file does not tell."
)
@click.option(
    "--example", type=click.File("rb"), help="A JSON file with a row of inputs, where there are no labelled rows."
)
@click.option("--tracking-uri", help="The MLflow store with the run that logged the folder, if it is not around it.")
@click.option(
    "--trust-pickle", is_flag=True, help="Load a pickled model HERE, running the code in it; it is sent as skops."
)
@json_option
def register(
    model: str,
    file: Path,
    promote: bool,
    reason: str,
    classes: str | None,
    example: Any,
    tracking_uri: str | None,
    trust_pickle: bool,
    as_json: bool,
) -> None:
    """Make FILE, a model trained elsewhere, the next version of MODEL.

    FILE is an ONNX file, a skops file, or an MLflow model folder of the flavour scikit-learn (saved as skops) or ONNX.
    """
    api = system.client()
    job = api.register(
        model,
        file,
        by=system.user(),
        reason=reason,
        promote=promote,
        trust_pickle=trust_pickle,
        classes=None if classes is None else [_label(text) for text in classes.split(",")],
        example=None if example is None else _row(example.read()),
        tracking_uri=tracking_uri,
    )
    with nullcontext() if as_json else show.errors.status(f"registering {file.name}"):
        job = api.wait(job["job"])
    if job["status"] != "finished":
        show.as_json(job) if as_json else show.errors.print(
            f"[red]error:[/] {job['error']}", highlight=False, soft_wrap=True
        )
        sys.exit(EXIT_FAILED)
    run = api.get_run(job["run"])
    if as_json:
        show.as_json(run)
        return
    names = ("model", "version", "run", "metrics", "decision", "origin")
    run["origin"] = dict(sorted(run["origin"].items()))
    aliases = [name for name, number in api.model(model)["aliases"].items() if number == run["version"]]
    show.facts({"aliases": aliases} | {name: run["id"] if name == "run" else run[name] for name in names})


@click.command()
@click.argument("model", metavar="MODEL[@VERSION]")
@click.option("--format", "form", type=click.Choice(["mlflow", "onnx", "skops"]), default="mlflow", show_default=True)
@click.option("--to", type=click.Path(path_type=Path), required=True, help="A new folder.")
@json_option
def export(model: str, form: str, to: Path, as_json: bool) -> None:
    """Write a version of MODEL into a folder: user_target, user_target@7 or user_target@challenger.

    Without a version it is the champion's. What is written is checked by its SHA-256 first.
    """
    name, _, version = model.partition("@")
    done = system.client().export(name, to, version=version or "champion", format=form)
    show.as_json(done) if as_json else show.facts(done)


def _label(text: str) -> str | int | float:
    """A label as it is written: 0 is a number."""
    for kind in (int, float):
        try:
            return kind(text.strip())
        except ValueError:
            pass
    return text.strip()


def _row(content: bytes) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--example") from None
    if not isinstance(row, dict):
        raise click.BadParameter("expected an object of names and values", param_hint="--example")
    return row


COMMANDS = (register, export)
