"""HTTP load by wrk (https://github.com/wg/wrk): closed loop, so that each connection waits for its answer."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import orjson

SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Load:
    """What the requests of one measurement got. Latencies are in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float
    slowest: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


def post(url: str, bodies: Path, *, connections: int, seconds: int) -> Load:
    """POST the lines of `bodies` in turn on each of `connections` for so long.

    Raises:
        RuntimeError: where any request failed, since failures may be faster than answers.
        SystemExit: where wrk is not installed.
    """
    command = [_binary(), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url, "--", str(bodies)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    counted = orjson.loads(done.stdout.splitlines()[-1])
    if failed := counted.pop("failed"):
        raise RuntimeError(f"{failed} of {counted['requests']} requests to {url} failed")
    return Load(**counted)


def _binary() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("this benchmark needs wrk; on Debian: apt install wrk, on macOS: brew install wrk")
    return found
