"""From a parsed frame to the verdict, in this process, beside joserfc alone."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

from pam_module.service import Service
from pam_module.wire import Request, Status
from tests.bench.bare import KEYS, Work, bare_check
from tests.bench.context import Context
from tests.bench.measure import median
from tests.bench.table import Line, Row

TOKENS = 1500
WARM_UP = 50
LINES = (
    Line("frame to verdict, a new RS256 token, receipt included", "ms", "ratio", "<=", 4),
    Line("frame to verdict, a new ES256 token, receipt included", "ms", "ratio", "<=", 3),
)


def decider(service: Service) -> Work:
    """Give one verdict of the daemon's, which has to be a permit; raises RuntimeError."""

    def decide(request: Request) -> None:
        try:
            next(service.answer(request))
        except StopIteration as stop:
            if stop.value.status is not Status.PERMIT:
                raise RuntimeError(f"not let in: {stop.value.text}") from None
            return
        raise RuntimeError("a warm login asked the issuer")

    return decide


def interleave(first: Work, second: Work, requests: Sequence[tuple[Request, Request]]) -> tuple[float, float]:
    """Time two works by turns, each time in the other order; give the medians in milliseconds."""
    took: tuple[list[int], list[int]] = ([], [])
    works = (first, second)
    gc.collect()
    gc.freeze()  # as the daemon does when it has started
    for number, pair in enumerate(requests):
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter_ns()
            works[which](pair[which])
            took[which].append(time.perf_counter_ns() - began)
    gc.unfreeze()
    return median(took[0][WARM_UP:]) / 1e6, median(took[1][WARM_UP:]) / 1e6


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    rows = []
    with context.small.service() as service:
        for line, (algorithm, key) in zip(LINES, KEYS.items(), strict=True):
            requests = context.requests(context.small, TOKENS + WARM_UP, key=key)
            bare = bare_check(context.iam.iam, algorithm)
            ours_ms, bare_ms = interleave(decider(service), bare, [(request, request) for request in requests])
            beside = (
                f"joserfc alone (signature, iss, aud, exp), {bare_ms:.3f} ms, by turns on {TOKENS} tokens of "
                f"{len(requests[0].secret)} bytes"
            )
            rows.append(line.measured(ours_ms, beside, ours_ms / bare_ms))
    return rows
