"""Loaded by every Python that `python -m tests.clocks` starts.

libfaketime 0.9.10 breaks `clock_nanosleep` to a moment of the monotonic clock, which is left as it is here: `time.sleep`
of Python 3.11 and newer raises EINVAL. `select` waits for a length of time.
"""

import select
import time


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep
