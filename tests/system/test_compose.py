"""The whole system in containers, as `docker compose up` runs it; it passes the same journey as local processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelmill import local
from modelmill.client import Client
from modelmill.settings import Settings
from tests.conftest import ROOT
from tests.eventually import eventually
from tests.system import journey

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

PROJECT = "modelmill-test"
SERVICES = ("feature", "trainer", "predictor", "monitor")


def compose_command() -> list[str]:
    """`docker compose` where the plugin is there, otherwise Debian's `docker-compose`."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose", "--project-name", PROJECT]
    found = shutil.which("docker-compose")
    assert found, "neither `docker compose` nor `docker-compose` is installed"
    return [found, "--project-name", PROJECT]


@pytest.fixture(scope="module")
def system() -> Iterator[Client]:
    """The system of docker-compose.yml on free ports, with volumes of its own that are removed at the end."""
    ports = {service: local.free_port() for service in SERVICES}
    environment = os.environ | {f"{service.upper()}_PORT": str(port) for service, port in ports.items()}

    def compose(*arguments: str, timeout: int = 600) -> None:
        subprocess.run([*compose_command(), *arguments], cwd=ROOT, env=environment, timeout=timeout, check=True)

    urls = {f"{service}_url": f"http://127.0.0.1:{port}" for service, port in ports.items()}
    client = Client(Settings.read().model_copy(update=urls))
    try:
        compose("up", "--detach", "--build")
        eventually(
            lambda: client.predict("user_target", user_id=journey.EXAMPLE_USER),
            within=180,
            saying="the loader trained a first model and the predictor serves it",
        )
        yield client
    except BaseException:
        compose("logs", "--tail", "40")
        raise
    finally:
        client.http.close()
        compose("down", "--volumes", "--timeout", "30")


@pytest.mark.parametrize("step", journey.STEPS, ids=lambda step: step.__name__)
def test_journey(system: Client, step: Callable[[Client], None]) -> None:
    step(system)


def test_bad_rows_are_refused_whole(system: Client, tmp_path: Path) -> None:
    journey.bad_rows_are_refused_whole(system, tmp_path)
