"""A running Feast: its library in a process of its own, its feature server, and a Redis that only it uses."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import foreign
from benchmarks.contest import serving
from benchmarks.foreign import Program
from benchmarks.mill import FEATURES
from benchmarks.system import until
from modelmill import local
from modelmill.local import free_port
from modelmill.state.connections import AWAY, Redis, connect

PROGRAM = Path(__file__).with_name("program.py")
QUIET = {"FEAST_TELEMETRY": "False", "FEAST_USAGE": "False"}
CONFIGURATION = """\
project: benchmark
provider: local
registry: {folder}/registry.db
online_store:
  type: redis
  connection_string: 127.0.0.1:{port}
offline_store:
  type: file
entity_key_serialization_version: 3
"""


@dataclass(frozen=True)
class Feast:
    """The ways to a running Feast."""

    redis: Redis
    program: Program
    """Its library; the commands are those of `program.py`."""
    url: str
    """Of its feature server."""

    @staticmethod
    def request(keys: Sequence[str]) -> dict[str, Any]:
        """The body that asks its feature server for the readings of some sensors."""
        return {"features": [f"readings:{name}" for name in FEATURES], "entities": {"sensor_id": keys}}


@contextmanager
def running(readings: Path, measurements: Path) -> Iterator[Feast]:
    """Start Feast with these Parquet files as its two sources; stop it and remove its state in the end.

    Raises:
        SystemExit: where it cannot be installed.
    """
    binaries, port, server_port = foreign.binaries("feast"), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="feast-benchmark-") as name, _redis(port) as redis:
        folder = Path(name)
        (folder / "feature_store.yaml").write_text(CONFIGURATION.format(folder=folder, port=port))
        for view, file in (("readings", readings), ("measurements", measurements)):
            (folder / f"{view}.parquet").symlink_to(file)
        server = [str(binaries / "feast"), "--chdir", name, "serve", "--port", str(server_port), "--no-access-log"]
        server += ["--max-requests", "0"]  # else it starts itself anew after a thousand
        with (
            (folder / "server.log").open("wb") as log,
            foreign.running(binaries / "python", PROGRAM, name, **QUIET) as program,
            serving(server, server_port, log, **QUIET),
        ):
            yield Feast(redis, program, f"http://127.0.0.1:{server_port}/get-online-features")


@contextmanager
def _redis(port: int) -> Iterator[Redis]:
    """A Redis that is set up like that of Modelmill."""
    with tempfile.TemporaryDirectory(prefix="feast-redis-") as folder:
        command = local.redis_command(Path(folder), port)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            redis = connect(f"redis://127.0.0.1:{port}/0", timeout=60, text=False)  # its keys are no text
            until(lambda: _answers(redis), "Feast's Redis")
            yield redis
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except AWAY:
        return False
