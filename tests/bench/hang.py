"""Logins while the issuer takes every question and answers none."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from iam_bridge.settings import read_settings
from pam_module.wire import Request, encode_request
from tests.bench.context import Context
from tests.bench.load import SLICE_VERDICTS, SLICES, put_by_turns
from tests.bench.measure import median
from tests.bench.node import Node
from tests.bench.table import Line, Row

STRANGERS = 4
PAUSE_S = 0.05
OLD_S = 7 * 3600
ISSUER_TIMEOUT_S = 20
"""Longer than a site would wait, so that one hanging fetch lasts as long as the measurement."""
LINES = (
    Line("verdicts over the socket while the issuer hangs", "/s", "ratio", ">=", 0.9),
    Line("99th percentile of these, connect to reply", "ms", "ratio", "<=", 2),
)


def _with_old_keys(node: Node) -> Node:
    """Give a node beside this one, on the same view, whose kept keys are due for a refresh."""
    login, text = node.settings.login, node.settings.path.read_text()
    old = login.key_cache.with_name("old-keys")
    shutil.copytree(login.key_cache, old)
    for path in old.iterdir():
        kept = json.loads(path.read_text())
        path.write_text(json.dumps(kept | {"fetched_at": kept["fetched_at"] - OLD_S}))
    for there, here in (
        (login.key_cache, old),
        (login.socket, login.socket.with_name("hung.sock")),
        (login.receipts, login.receipts.with_name("hung.jsonl")),
        ("types:", f"timeout: {ISSUER_TIMEOUT_S}s\n    types:"),
    ):
        text = text.replace(str(there), str(here))
    settings = node.folder / "hung.yaml"
    settings.write_text(text)
    return replace(node, settings=read_settings(settings))


def _be_strange(address: str, frames: Iterator[bytes], stop: threading.Event, waited: list[float]) -> None:
    """Come again and again with a token of an unknown key, a little after each answer."""
    while not stop.is_set():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2 * ISSUER_TIMEOUT_S)
            client.connect(address)
            began = time.perf_counter()
            client.sendall(next(frames))
            while client.recv(4096):
                pass
            waited.append(time.perf_counter() - began)
        stop.wait(PAUSE_S)


@contextmanager
def _strangers(node: Node, requests: Sequence[Request]) -> Iterator[list[float]]:
    """Have people around whose tokens make the daemon ask the issuer, from now on; the list is how long each waited."""
    frames = itertools.cycle(map(encode_request, requests))
    stop, waited = threading.Event(), list[float]()
    arguments = (str(node.settings.login.socket), frames, stop, waited)
    threads = [threading.Thread(target=_be_strange, args=arguments) for _ in range(STRANGERS)]
    asked = node.iam.connections()
    for thread in threads:
        thread.start()
    try:
        while node.iam.connections() == asked and not waited:
            time.sleep(0.01)
        yield waited
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    well, hung = context.big, _with_old_keys(context.big)
    sockets = (well.settings.login.socket, hung.settings.login.socket)
    frames = (context.frames(well, SLICES * SLICE_VERDICTS), context.frames(well, SLICES * SLICE_VERDICTS))
    unknown = context.requests(well, 400, kid="no-such-key")
    with well.daemon(), hung.daemon():
        context.iam.call("fault", kind="hang")
        with _strangers(hung, unknown) as waited:
            slices = put_by_turns(context.load, sockets, frames)
            told = list(waited)
        context.iam.call("clear_faults")
    well_rate, hung_rate = (SLICES * SLICE_VERDICTS / sum(one.seconds for one in each) for each in slices)
    well_ms, hung_ms = (median(one.p99_us for one in each) / 1000 for each in slices)
    them = f"each for {min(told):.1f} s or more" if told else "all the time"
    beside = (
        f"{well_rate:,.0f}/s of a daemon that has nothing to ask, {SLICES} slices each by turns; with the other one "
        f"{STRANGERS} clients with unknown keys wait for the issuer, {them}"
    )
    return [
        LINES[0].measured(hung_rate, beside, hung_rate / well_rate),
        LINES[1].measured(hung_ms, f"{well_ms:.1f} ms of a daemon that has nothing to ask", hung_ms / well_ms),
    ]
