"""A run that finds nothing to do among 10 000 members: what it costs this host, and what it writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from iam_bridge.demo.iam.remote import RemoteIam, spawned_iam
from iam_bridge.model.rules import Settings
from tests.bench.context import Context
from tests.bench.measure import median, timed
from tests.bench.sites import make_site
from tests.bench.table import Line, Row
from tests.bench.watch import watched

PEOPLE = 10_000
TIMES = 5
BRIDGE = Path(sys.executable).with_name("iam-bridge")
BARE = Path(__file__).with_name("bare_pull.py")
_NAME = f"{PEOPLE:,} members, nothing changed"
LINES = (
    Line(f"pull and plan, {_NAME}: processor time of the whole command", "s", "value", "<", 1),
    Line(f"plan and run, {_NAME}: writes to the store", "writes", "value", "<=", 0),
)


def _run(argv: Sequence[str | Path]) -> tuple[float, float]:
    """Run a program; give its seconds of processor, forked children included, and by the clock."""
    with timed() as span:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with status {done.returncode}: {done.stdout[-200:]}{done.stderr[-400:]}")
    return span.cpu_s, span.wall_s


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def _make_everybody(folder: Path, iam: RemoteIam) -> Settings:
    """Make the accounts of all members by a first run."""
    settings = make_site(folder / "site", issuer=iam.issuer, ca_file=iam.ca_file)
    _run([BRIDGE, "--config", settings.path, "provision", "run", "--quiet", "--initial", str(PEOPLE)])
    return settings


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    folder = context.new_folder()
    (folder / "iam").mkdir()
    took: dict[str, list[tuple[float, float]]] = {"plan": [], "run": [], "bare": []}
    with spawned_iam(folder / "iam", "--people", str(PEOPLE)) as iam:
        settings = _make_everybody(folder, iam)
        store = settings.accounts.folder
        before = _stamps(store)
        provision: list[str | Path] = [BRIDGE, "--config", settings.path, "provision"]
        with watched(store) as writes:
            for _ in range(TIMES):
                took["plan"].append(_run([*provision, "plan"]))
                took["bare"].append(_run([sys.executable, BARE, iam.base_url, iam.ca_file]))
                took["run"].append(_run([*provision, "run", "--quiet"]))
        changed = [name for name, stamp in _stamps(store).items() if before.get(name) != stamp]
    # The least of the times: the same work is done in each, and what adds to one is the machine.
    plan_s, run_s, bare_s = (min(cpu for cpu, _ in times) for times in took.values())
    wall_s = median(wall for _, wall in took["plan"])
    beside = (
        f"a bare script that fetches the same pages, {bare_s:.2f} s; provision run, {run_s:.2f} s; "
        f"by the clock plan takes {wall_s:.1f} s, the IAM's part included"
    )
    held = f"{TIMES} times each; {len(before)} files in the folder, inode or time changed of {len(changed)}"
    return [LINES[0].measured(plan_s, beside, plan_s / bare_s), LINES[1].measured(len(writes) + len(changed), held)]
