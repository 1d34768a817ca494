"""One run of the provisioner: pull, plan, apply, report; and the same steps by an admin's word instead of the IAM's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from iam_bridge.collector import no_collection
from iam_bridge.errors import BridgeError, Exit, SourceUnavailable
from iam_bridge.model.change import Change, LeaveGroup, LockAccount, Parked, Plan, count_kinds
from iam_bridge.model.identity import Issuer, MemberSnapshot, Subject
from iam_bridge.model.rules import Settings, SourceRules
from provisioner.apply import Applied, converge, record, tell_services
from provisioner.facts import Site, make_plan

Pull = Callable[[SourceRules], MemberSnapshot]
_NOTHING = Applied((), (), (), ())


@dataclass(frozen=True, slots=True)
class Pulled:
    """What the sources answered, a sentence for each that gave no whole answer, and who gave none at all, and why."""

    snapshots: tuple[MemberSnapshot, ...]
    unavailable: tuple[str, ...]
    silent: tuple[tuple[Issuer, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run decided and did."""

    plan: Plan
    applied: Applied
    unavailable: tuple[str, ...]
    members: int
    started_at: datetime

    @property
    def exit_status(self) -> Exit:
        """Give the status by the worst thing in the report: failed, then refused by a guard, then try again."""
        if self.applied.problems:
            return Exit.FAILED
        if self.plan.parked:
            return Exit.REFUSED
        return Exit.UNAVAILABLE if self.unavailable else Exit.OK


def pull_all(settings: Settings, pull: Pull) -> Pulled:
    """Ask every source; one that gives no answer stops neither the others nor the run."""
    snapshots: list[MemberSnapshot] = []
    unavailable: list[str] = []
    silent: list[tuple[Issuer, str]] = []
    for source in settings.sources:
        try:
            snapshot = pull(source)
        except SourceUnavailable as error:
            unavailable.append(f"{source.issuer}: {error}")
            silent.append((source.issuer, str(error)))
            continue
        snapshots.append(snapshot)
        if not snapshot.complete:
            unavailable.append(f"{source.issuer}: not complete: {snapshot.reason}")
    return Pulled(tuple(snapshots), tuple(unavailable), tuple(silent))


def _held(parked: Sequence[Parked]) -> frozenset[Subject]:
    """Name the people whose removal waits: they keep their last record, and with it their access."""
    removals = (change for group in parked for change in group.changes)
    return frozenset(change.subject for change in removals if isinstance(change, LockAccount | LeaveGroup))


@no_collection()
def run(site: Site, pulled: Pulled, *, now: datetime, by: str, initial: int | None = None) -> RunReport:
    """Bring the accounts in line with the members; a second run right after finds nothing to do and writes nothing.

    Raises BridgeError only where nothing could be decided or recorded at all; everything else is in the report.
    """
    ledger = site.ledger
    world, plan = make_plan(site, pulled.snapshots, now, initial=initial)
    remarks = (*pulled.unavailable, *plan.remarks)
    held = _held(plan.parked)
    for snapshot in pulled.snapshots:
        ledger.write_members(snapshot, now, held=held)
    for issuer, why in pulled.silent:  # an attempt that status and audit tell of
        ledger.write_members(MemberSnapshot(issuer, (), frozenset(), now, complete=False, reason=why), now)
    run_id = ledger.start_run(now, by) if plan else None
    if run_id is None:
        tell_services(site, now)
    else:
        record(site, run_id, plan.changes, world.store, now=now, by=by)
    applied = _converge_and_report(site, now)
    if run_id is None and applied == _NOTHING:
        run_id = ledger.record_check(now, by, remarks=remarks)
    else:
        run_id = run_id if run_id is not None else ledger.start_run(now, by)
        outcome = "failed" if applied.problems else "done"
        ledger.finish_run(
            run_id, now, outcome=outcome, counts=count_kinds(plan.changes), remarks=(*remarks, *applied.problems)
        )
    ledger.write_parked(run_id, plan.parked, now)
    members = sum(len(snapshot.members) for snapshot in pulled.snapshots)
    return RunReport(plan, applied, pulled.unavailable, members, now)


def apply_by_hand(site: Site, changes: Sequence[Change], *, now: datetime, by: str) -> Applied:
    """Apply what an admin decided (lock, unlock, adopt, ban), recorded, told and converged as in a run."""
    if not changes:  # said again after it was interrupted, perhaps
        tell_services(site, now)
        return _converge_and_report(site, now)
    run_id = site.ledger.start_run(now, by)
    record(site, run_id, changes, site.store.read(), now=now, by=by)
    applied = _converge_and_report(site, now)
    outcome = "failed" if applied.problems else "done"
    site.ledger.finish_run(run_id, now, outcome=outcome, counts=count_kinds(changes), remarks=applied.problems)
    return applied


def _converge_and_report(site: Site, now: datetime) -> Applied:
    """Converge, then anchor; what cannot be written is a problem of this run, not its end: the ledger has it all."""
    applied = _NOTHING
    problems: list[str] = []
    try:
        applied = converge(site, now)
    except BridgeError as error:
        problems.append(f"{error}; the next run completes what is recorded")
    try:
        write_anchors(site)
    except BridgeError as error:
        problems.append(str(error))
    return replace(applied, problems=(*applied.problems, *problems)) if problems else applied


def write_anchors(site: Site) -> str:
    """Write where the ledger stands to its anchors, and give that text; nothing while one is ahead: it is a witness."""
    return "" if site.ledger.check_anchors() else site.ledger.write_anchors()
