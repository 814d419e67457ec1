"""Whether a package opens where it will be served: in a process that has nothing of the one which trained it.

What code of the user's has set there, such as `sklearn.set_config`, a warnings filter, a locale or another library's
attribute, is gone when a predictor opens the package. So each attempt at a job has a second process beside the one that
trains, forked from the worker, which never runs code of the user's. It has all libraries loaded, and opens what it is
told to. It is forked
when the training says that it will need it, and not before: until its run has begun, a training has both cores to wait
for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from typing import Any, NoReturn

import numpy as np
import orjson

from modelmill.errors import InvalidRequest, Unavailable, sentence
from modelmill.packages import package
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import TENSORS, Session, open_package, require_same
from modelmill.state.connections import AWAY, connect
from modelmill.storage import Storage
from services.trainer.jobs.process import Horse, die_with
from services.trainer.settings import TrainerSettings

OPENING_SECONDS = 60.0
"""Seconds in which a package must open."""


class Opener:
    """A process beside the one that trains, and how the latter asks it."""

    def __init__(self) -> None:
        self._asking, self._asked = Pipe()

    def await_asking(self, process: Horse) -> None:
        """In the worker, once the process that trains has been forked."""
        self._asking.close()
        process.once_readable(self._asked.fileno(), self.fork)

    def fork(self) -> None:
        """In the worker, once the process that trains has said that it will ask, or asks."""
        worker = os.getpid()
        if os.fork() == 0:
            self._serve(worker)
        self._asked.close()

    def close(self) -> None:
        """In the worker, once the process that trains has ended."""
        self._asked.close()

    def _serve(self, worker: int) -> NoReturn:
        try:
            die_with(worker)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            while True:
                if folder := self._asked.recv_bytes().decode():
                    self._asked.send_bytes(try_to_open(folder))
        except EOFError:  # the training is over
            pass
        finally:
            os._exit(0)

    def prepare(self) -> None:
        """In the process that trains: say that it will ask, so that the other process is there by then."""
        self._asking.send_bytes(b"")

    def ask(self, folder: str) -> bytes:
        """In the process that trains: what `try_to_open` says of a package there; nothing, where it says nothing."""
        self._asked.close()
        self._asking.send_bytes(folder.encode())
        return self._asking.recv_bytes() if self._asking.poll(OPENING_SECONDS) else b""


def prepare_opening(job: Any) -> None:
    """Let there be the other process by the time that `require_opening` asks it."""
    if (opener := getattr(job, "opener", None)) is not None:
        opener.prepare()


def require_opening(job: Any, manifest: Manifest, folder: str) -> None:
    """Refuse a package that another process cannot open, or that answers its example otherwise there.

    Without a worker of ours it takes a new one; a graph, which nothing in this process can change, is spared that.

    Raises:
        InvalidRequest: with the reason.
        Unavailable: where the other process found Redis or the storage away, or did not answer in time.
    """
    opener = getattr(job, "opener", None)
    try:
        if opener is not None:
            answer = opener.ask(folder)
        elif manifest.runtime == "onnx":
            return
        else:
            command = [sys.executable, "-m", "services.trainer.jobs.opening", folder]
            answer = subprocess.run(command, stdout=subprocess.PIPE, timeout=OPENING_SECONDS, check=False).stdout
    except (OSError, EOFError, subprocess.TimeoutExpired):
        answer = b""
    if not answer:
        raise Unavailable(
            f"no other process could tell within {OPENING_SECONDS:.0f} s whether the package can be served"
        )
    found = orjson.loads(answer)
    if found["away"]:
        raise Unavailable(f"whether the package can be served is not known: {found['reason']}")
    if found["reason"]:
        raise InvalidRequest(
            f"the package serves in the process of its training alone; in another one: {found['reason']}. Let the"
            " estimator not depend on what the recipe sets there: estimator.set_output(transform='pandas') is kept with"
            " it, sklearn.set_config is not"
        )


def try_to_open(folder: str) -> bytes:
    """Why a package cannot be served here, as JSON: `reason`, empty where it can, and whether something was `away`."""
    settings = TrainerSettings.read()
    reason, away = "", False
    try:
        redis = connect(settings.redis_url, timeout=settings.redis_timeout)
        manifest, content = package.read(Storage(settings.storage_url), folder)
        require_same(manifest, _answers(open_package(redis, manifest, content), manifest))
    except Exception as error:  # neither ONNX Runtime's nor scikit-learn's errors have a common root
        reason, away = sentence(error), isinstance(error, (*AWAY, OSError))
    return orjson.dumps({"reason": reason, "away": away})


def _answers(session: Session, manifest: Manifest) -> list[np.ndarray]:
    """What it says of the manifest's example."""
    types = {item.name: TENSORS[item.type] for item in session.get_inputs()}
    values = [manifest.example[item.name] for item in manifest.inputs]
    if manifest.layout == "matrix":
        feed = {name: np.array([values], dtype) for name, dtype in types.items()}
    else:
        named = zip(manifest.inputs, values, strict=True)
        feed = {item.name: _cell(value, types[item.name]) for item, value in named}
    return session.run([item.name for item in session.get_outputs()], feed)


def _cell(value: Any, dtype: Any) -> np.ndarray:
    return np.array([["" if value is None and dtype is np.object_ else value]], dtype)


if __name__ == "__main__":
    sys.stdout.buffer.write(try_to_open(sys.argv[1]))
