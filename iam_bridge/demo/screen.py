"""What the demo shows: a step, the commands of it with their answers, what was to be seen, and how long it took."""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

LINES_MAX = 26
_SIGNS = {"+ ": "green", "~ ": "yellow", "? ": "yellow", "! ": "red"}
"""Styles by the sign of a plan's line."""


class Screen:
    """Tells the story on a console and remembers whether everything was as it should be."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed: list[str] = []
        self._number = 0
        self._told: set[str] = set()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show one step of the story with the time that it took."""
        self._number += 1
        self.console.print()
        self.console.print(Rule(f"[bold]{self._number}. {escape(title)}[/]", align="left", style="cyan"))
        start = time.perf_counter()
        yield
        self.console.print(Text(f"{time.perf_counter() - start:.1f} s", style="dim"), justify="right")

    def say(self, text: str) -> None:
        """Show a sentence."""
        self.console.print(Text(text))

    def command(self, line: str, output: str, *, most: int = LINES_MAX, fold: bool = True) -> None:
        """Show a command as it is typed, and what it answered: of a long answer its beginning and its end."""
        self.console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
        lines = output.rstrip("\n").splitlines()
        head = most if len(lines) <= most else most // 2
        tail = max(head, len(lines) - (most - head))
        for text in lines[:head]:
            self._answer(text, fold=fold)
        if tail > head:
            self.console.print(Text(f"  ... {tail - head} more lines", style="dim"))
        for text in lines[tail:]:
            self._answer(text, fold=fold)

    def _answer(self, text: str, *, fold: bool) -> None:
        """Show a line of an answer: folded where it is told for the first time, else cut at the edge, as tables are."""
        new = text not in self._told
        self._told.add(text)
        pieces = [text]
        if fold and new:
            pieces = textwrap.wrap(text, self.console.width - 2, subsequent_indent=" " * 6, break_on_hyphens=False)
        for piece in pieces or [""]:
            shown = Text.from_ansi(piece, style=_SIGNS.get(text[:2], ""))
            self.console.print(Text.assemble("  ", shown), overflow="ellipsis", no_wrap=True)

    def table(self, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Show a small table."""
        table = Table(*headings, box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 2))
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)

    def check(self, holds: bool, sentence: str) -> None:
        """Show whether something that must be so is so."""
        mark, style = ("✓", "green") if holds else ("✗", "bold red")
        self.console.print(Text.assemble((f"  {mark} ", style), sentence))
        if not holds:
            self.failed.append(sentence)
