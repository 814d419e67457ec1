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
    # In a process of its own: in this one, libraries return memory of former tests to the system at any moment.
    code = "print(flush=True); input(); taken = b'x' * 50_000_000; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = processes.memory([process.pid])
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        after = processes.memory([process.pid])
        process.communicate(b"\n", timeout=10)
    assert after.resident - before.resident > 45
    assert after.proportional - before.proportional > 45


def test_cpu_time_is_that_of_the_process() -> None:
    before = processes.cpu_seconds([os.getpid()])
    started = time.process_time()
    while time.process_time() < started + 0.3:
        pass
    assert 0.25 < processes.cpu_seconds([os.getpid()]) - before < 0.6
