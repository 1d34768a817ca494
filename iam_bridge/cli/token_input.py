"""A token as it reaches a command: from a file or from standard input, never as an argument that `ps` would show."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.render import note
from iam_bridge.errors import InvalidValue

READ_MAX = 1 << 16
"""Bytes that are read: beyond three times the longest token that is accepted, more of it tells nothing new."""
STANDARD_INPUT = Path("-")

TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="The file with the token; - reads standard input.")
]


def read_token(path: Path | None) -> bytes:
    """Read a token without the line end that editors and `echo` put behind it; raise InvalidValue."""
    if path is None:
        raise InvalidValue("no token was given", hint="name its file by --token-file FILE, or - for standard input")
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise InvalidValue("standard input is closed", hint="give --token-file FILE")
        if sys.stdin.isatty():
            note("paste the token, then Enter and Ctrl-D; a terminal passes 4095 characters of a line at most")
        return _strip(_read(sys.stdin.fileno(), "standard input"))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise InvalidValue(f"the token file {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            note(f"the token file {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 600 {path}")
        return _strip(_read(descriptor, f"the token file {path}"))
    finally:
        os.close(descriptor)


def _read(descriptor: int, what: str) -> bytes:
    raw = b""
    try:
        while len(raw) < READ_MAX and (chunk := os.read(descriptor, READ_MAX - len(raw))):
            raw += chunk
    except OSError as error:
        raise InvalidValue(f"{what} cannot be read: {error.strerror}") from error
    return raw


def _strip(raw: bytes) -> bytes:
    return raw.removesuffix(b"\n").removesuffix(b"\r")
