"""10 000 new accounts: ledger, view and files, then homes; and shadow-utils' newusers beside it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from iam_bridge.demo.iam import synthetic_people
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.identity import Issuer, MemberSnapshot
from provisioner.facts import Site
from provisioner.hostnames import HostPaths
from provisioner.run import Pulled, run
from provisioner.stores.files import FilesStore
from tests.bench.context import Context
from tests.bench.measure import median, timed
from tests.bench.newusers import ROWS, time_newusers, what_is_missing
from tests.bench.people import take_snapshot
from tests.bench.sites import make_site
from tests.bench.table import Line, Row

PEOPLE = 10_000
TIMES = 3
PROBES = 1000
PROBE_MOST_S = 80e-6
MEMORY = Path("/dev/shm")
ISSUER = "https://iam.bench.example.org/"
LINES = (
    Line(f"apply {PEOPLE:,} new accounts: ledger, view and files", "s", "value", "<", 1),
    Line(f"apply {PEOPLE:,} new accounts: with homes", "s", "value", "<", 3),
    Line("apply, a row with its home", "ms", "ratio", "<=", 0.05),
)


@contextmanager
def _clocked(name: str, spent: dict[str, float]) -> Iterator[None]:
    """Add up in `spent` what calls of a function take, wherever in the run they are made."""
    module, _, attribute = name.rpartition(".")

    def clock(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            with timed() as span:
                result = function(*args, **more)
            spent[attribute] = spent.get(attribute, 0.0) + span.wall_s
            return result

        return call

    target = __import__(module, fromlist=[attribute])
    with mock.patch.object(target, attribute, clock(getattr(target, attribute))):
        yield


def _apply_once(folder: Path, homes: Path, snapshot: MemberSnapshot) -> dict[str, float]:
    """Run the provisioner for people who are all new; give the seconds of the run, its plan and its homes."""
    homes.mkdir(mode=0o755)
    settings = make_site(folder, issuer=ISSUER, ca_file=Path("/dev/null"), homes=homes)
    spent: dict[str, float] = {}
    anchors = (settings.paths.view.parent / "anchor", settings.accounts.folder / "iam-bridge.anchor")
    with ExitStack() as held:
        ledger = held.enter_context(Ledger.open(settings.paths.ledger, anchors=anchors))
        store = FilesStore(settings.accounts, journal=settings.paths.journal, today=lambda: int(time.time()) // 86400)
        site = Site(settings, ledger, store, HostPaths())
        held.enter_context(_clocked("provisioner.run.make_plan", spent))
        held.enter_context(_clocked("provisioner.apply.make_homes", spent))
        gc.collect()
        gc.freeze()
        with timed() as span:
            report = run(
                site, Pulled((snapshot,), ()), now=datetime.now(UTC), by="bench", initial=len(snapshot.members)
            )
        gc.unfreeze()
    if report.applied.problems or len(report.applied.homes) != len(snapshot.members):
        raise RuntimeError(f"not all accounts were made: {report.applied.problems[:1] or len(report.applied.homes)}")
    return {**spent, "run": span.wall_s}


def _slow_to_create_s(folder: Path) -> float:
    """Give the seconds that a new folder with a new file in it takes just now, by the barest calls."""
    folder.mkdir()
    with timed() as span:
        for number in range(PROBES):
            path = f"{folder}/{number}"
            os.mkdir(path)
            os.close(os.open(f"{path}/file", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    return span.wall_s / PROBES


@contextmanager
def _place_for_homes(folder: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder for homes and what is to be said of it.

    ext4 without a journal takes no inode that was freed in the last minutes, and searches long for another: after a run
    of the tests, or of this, a bare open(2) takes 20 times as long. Then homes go to memory, so that the figure is ours.
    """
    probe_s = _slow_to_create_s(folder / "probe")
    if probe_s < PROBE_MOST_S or not os.access(MEMORY, os.W_OK):
        (folder / "home").mkdir()
        yield folder / "home", "homes on disk"
        return
    with TemporaryDirectory(prefix="iam-bridge-bench-", dir=MEMORY) as scratch:
        Path(scratch).chmod(0o755)
        yield (
            Path(scratch),
            f"homes in {MEMORY}: a bare mkdir and open take {probe_s * 1e6:.0f} us on the disk just now",
        )


def measure(context: Context) -> list[Row]:
    """Give the rows of `LINES`."""
    why = "homes of other uids need root" if os.geteuid() != 0 else what_is_missing()
    if why:
        return [line.not_measured(why) for line in LINES]
    folder = context.new_folder()
    snapshot = take_snapshot(synthetic_people(PEOPLE), Issuer.parse(ISSUER), datetime.now(UTC))
    with _place_for_homes(folder) as (homes, where):
        runs = [_apply_once(folder / f"apply{n}", homes / f"{n}", snapshot) for n in range(TIMES)]
    peer_s = time_newusers(folder / "newusers")
    # The quickest of the runs: the same work is done in each, and what delays one is the machine.
    files_s = min(one["run"] - one["make_plan"] - one["make_homes"] for one in runs)
    all_s = min(one["run"] - one["make_plan"] for one in runs)
    beside = f"newusers at {ROWS} rows, {peer_s * 1000:.1f} ms a row, so {peer_s * PEOPLE:.0f} s for as many"
    files, with_homes, each = LINES
    plan = f"{beside}; the plan before it takes {median(one['make_plan'] for one in runs):.2f} s"
    return [
        files.measured(files_s, plan, files_s / (peer_s * PEOPLE)),
        with_homes.measured(all_s, f"{beside}; {where}", all_s / (peer_s * PEOPLE)),
        each.measured(
            all_s / PEOPLE * 1000, f"newusers at {ROWS} rows, {peer_s * 1000:.1f} ms", all_s / PEOPLE / peer_s
        ),
    ]
