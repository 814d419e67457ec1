"""Memory and processor time of a process and of those that it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.trainer.jobs.process import of_this_process

HOLD = "import sys, time; held = bytearray(80_000_000); begun = time.process_time()\n"
BUSY = "while time.process_time() - begun < 0.2: pass\nprint('there', flush=True); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds 80 MB and has computed for 0.2 s."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD + BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def test_a_process_counts_what_it_computes() -> None:
    before = of_this_process()
    sum(number * number for number in range(2_000_000))
    after = of_this_process()
    assert after.cpu_seconds > before.cpu_seconds
    assert after.peak_memory_mb >= before.peak_memory_mb > 10


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of children that live")
def test_children_count_while_they_live_and_when_they_have_ended(request: pytest.FixtureRequest) -> None:
    before = of_this_process()
    child: subprocess.Popen[bytes] = request.getfixturevalue("child")
    alive = of_this_process()
    assert alive.peak_memory_mb > before.peak_memory_mb + 80
    assert alive.cpu_seconds > before.cpu_seconds + 0.2
    child.communicate()
    assert of_this_process().cpu_seconds > before.cpu_seconds + 0.2
