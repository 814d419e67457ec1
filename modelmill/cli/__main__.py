"""The command as `python -m modelmill.cli`."""

from modelmill import logs
from modelmill.cli import main

if __name__ == "__main__":
    logs.configure("cli")
    main()
