"""Logins by the stock ssh client with tokens in ever more parts: what each further part costs."""

from __future__ import annotations

import time

from tests.bench.context import Context
from tests.bench.measure import bent_by, median, slope
from tests.bench.table import Line, Row

PART_BYTES = 1000
PARTS = (4, 8, 12, 16)
TIMES = 9
LINES = (Line("ssh: each further part of a token, slope from 4 to 16 parts", "ms", "value", "<=", 12),)


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    if context.why_no_logins:
        return [line.not_measured(context.why_no_logins) for line in LINES]
    site = context.login_site
    took: dict[int, list[float]] = {parts: [] for parts in PARTS}
    site.log_in(site.mint())
    for turn in range(TIMES):
        for parts in PARTS if turn % 2 else reversed(PARTS):
            token = site.mint(pad_to=parts * PART_BYTES - PART_BYTES // 2)
            began = time.perf_counter()
            site.log_in(token)
            took[parts].append((time.perf_counter() - began) * 1000)
    points = [(parts, median(times)) for parts, times in took.items()]
    rise = slope(points)
    logins = ", ".join(f"{median_ms:.0f} ms in {parts}" for parts, median_ms in points)
    beside = f"whole logins, medians of {TIMES} by turns: {logins} parts; they lie within {bent_by(points):.0f} ms of the line"
    return [LINES[0].measured(rise, beside, rise / points[0][1])]
