"""`python -m tests.bench [NAME]`: take the measurements, print them as a table, write them to build/bench.json."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from tests.bench import apply, hang, parts, pull, scale, start, throughput, transaction, verdict
from tests.bench.context import Context, new_context
from tests.bench.machine import describe_machine
from tests.bench.table import RESULT, Line, Row, print_rows, write_rows


@dataclass(frozen=True, slots=True)
class Measurement:
    """Lines of a table and what fills them."""

    lines: tuple[Line, ...]
    measure: Callable[[Context], list[Row]]


MEASUREMENTS = {
    "verdict": Measurement(verdict.LINES, verdict.measure),
    "transaction": Measurement(transaction.LINES, transaction.measure),
    "parts": Measurement(parts.LINES, parts.measure),
    "throughput": Measurement(throughput.LINES, throughput.measure),
    "hang": Measurement(hang.LINES, hang.measure),
    "scale": Measurement(scale.LINES, scale.measure),
    "start": Measurement(start.LINES, start.measure),
    "pull": Measurement(pull.LINES, pull.measure),
    "apply": Measurement(apply.LINES, apply.measure),
}
"""In the order of the table."""


def take(names: Sequence[str], console: Console) -> list[Row]:
    """Take the named measurements, in the order of the table."""
    rows: list[Row] = []
    with new_context() as context:
        for name in names:
            began = time.monotonic()
            rows += MEASUREMENTS[name].measure(context)  # no spinner meanwhile: it would be measured, too
            console.print(f"[dim]{name}: {time.monotonic() - began:.1f} s[/]")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the status tells whether everything could be measured, not whether it is fast."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=MEASUREMENTS, help="take this one alone")
    name = parser.parse_args(argv).name
    console = Console(highlight=False, width=None if Console().is_terminal else 150)
    console.print(describe_machine())
    rows = take([name] if name else list(MEASUREMENTS), console)
    print_rows(console, rows)
    write_rows(RESULT, rows)
    missed = sum(not row.met for row in rows)
    console.print(
        f"{len(rows)} rows in {RESULT.relative_to(RESULT.parents[1])}, {missed} not met; {describe_machine()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
