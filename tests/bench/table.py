"""What a measurement says: rows for the lines of a speed table, as text for people and as JSON for programs."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

MAIN_JOB = "main-job"
RESULT = Path(__file__).parents[2] / "build" / "bench.json"
_HOLDS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `beside` is what ran beside it in the same run, `ratio` is value by that, None where there is none.

    `value` is None, and `met` false, where this machine cannot measure it; `beside` then says why.
    """

    table: str
    name: str
    value: float | None
    unit: str
    beside: str
    ratio: float | None
    must: str
    met: bool


@dataclass(frozen=True, slots=True)
class Line:
    """What a table wants to see measured, and the bound on it: `what` (value or ratio), `sign`, `bound`."""

    name: str
    unit: str
    what: str
    sign: str
    bound: float
    table: str = MAIN_JOB

    @property
    def must(self) -> str:
        """Write the bound."""
        unit = f" {self.unit}" if self.what == "value" else ""
        return f"{self.what} {self.sign} {self.bound:g}{unit}".rstrip()

    def measured(self, value: float, beside: str, ratio: float | None = None) -> Row:
        """Give the row of a figure."""
        judged = value if self.what == "value" else ratio
        met = judged is not None and _HOLDS[self.sign](judged, self.bound)
        kept = None if ratio is None else _significant(ratio)
        return Row(self.table, self.name, _significant(value), self.unit, beside, kept, self.must, met)

    def not_measured(self, why: str) -> Row:
        """Give the row of a figure that cannot be taken on this machine."""
        return Row(self.table, self.name, None, self.unit, f"not measured: {why}", None, self.must, met=False)


def _significant(value: float) -> float:
    return float(f"{value:.4g}")


def show_number(value: float | None) -> str:
    """Write three significant digits, and whole numbers from a hundred on."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def print_rows(console: Console, rows: Iterable[Row]) -> None:
    """Print the table."""
    table = Table(title=f"table {MAIN_JOB}", title_justify="left", header_style="bold", show_lines=True)
    table.add_column("what", ratio=3)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("beside it, in the same run", ratio=4)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("must be", no_wrap=True)
    table.add_column("met", no_wrap=True)
    for row in rows:
        mark = Text("yes", "green") if row.met else Text("NO", "bold red")
        measured = f"{show_number(row.value)} {row.unit}".rstrip()
        table.add_row(row.name, measured, row.beside, show_number(row.ratio), row.must, mark)
    console.print(table)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
