"""Numbers from measurements: quantiles, slopes, and what processes have used of the machine."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, median

__all__ = ["Span", "bent_by", "median", "quantile", "slope", "timed"]


def quantile(values: Sequence[float], part: float) -> float:
    """Give the value below which `part` (0 to 1) of the values lie, the nearest one that occurred."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Fit a line through (x, y) by least squares and give how much y rises with x."""
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def bent_by(points: Sequence[tuple[float, float]]) -> float:
    """Give how far, at most, a point lies from the line through all of them: the noise of a slope."""
    rise = slope(points)
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    return max(abs(y - mean_y - rise * (x - mean_x)) for x, y in points)


@dataclass
class Span:
    """Seconds by the clock, and seconds of processor that this process and its dead children used meanwhile."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def timed() -> Iterator[Span]:
    """Measure a block."""
    span = Span()
    cpu, wall = _cpu_s(), time.perf_counter()
    yield span
    span.wall_s, span.cpu_s = time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
