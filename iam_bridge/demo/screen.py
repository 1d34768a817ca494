"""What the demo shows: a step, the commands of it with their answers, what was to be seen, and how long it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

LINES_MAX = 26


class Screen:
    """Tells the story on a console and remembers whether everything was as it should be."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed: list[str] = []
        self._number = 0

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show one step of the story with the time that it took."""
        self._number += 1
        self.console.print()
        self.console.print(Rule(f"[bold]{self._number}. {escape(title)}[/]", align="left", style="cyan"))
        start = time.perf_counter()
        yield
        self.console.print(Text(f"{time.perf_counter() - start:.1f} s", style="dim", justify="right"))

    def say(self, text: str) -> None:
        """Show a sentence."""
        self.console.print(Text(text))

    def command(self, line: str, output: str, *, most: int = LINES_MAX) -> None:
        """Show a command as it is typed, and what it answered."""
        self.console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
        lines = output.rstrip("\n").splitlines()
        for text in lines[:most]:
            self.console.print(Text.assemble("  ", Text.from_ansi(text)), overflow="ellipsis", no_wrap=True)
        if len(lines) > most:
            self.console.print(Text(f"  ... {len(lines) - most} more lines", style="dim"))

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
