"""One log format for all processes."""

from __future__ import annotations

import logging


def configure(service: str) -> None:
    """Log to standard error, a line a message, with time and service."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {service} %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
