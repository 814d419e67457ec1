"""The commands that run the system on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from modelmill.cli import show
from modelmill.client import Client
from modelmill.errors import ModelmillError, RequestFailed, Unavailable
from modelmill.local import Local
from modelmill.settings import Settings

ROOT = Path(__file__).parents[2]
"""Where `examples` lies."""
LOAD_SECONDS = 1800
"""How long an example may take to be loaded and trained, as on a busy machine."""


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


@click.command()
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
    try:
        with show.console.status(f"loading examples/{example} and training its first model"):
            done = subprocess.run(
                [sys.executable, "-m", f"examples.{example}.load"],
                cwd=ROOT,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=LOAD_SECONDS,
            )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"examples/{example} was not loaded within {LOAD_SECONDS} s") from None
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
                show.event(event)
        except (Unavailable, RequestFailed):
            signal.sigtimedwait([], 1.0)


@click.command()
def down() -> None:
    """Stop everything that `modelmill up` started here; the state stays."""
    local = Local.at(home(), Path("mill.py"))
    if not local.running():
        show.console.print("Nothing runs here.")
        return
    with show.console.status("stopping"):
        local.stop()
    show.console.print("Stopped.")


@click.command()
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
        degraded = ["degraded"] if any(row.get("degraded") for row in rows) else []
        show.table(rows, ["service", "status", "url", "problems", *degraded], empty="")
        if processes:
            show.console.print()
            show.table(processes, ["name", "state", "detail"], empty="")
    if any(answer["status"] != "ready" for answer in services.values()):
        sys.exit(EXIT_UNAVAILABLE)


# What commands share: the client of the system that they speak to, their options and their exit codes.

EXIT_FAILED, EXIT_UNAVAILABLE = 1, 3


def home() -> Path:
    """Where the local system keeps its state."""
    return Path(os.environ.get("MODELMILL_HOME", ".modelmill"))


def client() -> Client:
    """A client of the system that was started here, or of the one that the environment names."""
    local = Local.at(home(), Path("mill.py"))
    return Client(local.reached() if local.running() else Settings.read())


def user() -> str:
    """Who gives the command, for what is kept of it."""
    return os.environ.get("USER", "cli")


COMMANDS = (up, down, status)
