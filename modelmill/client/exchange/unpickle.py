"""Turn a pickled estimator into a skops file: `python -m modelmill.client.exchange.unpickle model.pkl estimator.skops`.

Loading a pickle runs whatever code is in it. That is done only where a person says that the file is to be trusted, on
that person's machine, in a process of its own; what comes out goes through the same checks as any other skops file.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import skops.io


def main(source: str, target: str) -> None:
    """Load `source`, write `target`; on an error print it in one line and exit with 1."""
    try:
        with Path(source).open("rb") as file:
            estimator = pickle.load(file)
        skops.io.dump(estimator, target)
    except Exception as error:  # whatever the pickle raises
        sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
