"""The composition root: commands that join settings, clock, ledger, stores and sources. Nobody imports it.

`main` and `run_command` are where an error becomes a sentence and an exit status (design 5.3).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; no stack trace reaches a user."""
    try:
        # Imported here, so that an impatient Ctrl-C during the imports is quiet too.
        from iam_bridge.cli.run_command import run_command

        return run_command(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
