"""From the start of the daemon's process to its first verdict, with keys kept on disk."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from pam_module.wire import Status, encode_request, parse_reply
from tests.bench.context import MANY, Context
from tests.bench.measure import median, timed
from tests.bench.node import Daemon
from tests.bench.table import Line, Row

STARTS = 9
LINES = (Line("daemon: from start to first verdict, keys kept on disk", "s", "value", "<=", 0.35),)


def _first_verdict_s(daemon: Daemon, frame: bytes) -> float:
    began = time.perf_counter()
    daemon.start()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(daemon.socket))
            client.sendall(frame)
            reply = b"".join(iter(lambda: client.recv(4096), b""))
        took = time.perf_counter() - began
    finally:
        daemon.stop()
    if parse_reply(reply[4:]).status is not Status.PERMIT:
        raise RuntimeError("the first token was not let in")
    return took


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    ours, bare, readies = [], [], []
    for request in context.requests(context.big, STARTS):
        daemon = Daemon(context.big)
        ours.append(_first_verdict_s(daemon, encode_request(request)))
        readies.append(daemon.ready_s)
        with timed() as span:
            subprocess.run([sys.executable, "-c", "import cryptography.hazmat.primitives.asymmetric.rsa"], check=True)
        bare.append(span.wall_s)
    beside = (
        f"an interpreter that only imports cryptography's RSA, {median(bare):.3f} s; the daemon says that it serves "
        f"after {median(readies):.3f} s; {MANY:,} accounts, {STARTS} starts"
    )
    return [LINES[0].measured(median(ours), beside, median(ours) / median(bare))]
