"""What the libraries beneath log, shown to the person who runs a command as notes beside the result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from iam_bridge.cli.render import note


class _ToNotes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextmanager
def logs_as_notes() -> Iterator[None]:
    """Show warnings as notes while the block runs, instead of as raw lines on standard error."""
    handler = _ToNotes(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
