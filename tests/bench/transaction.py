"""A whole PAM transaction with our module and the real daemon, beside one with pam_permit alone."""

from __future__ import annotations

from pathlib import Path

from iam_bridge.demo.cluster import MODULE
from iam_bridge.demo.scratch import UIDS
from tests.bench.context import HERE, Context
from tests.bench.load import compile_c
from tests.bench.login_site import LoginSite
from tests.bench.measure import median, quantile
from tests.bench.table import Line, Row

TIMES = 400
WARM_UP = 20
LINES = (Line("PAM transaction (auth and account) with our module, over pam_permit", "ms", "value", "<=", 1.5),)


def _write_services(confdir: Path, site: LoginSite) -> None:
    """Write two services that differ in the module alone."""
    confdir.mkdir()
    low, high = UIDS
    ours = f"{MODULE} socket={site.socket} daemon={site.daemon_user} uids={low}-{high},{site.uid}-{site.uid}"
    for name, line in (("ours", ours), ("permit", "pam_permit.so"), ("other", "pam_deny.so")):
        (confdir / name).write_text(f"auth required {line}\naccount required {line}\n")


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    if context.why_no_logins:
        return [line.not_measured(context.why_no_logins) for line in LINES]
    site, folder = context.login_site, context.new_folder()
    program = compile_c(HERE / "transaction.c", folder, "-lpam")
    _write_services(folder / "pam.d", site)
    tokens = [site.mint() for _ in range(TIMES + WARM_UP)]
    (folder / "tokens").write_text("".join(f"{token}\n" for token in tokens))
    said = site.run([program, folder / "pam.d", "ours", "permit", site.name, folder / "tokens"])
    pairs = [tuple(int(word) / 1e6 for word in line.split()) for line in said.splitlines()][WARM_UP:]
    more = [ours - permit for ours, permit in pairs]
    permit_ms = median(permit for _, permit in pairs)
    beside = (
        f"pam_permit alone, {permit_ms:.2f} ms from pam_start to pam_end, by turns, {TIMES} new tokens of "
        f"{len(tokens[0])} bytes; the 95th percentile of the difference is {quantile(more, 0.95):.2f} ms"
    )
    return [LINES[0].measured(median(more), beside, median(more) / permit_ms)]
