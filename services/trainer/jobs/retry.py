"""Which faults may pass by themselves, and how long to wait before a training is tried again.

Redis, the feature service or the storage may be away for a while. What is wrong with the data or the code stays wrong:
trying that again would only hide it. So is whatever comes out of the code of the definitions file, which may well raise
a `ConnectionError` of its own.
"""

from __future__ import annotations

import errno
import traceback
from random import Random

import httpx

from modelmill.declare.user_code import UserCode
from modelmill.errors import PackageError, RequestFailed, RunEnded, Unavailable
from modelmill.state.connections import AWAY

ATTEMPTS = 3
"""How often a training is begun before it has failed."""
FIRST_PAUSE = 4.0
"""Seconds before the second attempt; each further pause is four times as long."""
LONGEST_PAUSE = 60.0
PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EIO",
        "EMFILE", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENFILE", "ENOBUFS", "ENOSPC", "EPIPE", "EREMOTEIO",
        "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Numbers of the errors of disks, networks and shared folders that may pass; a missing file or permission does not."""


def may_pass(error: BaseException | None) -> bool:
    """Whether the same training may go well a little later."""
    if isinstance(error, PackageError) or (error is not None and _from_definitions(error)):
        return False
    if isinstance(error, RequestFailed):
        return error.http_status >= 500 or error.http_status == 429
    if isinstance(error, (*AWAY, Unavailable, RunEnded, httpx.TransportError, TimeoutError, ConnectionError)):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


def _from_definitions(error: BaseException) -> bool:
    """Whether the user's code, the definitions file or a module beside it, has a part in it."""
    loaders = (frame.f_globals.get("__loader__") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(isinstance(loader, UserCode) for loader in loaders)


def pause(attempt: int, random: Random) -> float:
    """Seconds to wait after `attempt` (1 is the first): longer each time, and never the same for two jobs, so that what
    was away does not get all of them at once when it is back."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 4.0 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)
