"""Fill a running system with the example: ingest the users, train the first model, ask for one prediction.

    python -m examples.users.load

What is there already is left as it is, so that it can run at every start. The services' addresses come from the
environment, as for every Modelmill program.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import orjson

from examples.users import data
from modelmill.client import Client
from modelmill.errors import ModelmillError, RequestFailed, Unavailable

MODEL = "user_target"
WAIT = 600.0
"""Seconds to wait for a service, as on a busy machine."""

T = TypeVar("T")


def load(client: Client) -> dict[str, object]:
    """Ingest and train unless that was done before; return the answer to a real prediction."""
    if not waiting(lambda: stored(client), "the feature service"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "users.csv"
            data.write(file)
            client.ingest("users", file)
    if "champion" not in waiting(lambda: client.model(MODEL), "the trainer")["aliases"]:
        job = client.train(MODEL, by="example", wait=True)
        if job["status"] != "finished":
            raise ModelmillError(f"the first training {job['status']}: {job.get('error')}")
    return waiting(lambda: client.predict(MODEL, user_id=data.EXAMPLE_USER), "the predictor")


def stored(client: Client) -> bool:
    """Whether the example's users are in the feature store."""
    try:
        client.entity("user", data.EXAMPLE_USER)
    except RequestFailed as error:
        if error.http_status == 404:
            return False
        raise
    return True


def waiting(call: Callable[[], T], what: str) -> T:
    """The result of `call` as soon as the service behind it answers and is ready (not 503)."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            return call()
        except (Unavailable, RequestFailed) as error:
            passing = isinstance(error, Unavailable) or error.http_status == 503
            if not passing or time.monotonic() > deadline:
                raise ModelmillError(f"waited for {what}: {error}") from None
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        print(orjson.dumps(load(Client())).decode())
    except ModelmillError as error:
        sys.exit(str(error))
