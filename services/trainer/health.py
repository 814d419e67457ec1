"""Whether a worker of this host lives: `python -m services.trainer.health` ends with 0 if so, otherwise with 1."""

from __future__ import annotations

import socket
import sys

from rq import Worker

from modelmill.errors import ModelmillError
from modelmill.settings import Settings
from modelmill.state.connections import AWAY, connect
from services.trainer.jobs.queue import TrainingQueue


def main() -> None:
    """Look for a worker of this host; a worker that gives no sign for 15 s is forgotten by Redis."""
    try:
        settings = Settings.read()
        queue = TrainingQueue(connect(settings.redis_url, timeout=settings.redis_timeout, text=False))
        workers = Worker.all(queue=queue.rq)
    except (ModelmillError, *AWAY) as error:
        sys.exit(f"cannot tell: {error}")
    here = socket.gethostname()
    if not any(worker.hostname == here for worker in workers):
        sys.exit(f"no worker of {here} lives")


if __name__ == "__main__":
    main()
