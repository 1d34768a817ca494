"""What people and programs see of a command; the only file that writes to the terminal.

Text from the IAM, from files and from arguments is hostile here too: what is not printable shows as `?`, and nothing is
ever read as markup. A terminal gets colours and drawn tables, a pipe gets plain columns, `--json` gets JSON in ASCII.
"""

# ruff: noqa: T201  this is the one file that prints

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from iam_bridge.errors import BridgeError

if TYPE_CHECKING:
    from rich.console import Console

DRAWN_ROWS_MAX = 500  # a drawn table measures every cell first
_ANSI = {"good": "32", "change": "33", "bad": "31", "dim": "2", "strong": "1", "": ""}
"""Styles by what a line means; SGR codes, ECMA-48 8.3.117."""


class OutputLost(Exception):
    """Standard output takes no more: the reader is gone (`| head`), or the disk is full."""


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputLost from error


class _Output(io.TextIOWrapper):
    """Standard output whose own failure cannot be taken for another file's."""

    def write(self, text: str, /) -> int:
        with _told_apart():
            return super().write(text)

    def flush(self) -> None:
        with _told_apart():
            super().flush()


def prepare_streams() -> None:
    """Let no text break a stream: what its encoding cannot say is written as an escape."""
    sys.stdout, sys.stderr = _opened(sys.stdout), _opened(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if type(sys.stdout) is io.TextIOWrapper:  # not one that a test put there
        old = sys.stdout
        encoding, is_terminal = old.encoding, old.isatty()
        sys.stdout = _Output(old.detach(), encoding, "backslashreplace", line_buffering=is_terminal)


def _opened(stream: TextIO | None) -> TextIO:
    """Give a stream that can be written to; one that the caller had closed (`>&-`) is None."""
    return stream if stream is not None else open(os.devnull, "w", encoding="utf-8")


def clean(text: object) -> str:
    """Make one line of hostile text harmless for a terminal: controls, escapes and direction marks become `?`."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def has_colour(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that wants colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _dressed(text: str, style: str, stream: TextIO) -> str:
    code = _ANSI[style]
    return f"\x1b[{code}m{text}\x1b[0m" if code and has_colour(stream) else text


def say(text: str = "", style: str = "") -> None:
    """Print one line; `style` is good, change, bad, dim, strong or empty."""
    print(_dressed(clean(text), style, sys.stdout))


def note(text: str) -> None:
    """Print one line for the person beside the result: on standard error, so that a pipe stays clean."""
    print(_dressed(clean(text), "dim", sys.stderr), file=sys.stderr)


def say_error(message: str, hint: str = "") -> None:
    """Print what went wrong, and what to do next on a line of its own."""
    sys.stdout.flush()
    lines = [clean(line) for line in message.splitlines()] or ["failed"]
    lines[0] = f"{_dressed('iam-bridge:', 'bad', sys.stderr)} {lines[0]}"
    print("\n".join(lines), file=sys.stderr)
    if hint:
        print(f"  -> {clean(hint)}", file=sys.stderr)


def complain(error: BridgeError) -> None:
    """Print an error of ours."""
    say_error(error.message, error.hint)


def moment(at: datetime | None) -> str:
    """Write a time for people: UTC, to the second; `never` where there is none."""
    return "never" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def span(seconds: float) -> str:
    """Write an age or a duration in its two largest units: 3d 4h, 12m 5s."""
    left = int(abs(seconds))
    parts: list[str] = []
    for word, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or (word == "s" and not parts):
            parts.append(f"{number}{word}")
    return " ".join(parts[:2])


def plain(value: Any) -> Any:
    """Turn values of ours into what JSON knows: dataclasses to objects, sets sorted, times in RFC 3339."""
    if is_dataclass(value) and not isinstance(value, type):
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return str(value) if _is_named(value) else {name: plain(item) for name, item in fields.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _is_named(value: Any) -> bool:
    """Tell whether a value is one word, such as a subject or an account name: it says itself by `__str__`."""
    return "__str__" in type(value).__dict__


def print_json(value: Any) -> None:
    """Print JSON; everything outside ASCII, and so every control character, is written as an escape."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "") -> None:
    """Print rows under a head: drawn on a terminal, plain columns otherwise; `empty` is said where there is none."""
    texts = [[clean(cell) for cell in row] for row in rows]
    if not texts and empty:
        say(empty)
    elif sys.stdout.isatty() and len(texts) <= DRAWN_ROWS_MAX:
        _draw(columns, texts)
    else:
        _align([list(columns), *texts])


def _align(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def console() -> Console:
    """Open the terminal for drawing; nothing that it is given is read as markup, an emoji name or a highlight."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, no_color=not has_colour(sys.stdout))


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair per line, the values under each other."""
    listed = [(clean(name), clean(value)) for name, value in pairs]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        print(f"{_dressed(name.ljust(width), 'dim', sys.stdout)}  {value}")
