"""`python -m tests.bench [NAME]`: take the measurements, print them as a table, write them to build/bench.json."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from iam_bridge.errors import BridgeError
from tests.bench import apply, hang, parts, pull, scale, start, throughput, transaction, verdict
from tests.bench.context import Context, new_context
from tests.bench.machine import describe_machine
from tests.bench.table import RESULT, Line, Row, print_rows, write_rows


@dataclass(frozen=True, slots=True)
class Measurement:
    """Lines of the table and what fills them."""

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
    """Take the named measurements; one that fails costs its own rows and nothing else."""
    rows: list[Row] = []
    with new_context() as context:
        for name in names:
            began = time.monotonic()
            try:
                rows += MEASUREMENTS[name].measure(context)  # no spinner meanwhile: it would be measured, too
            except (BridgeError, OSError, RuntimeError, subprocess.SubprocessError) as error:
                console.print_exception()
                rows += [line.not_measured(f"{type(error).__name__}: {error}") for line in MEASUREMENTS[name].lines]
            console.print(f"[dim]{name}: {time.monotonic() - began:.1f} s[/]")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the status says whether all could be measured, never whether it is fast."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=MEASUREMENTS, help="take this one alone")
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE", help="(default: %(default)s)")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    console = Console(highlight=False, width=None if Console().is_terminal else 150)
    console.print(describe_machine())
    rows = take([options.name] if options.name else list(MEASUREMENTS), console)
    print_rows(console, rows)
    write_rows(options.out, rows)
    missed = sum(not row.met for row in rows)
    console.print(f"{len(rows)} rows in {options.out}, {missed} not met; {describe_machine()}")
    return int(any(row.value is None for row in rows))


if __name__ == "__main__":
    sys.exit(main())
