"""What the libraries beneath log, shown to the person who runs a command as notes beside the result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from iam_bridge.cli.render import note


class Notes(logging.Handler):
    """Keeps warnings until the command is done; what it says by itself is not said twice."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[str] = []
        self._said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())

    def said(self, text: str) -> None:
        """Drop every note that ends in a text which the command shows itself."""
        if text:
            self._said.append(text)

    def show(self) -> None:
        """Show what is left."""
        for text in self._kept:
            if not text.endswith(tuple(self._said)):
                note(text)


@contextmanager
def logs_as_notes() -> Iterator[Notes]:
    """Turn warnings into notes while the block runs, instead of raw lines on standard error."""
    notes = Notes()
    root = logging.getLogger()
    root.addHandler(notes)
    try:
        yield notes
    finally:
        root.removeHandler(notes)
        notes.show()
