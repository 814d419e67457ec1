"""A virtual environment of Feast's own, made once: its requirements and ours need not agree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = Path(__file__).parents[1] / ".feast-venv"


def binaries() -> Path:
    """The folder with its `python` and `feast`; installs Feast where that has not been done for these requirements.

    Raises:
        SystemExit: where it cannot be installed.
    """
    done, wanted = FOLDER / "requirements.txt", REQUIREMENTS.read_text()
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {wanted.strip()} into {FOLDER}", file=sys.stderr, flush=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        venv.create(FOLDER, with_pip=True)
        command = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
        if subprocess.run(command).returncode:
            raise SystemExit(f"this benchmark needs Feast beside Modelmill, and pip could not install {wanted.strip()}")
        done.write_text(wanted)
    return FOLDER / "bin"
