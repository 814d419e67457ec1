"""Another project's library, in an environment and a process of its own, asked by lines of JSON.

Its requirements and ours need not agree, and what it does in its process is not measured as ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson


@dataclass(frozen=True)
class Program:
    """A running program that answers a JSON command a line with a JSON document a line."""

    process: subprocess.Popen[bytes]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """What its command `do` answers.

        Raises:
            RuntimeError: where the program ended instead.
        """
        to, answers = _pipes(self.process)
        to.write(orjson.dumps({"do": do, **arguments}) + b"\n")
        to.flush()
        return _answer(answers)


def binaries(name: str) -> Path:
    """The `bin` folder of the environment `.{name}-venv` here, with what `{name}/requirements.txt` asks for.

    Made once, and again for other requirements.

    Raises:
        SystemExit: where it cannot be installed.
    """
    here = Path(__file__).parent
    folder, requirements = here / f".{name}-venv", here / name / "requirements.txt"
    done, wanted = folder / "requirements.txt", requirements.read_text()
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {wanted.strip()} into {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        if subprocess.run(command).returncode:
            raise SystemExit(f"this benchmark needs {name} beside Modelmill; pip could not install {wanted.strip()}")
        done.write_text(wanted)
    return folder / "bin"


@contextmanager
def running(python: Path, program: Path, folder: str, **environment: str) -> Iterator[Program]:
    """Start `program` with `folder` as its argument, and kill it in the end; its first answer says that it is ready."""
    command = [str(python), "-W", "ignore", str(program), folder]
    environment = {**os.environ, **environment}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        _answer(_pipes(process)[1])
        yield Program(process)
    finally:
        process.kill()
        process.wait(timeout=20)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _answer(answers: IO[bytes]) -> dict[str, Any]:
    line = answers.readline()
    if not line:
        raise RuntimeError("the program has ended; what it printed says why")
    found: dict[str, Any] = orjson.loads(line)
    return found
