"""The same logins where few and where very many have accounts."""

from __future__ import annotations

from tests.bench.context import FEW, MANY, Context
from tests.bench.load import SLICE_VERDICTS, SLICES, put_by_turns
from tests.bench.table import Line, Row
from tests.bench.verdict import TOKENS, WARM_UP, decider, interleave

LINES = (
    Line(f"frame to verdict, {MANY:,} accounts", "ms", "ratio", "<=", 1.3),
    Line(f"a verdict over the socket, {MANY:,} accounts", "ms", "ratio", "<=", 1.3),
)


def _in_process(context: Context) -> tuple[float, float]:
    """Give the milliseconds of a verdict in this process."""
    with context.small.service() as few, context.big.service() as many:
        requests = (context.requests(node, TOKENS + WARM_UP) for node in (context.small, context.big))
        return interleave(decider(few), decider(many), list(zip(*requests, strict=True)))


def _over_socket(context: Context) -> tuple[float, float]:
    """Give the milliseconds between two verdicts of a busy daemon."""
    frames = tuple(context.frames(node, SLICES * SLICE_VERDICTS) for node in (context.small, context.big))
    with context.small.daemon() as one, context.big.daemon() as other:
        few, many = put_by_turns(context.load, (one.socket, other.socket), (frames[0], frames[1]))
    verdicts = sum(one.permits for one in few)
    return sum(one.seconds for one in few) / verdicts * 1000, sum(one.seconds for one in many) / verdicts * 1000


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    few_ms, many_ms = _in_process(context)
    few_socket_ms, many_socket_ms = _over_socket(context)
    return [
        LINES[0].measured(many_ms, f"{FEW} accounts, {few_ms:.3f} ms, by turns", many_ms / few_ms),
        LINES[1].measured(
            many_socket_ms,
            f"{FEW} accounts, {few_socket_ms:.3f} ms, in {SLICES} slices each by turns",
            many_socket_ms / few_socket_ms,
        ),
    ]
