"""Many people at once on the daemon's socket: how many a second, whom it asks, what it keeps."""

from __future__ import annotations

from collections.abc import Sequence

from pam_module.wire import Request
from tests.bench.bare import bare_check
from tests.bench.context import MANY, Context
from tests.bench.load import CLIENTS, LoadResult, put_load
from tests.bench.measure import median, timed
from tests.bench.table import Line, Row

VERDICTS = 30_000
PARTS = 10
BARE = 200
LINES = (
    Line(f"verdicts over the socket, new tokens, {CLIENTS} clients, a connection each", "/s", "value", ">=", 2000),
    Line(f"connections to the issuer during these {VERDICTS:,} verdicts", "", "value", "<=", 0),
    Line(f"daemon: resident after {VERDICTS:,} verdicts", "MB", "value", "<=", 50),
)


def _bare_rate(context: Context, requests: Sequence[Request]) -> float:
    """Give how many of these tokens joserfc alone would check in a second, one process doing nothing else."""
    check = bare_check(context.iam.iam, "RS256")
    with timed() as span:
        for request in requests:
            check(request)
    return len(requests) / span.wall_s


def _tell_load(results: Sequence[LoadResult]) -> str:
    used = sum(one.cpu_s for one in results) / sum(one.seconds for one in results)
    latency_ms = median(one.median_us for one in results) / 1000
    return f"{MANY:,} accounts; median latency {latency_ms:.1f} ms; the load, a C program, takes {used:.0%} of a core"


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    node, count = context.big, VERDICTS // PARTS
    frames = context.frames(node, VERDICTS)
    plain = context.requests(node, BARE)
    results, bare = [], []
    with node.daemon() as daemon:
        began_kb = daemon.resident_kb()
        asked = context.iam.connections()
        for part in range(PARTS):
            results.append(put_load(context.load, daemon.socket, frames, first=part * count, count=count))
            bare.append(_bare_rate(context, plain))
        asked = context.iam.connections() - asked
        resident_kb = daemon.resident_kb()
    rate = VERDICTS / sum(one.seconds for one in results)
    beside = f"joserfc alone on one core, {median(bare):,.0f} checks/s; {_tell_load(results)}"
    began = f"{began_kb / 1024:.1f} MB when it began to serve"
    return [
        LINES[0].measured(rate, beside, rate / median(bare)),
        LINES[1].measured(asked, "the embedded IAM counts them; the keys were kept on disk"),
        LINES[2].measured(resident_kb / 1024, began, resident_kb / began_kb),
    ]
