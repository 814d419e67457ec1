"""Run the tests at other times than now: `python -m tests.clocks [pytest's arguments]`; ends with the first that fails.

A test or code that holds on some days only is found here before that day comes. The clock of every process is moved by
libfaketime (Debian: `faketime`) and goes on from there; that of the file system is not, so tests set the times of files.
Tests of a real Redis are left out, which does not start under it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

CLOCKS = {  # local time matters where code forgets UTC
    "a leap day": ("2028-02-29T12:00", "Asia/Kolkata"),
    "the minute in which daylight-saving time begins": ("2027-03-28T00:59", "Europe/Berlin"),
    "the minute in which it ends": ("2027-10-31T00:59", "Europe/Berlin"),
    "New Year's Eve": ("2026-12-31T23:59", "America/New_York"),
    "two years ahead": (f"{datetime.now(UTC) + timedelta(days=730):%Y-%m-%dT%H:%M}", "UTC"),
}
"""What the time is when a run begins, in UTC, and the zone that it takes place in."""
IGNORED = "tests/trainer/jobs/test_interleaving.py"
"""Its threads take turns many thousand times, twenty times as slowly under libfaketime; no clock is in it."""
MARKERS = "not redis and not faults and not browser and not compose and not flights and not mlflow and not slow"


def main(arguments: list[str]) -> int:
    """The exit code of the first run that fails, or 0."""
    if not shutil.which("faketime"):
        print("faketime is not installed; on Debian: apt install faketime", file=sys.stderr)
        return 1
    for name, (moment, zone) in CLOCKS.items():
        ahead = datetime.fromisoformat(moment).replace(tzinfo=UTC) - datetime.now(UTC)
        print(f"=== {name}: {moment}Z, {zone}", flush=True)
        environment = {
            "TZ": zone,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # the library reads the one, and its command the other
            "DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(Path(__file__).parent),  # sitecustomize.py
        }
        # A length of time, not a moment, at which the clock of each process would begin anew.
        command = ["faketime", "-f", f"{ahead.total_seconds():+.0f}s", sys.executable, "-m", "pytest", "-m", MARKERS]
        command += ["--ignore", IGNORED, *arguments]
        if code := subprocess.run(command, env=os.environ | environment, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
