"""The command `modelmill`: run the system on this machine, and use it from the shell.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 a service did not answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import orjson

from modelmill import logs, show
from modelmill.client import Client
from modelmill.errors import ModelmillError, RequestFailed, Unavailable
from modelmill.feature_commands import FEATURE_COMMANDS
from modelmill.local import Local
from modelmill.proof_commands import PROOF_COMMANDS
from modelmill.settings import Settings
from modelmill.terminal import EXIT_FAILED, EXIT_UNAVAILABLE, client, home, json_option

ROOT = Path(__file__).parent.parent


class Group(click.Group):
    """Turns every `ModelmillError` into its sentence and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except ModelmillError as error:
            away = isinstance(error, Unavailable) or (isinstance(error, RequestFailed) and error.http_status == 503)
            show.errors.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(EXIT_UNAVAILABLE if away else EXIT_FAILED)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelmill")
def main() -> None:
    """Keep scikit-learn models on tabular data alive in production."""


# --- run the system


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--example", type=click.Choice(["users"]), help="Run this example and load its data.")
@click.option("--detach", is_flag=True, help="Return when everything runs; stop it with `modelmill down`.")
def up(file: Path | None, example: str | None, detach: bool) -> None:
    """Start Redis, the four services and a worker, with the definitions FILE (default: mill.py)."""
    path = file or (ROOT / "examples" / example / "mill.py" if example else Settings.read().definitions)
    local = Local.at(home(), path)
    if local.running():
        show.console.print("It runs already; see [bold]modelmill status[/], stop it with [bold]modelmill down[/].")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with show.console.status("starting"):
        settings = local.start()
    try:
        if example:
            _load_example(settings, example)
        _say_where(local, settings)
        if not detach:
            show.console.print("\nWhat happens from now on (Ctrl-C stops everything):", style="bold")
            _watch(local, Client(settings))
    except KeyboardInterrupt:
        pass
    except BaseException:
        detach = False
        raise
    finally:
        if not detach:
            with show.console.status("stopping"):
                local.stop()


def _load_example(settings: Settings, example: str) -> None:
    """Run the example's loader and show the request and the answer that it ends with."""
    environment = {f"MODELMILL_{n.upper()}": str(v) for n, v in settings.model_dump().items() if v is not None}
    with show.console.status(f"loading examples/{example} and training its first model"):
        done = subprocess.run(
            [sys.executable, "-m", f"examples.{example}.load"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )
    if done.returncode:
        raise ModelmillError(f"examples/{example} could not be loaded: {done.stderr.strip().splitlines()[-1]}")
    show.console.print("\nIt runs. Try:\n", style="bold")
    from examples.users.data import EXAMPLE_USER

    url = f"{settings.predictor_url}/models/user_target/predict"
    show.console.print(f'  curl -s {url} -d \'{{"user_id": "{EXAMPLE_USER}"}}\'\n', highlight=False, soft_wrap=True)
    show.console.print_json(done.stdout)


def _say_where(local: Local, settings: Settings) -> None:
    port = settings.redis_url.rpartition(":")[2].partition("/")[0]
    places = {
        "monitor": f"{settings.monitor_url}/",
        "feature store": f"{settings.feature_url}/docs",
        "trainer": f"{settings.trainer_url}/docs",
        "predictor": f"{settings.predictor_url}/docs",
        "Redis": f"{settings.redis_url}  (redis-cli -p {port})",
        "logs": str(local.home / "logs"),
    }
    for name, place in places.items():
        show.console.print(f"  {name:<14} {place}", highlight=False, soft_wrap=True)


def _watch(local: Local, client: Client) -> None:
    """Print models' events as they come, until Ctrl-C or `modelmill down`; a monitor that restarts is waited for."""
    while local.running():
        try:
            for event in client.follow("models"):
                _print_event(event)
        except (Unavailable, RequestFailed):
            signal.sigtimedwait([], 1.0)


@main.command()
def down() -> None:
    """Stop everything that `modelmill up` started here; the state stays."""
    local = Local.at(home(), Path("mill.py"))
    if not local.running():
        show.console.print("Nothing runs here.")
        return
    with show.console.status("stopping"):
        local.stop()
    show.console.print("Stopped.")


@main.command()
@json_option
def status(as_json: bool) -> None:
    """Show whether each service is ready; exit code 3 if one is not."""
    local = Local.at(home(), Path("mill.py"))
    processes = local.processes()
    services = client().ready()
    if as_json:
        show.as_json({"services": services, "processes": processes})
    else:
        rows = [{"service": name, **answer} for name, answer in services.items()]
        show.table(rows, ["service", "status", "url", "problems"], empty="")
        if processes:
            show.console.print()
            show.table(processes, ["name", "state", "detail"], empty="")
    if any(answer["status"] != "ready" for answer in services.values()):
        sys.exit(EXIT_UNAVAILABLE)


for command in (*FEATURE_COMMANDS, *PROOF_COMMANDS):
    main.add_command(command)


# --- training and registry


@main.command()
@click.argument("model")
@click.option("--wait", is_flag=True, help="Show progress until the job has ended.")
@click.option("--start", help="Train on rows from this time on (ISO 8601).")
@click.option("--end", help="Train on rows before this time (ISO 8601).")
@json_option
def train(model: str, wait: bool, start: str | None, end: str | None, as_json: bool) -> None:
    """Enqueue a training of MODEL."""
    api = client()
    job = api.train(model, start=start, end=end, by=os.environ.get("USER", "cli"))
    if wait:
        with show.stages(f"training {model}", as_json) as watch:
            job = api.wait(job["job"], watch=watch)
    show.as_json(job) if as_json else show.facts(job)
    if wait and job["status"] != "finished":
        sys.exit(EXIT_FAILED)


@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def jobs(context: click.Context, as_json: bool) -> None:
    """List waiting, running and recently ended jobs."""
    if context.invoked_subcommand is None:
        rows = client().jobs()
        columns = ["job", "model", "status", "stage", "trigger", "run"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No jobs.")


@jobs.command()
@click.argument("job")
@json_option
def cancel(job: str, as_json: bool) -> None:
    """Cancel a waiting JOB or stop a running one."""
    done = client().cancel(job)
    show.as_json(done) if as_json else show.facts(done)


@main.command()
@click.argument("run", required=False)
@click.option("--model", help="Only runs of this model.")
@click.option("--limit", default=20, show_default=True)
@json_option
def runs(run: str | None, model: str | None, limit: int, as_json: bool) -> None:
    """List the newest runs, or show one RUN with all its metadata."""
    if run:
        found = client().run(run)
        show.as_json(found) if as_json else show.facts(found)
        return
    rows = client().runs(model, limit)
    if as_json:
        show.as_json(rows)
        return
    for row in rows:
        row["started"] = show.when(row["started"])
        row["seconds"] = round(sum(row["seconds"].values()), 2)
    columns = ["id", "model", "status", "version", "metrics", "rows_train", "seconds", "trigger", "started"]
    show.table(rows, columns, empty="No runs yet.")


@main.command()
@click.argument("model", required=False)
@json_option
def models(model: str | None, as_json: bool) -> None:
    """List all models, or the versions of one MODEL with its aliases."""
    if model is None:
        rows = client().models()
        columns = ["name", "aliases", "latest", "metric", "promote", "train"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No models.")
        return
    found = client().model(model)
    if as_json:
        show.as_json(found)
        return
    for row in found["versions"]:
        row["aliases"] = [alias for alias, number in found["aliases"].items() if number == row["version"]]
        row["created"] = show.when(row["created"])
    show.table(found["versions"], ["version", "aliases", "metrics", "created", "run"], empty="No versions yet.")


@main.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--alias", default="champion", show_default=True)
@click.option("--reason", default="", help="Kept in the alias's history.")
@json_option
def promote(model: str, version: int, alias: str, reason: str, as_json: bool) -> None:
    """Let the alias of MODEL name VERSION; predictors serve the alias `champion`."""
    done = client().promote(model, version, alias=alias, by=os.environ.get("USER", "cli"), reason=reason)
    show.as_json(done) if as_json else show.facts(done)


@main.command()
@click.argument("model")
@click.option("--reason", default="", help="Kept in the alias's history.")
@json_option
def rollback(model: str, reason: str, as_json: bool) -> None:
    """Let the champion of MODEL be the version that it was before."""
    done = client().rollback(model, by=os.environ.get("USER", "cli"), reason=reason)
    show.as_json(done) if as_json else show.facts(done)


# --- predictions and events


@main.command()
@click.argument("model")
@click.argument("values", nargs=-1, metavar="NAME=VALUE...")
@json_option
def predict(model: str, values: tuple[str, ...], as_json: bool) -> None:
    """Predict with MODEL for join keys and inputs such as `user_id=a27b09ee-... hour=7`."""
    body = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r}; expected NAME=VALUE", param_hint="NAME=VALUE")
        body[name] = _value(value)
    answer = client().predict(model, **body)
    show.as_json(answer) if as_json else show.facts(answer)


def _value(text: str) -> Any:
    """A number, true, false or null as JSON reads it; anything else is text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float | None) else text


@main.command()
@click.option("--stream", type=click.Choice(["models", "features", "predictions"]), default="models", show_default=True)
@click.option("--count", default=20, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with events as they come.")
@json_option
def events(stream: str, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest events, oldest first."""
    api = client()
    for event in api.follow(stream, count) if follow else reversed(api.events(stream, count)):
        click.echo(orjson.dumps(event).decode()) if as_json else _print_event(event)


def _print_event(event: dict[str, Any]) -> None:
    line = f"{show.when(event['time'])}  {event['type']:<18} {event['subject']}: {event['text']}"
    show.console.print(line, markup=False, highlight=False, soft_wrap=True)


@main.command()
@click.argument("model")
@click.option("--window", default="15m", show_default=True, help="How far back: 15m, 2h, 1d.")
@json_option
def latency(model: str, window: str, as_json: bool) -> None:
    """Show the latency of MODEL's predictions, in all and by version."""
    found = client().latency(model, window)
    if as_json:
        show.as_json(found)
        return
    rows = [*found["versions"], {"version": "all", **found["overall"]}]
    columns = ["version", "count", "errors", "mean", "p50", "p95", "p99", "max"]
    show.table(rows, columns, empty="")
    show.console.print(f"milliseconds, last {found['window']}, quantiles within {found['relative_error']:.0%}")


if __name__ == "__main__":
    logs.configure("cli")
    main()
