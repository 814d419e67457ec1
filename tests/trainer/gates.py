"""Places in a training where a test can make it wait, in a real worker: code at the end of the definitions file."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import USERS_MILL

STAGES = ("frame", "fit", "package", "writing", "packaged", "registered")
"""In their order: before the frame is asked for, before the fit, before the conversion (`package`), in the middle of
writing the package's last file, after it and before the registration, after its transaction."""

CODE = """

import time as _time
from contextlib import contextmanager as _contextmanager
from pathlib import Path as _Path

from modelmill.storage import Storage as _Storage
from services.trainer.jobs.run_record import RunRecord as _Record

_stage, _done, _writing = _Record.stage, _Record.done, _Storage.writing


def _wait(place):
    gate = _Path({gate!r})
    while gate.exists() and gate.read_text() == place:
        gate.with_name("reached").write_text(place)
        _time.sleep(0.05)


@_contextmanager
def _gated_stage(self, name):
    with _stage(self, name):
        _wait(name)
        yield
        if name == "package":
            _wait("packaged")


def _gated_done(self):
    _wait("registered")
    _done(self)


@_contextmanager
def _gated_writing(self, name):
    with _writing(self, name) as file:
        yield file
        if name.endswith("manifest.json"):
            _wait("writing")


if not hasattr(_Record, "_gated"):
    _Record._gated, _Record.stage, _Record.done, _Storage.writing = True, _gated_stage, _gated_done, _gated_writing
"""


class Gate:
    """The users example in `folder`, whose trainings wait at the place that the gate is `at`."""

    def __init__(self, folder: Path) -> None:
        self._file, self._reached = folder / "gate", folder / "reached"
        self.mill = folder / "mill.py"
        self.mill.write_text(USERS_MILL.read_text() + CODE.format(gate=str(self._file)))

    def close(self, at: str) -> None:
        """Let trainings wait there from now on."""
        self._reached.unlink(missing_ok=True)
        self._file.write_text(at)

    def reached(self) -> bool:
        """Whether a training waits."""
        return self._reached.exists() and self._reached.read_text() == self._file.read_text()

    def open(self) -> None:
        """Let all go on."""
        self._file.unlink()
