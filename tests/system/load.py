"""Constant load on the predictor, remembering every answer that was not a prediction."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from modelmill.settings import Settings


@dataclass
class Load:
    """What the requests of one period got."""

    served: list[int] = field(default_factory=list)
    """The version that answered, in the order of the answers."""
    failures: list[str] = field(default_factory=list)

    def swaps(self) -> int:
        """How often the version that answers changed."""
        return sum(a != b for a, b in zip(self.served, self.served[1:], strict=False))


@contextmanager
def constant_load(settings: Settings, model: str, body: dict[str, object], *, per_second: int = 100) -> Iterator[Load]:
    """Send predict requests, one after the other, at about `per_second`, until the block ends."""
    load, stop = Load(), threading.Event()

    def send() -> None:
        url = f"{settings.predictor_url}/models/{model}/predict"
        with httpx.Client(timeout=5) as http:
            while not stop.wait(1 / per_second):
                try:
                    answer = http.post(url, json=body)
                    answer.raise_for_status()
                    load.served.append(answer.json()["version"])
                except httpx.HTTPError as error:
                    load.failures.append(f"{time.time():.3f} {error!r}")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield load
    finally:
        stop.set()
        thread.join(timeout=30)
