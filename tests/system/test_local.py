"""The whole system as processes on this machine, as `make up` runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.users import data
from examples.users.data import EXAMPLE_USER
from examples.users.load import load
from modelmill.client import Client
from modelmill.local import Local
from modelmill.settings import Settings
from modelmill.state import bus
from modelmill.state.connections import connect
from modelmill.state.events import DriftDetected
from tests import processes
from tests.conftest import ROOT, USERS_MILL
from tests.eventually import eventually
from tests.system import journey
from tests.system.load import constant_load

pytestmark = pytest.mark.redis


@contextmanager
def running(folder: Path, *, train: str) -> Iterator[Client]:
    """A system on free ports with its state in `folder`: the example's definitions with other triggers."""
    mill = folder / "mill.py"
    mill.write_text("from modelmill import after, on\n" + USERS_MILL.read_text().replace("every(seconds=60)", train))
    with processes.system(mill, folder / "home") as client:
        yield client


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A loaded system on free ports; trained when asked, not by schedule."""
    with running(tmp_path_factory.mktemp("system"), train="()") as client:
        load(client)
        yield client


@pytest.mark.parametrize("step", journey.STEPS, ids=lambda step: step.__name__)
def test_journey(system: Client, step: Callable[[Client], None]) -> None:
    step(system)


def test_bad_rows_are_refused_whole(system: Client, tmp_path: Path) -> None:
    journey.bad_rows_are_refused_whole(system, tmp_path)


@pytest.mark.slow
def test_scheduled_versions_take_over_under_load_without_a_failed_request(tmp_path: Path) -> None:
    with running(tmp_path, train="every(seconds=4)") as client:
        load(client)
        with constant_load(client.settings, "user_target", {"user_id": EXAMPLE_USER}) as requests:
            eventually(lambda: requests.swaps() >= 3, within=60, saying="three new versions took over")
        assert requests.failures == []
        assert requests.served == sorted(requests.served), "the version that answers only moves forward"


@pytest.mark.slow
def test_rows_and_events_trigger_trainings_that_say_so(tmp_path: Path) -> None:
    with running(tmp_path, train='[after(rows=1000, cooldown=None), on("drift.detected")]') as client:
        load(client)
        file = tmp_path / "users.csv"
        data.write(file)
        client.ingest("users", file)
        eventually(lambda: "after" in triggers(client), within=30, saying="3,000 rows triggered a training")
        bus.append(connect(client.settings.redis_url, timeout=2), DriftDetected(model="user_target"))
        eventually(lambda: "on" in triggers(client), within=30, saying="an event triggered a training")


def triggers(client: Client) -> set[str]:
    return {run["trigger"] for run in client.runs()}


@pytest.mark.slow
def test_what_was_trained_is_served_again_after_a_stop_and_a_start(tmp_path: Path) -> None:
    with running(tmp_path, train="()") as client:
        before = load(client)
        stored = client.entity("user", EXAMPLE_USER)
    with running(tmp_path, train="()") as client:
        after = load(client)
        assert client.entity("user", EXAMPLE_USER) == stored
        assert (after["version"], after["probabilities"]) == (before["version"], before["probabilities"])
        assert len(client.runs()) == 1, "nothing was trained again"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "modelmill down"])
def test_up_ends_with_a_real_prediction_and_is_ended_with_everything(how: str, tmp_path: Path) -> None:
    environment = {**os.environ, "MODELMILL_HOME": str(tmp_path / "home"), **_free_addresses()}
    up = subprocess.Popen(
        [sys.executable, "-m", "modelmill.cli", "up", str(USERS_MILL)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert up.stdout is not None
    printed = ""
    for line in up.stdout:
        printed += line
        if "Ctrl-C" in line:
            break
    assert "curl -s http" in printed
    assert '"prediction"' in printed
    if how == "Ctrl-C":
        up.send_signal(signal.SIGINT)
    else:
        subprocess.run(
            [sys.executable, "-m", "modelmill.cli", "down"], env=environment, cwd=ROOT, check=True, timeout=60
        )
    up.communicate(timeout=60)  # reads to the end and closes the pipe
    assert up.returncode == 0
    assert not Local.at(tmp_path / "home", USERS_MILL).running()


def test_a_mistake_in_the_definitions_stops_the_start_with_file_and_line(tmp_path: Path) -> None:
    mill = tmp_path / "mill.py"
    mill.write_text("from modelmill import Entity\n\nuser = Entity('the user', key='user_id')\n")
    done = subprocess.run(
        [sys.executable, "-m", "modelmill.cli", "up", str(mill)],
        cwd=ROOT,
        env={**os.environ, "MODELMILL_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"{mill}:3: entity name 'the user'" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_the_command_line_speaks_json_to_scripts(system: Client) -> None:
    environment = {**os.environ, "MODELMILL_HOME": "/nonexistent", **_addresses(system.settings)}
    for command in (["models"], ["runs"], ["jobs"], ["features"], ["latency", "user_target"], ["status"]):
        done = subprocess.run(
            [sys.executable, "-m", "modelmill.cli", *command, "--json"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def _addresses(settings: Settings) -> dict[str, str]:
    names = ("feature_url", "trainer_url", "predictor_url", "monitor_url")
    return {f"MODELMILL_{name.upper()}": str(getattr(settings, name)) for name in names}


def _free_addresses() -> dict[str, str]:
    return _addresses(Local.at(Path("unused"), USERS_MILL, free_ports=True).settings)
