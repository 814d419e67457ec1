"""What /proc says about processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_tree_holds_children_and_grandchildren() -> None:
    parent = subprocess.Popen(["sh", "-c", "sh -c 'sleep 30 & echo ready; wait' & wait"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    tree = processes.tree(parent.pid)
    for pid in reversed(tree):
        os.kill(pid, 9)
    parent.communicate(timeout=10)
    assert tree[0] == parent.pid
    assert len(tree) == 3


def test_memory_grows_by_what_is_allocated() -> None:
    before = processes.memory([os.getpid()])
    taken = b"x" * 50_000_000
    after = processes.memory([os.getpid()])
    assert after.resident - before.resident > 0.9 * len(taken) / 1e6
    assert after.proportional - before.proportional > 0.9 * len(taken) / 1e6


def test_cpu_time_is_that_of_the_process() -> None:
    before = processes.cpu_seconds([os.getpid()])
    started = time.process_time()
    while time.process_time() < started + 0.3:
        pass
    assert 0.25 < processes.cpu_seconds([os.getpid()]) - before < 0.6
