"""What a guard held back, and an admin's word on it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from iam_bridge.errors import Exit, RefusedByGuard
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.change import Parked, key_of
from tests.unit.build import NOW, USERS, account
from tests.unit.ledgers import commit, create, leave, lock, with_accounts

HOUR = timedelta(hours=1)
ADA, BOB, EVE = account(), account("s-bob", "bob", 20001), account("s-eve", "eve", 20002)
LEAVERS = Parked((lock(ADA), leave(ADA, USERS), lock(BOB)), "2 people would lose something, and 1 may")
JOINERS = Parked((create(EVE),), "1 account would be made, and 0 may")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return with_accounts(tmp_path, [ADA, BOB])


def test_what_waits_is_shown_with_its_cause(ledger: Ledger) -> None:
    run_id = ledger.start_run(NOW, "provision run")
    ledger.write_parked(run_id, (LEAVERS, JOINERS), NOW)
    rows = {row.digest: row for row in ledger.parked()}
    assert set(rows) == {LEAVERS.digest, JOINERS.digest}
    row = rows[LEAVERS.digest]
    assert (row.why, row.since, row.people) == (LEAVERS.why, NOW, 2)
    assert [(line.kind, line.name, line.uid, line.detail) for line in row.lines] == [
        ("lock", "ada", 20000, "left"),
        ("leave", "ada", 20000, "hpcusers"),
        ("lock", "bob", 20001, "left"),
    ]
    assert row.lines[0].rule == "members.groups hpc/users"


def test_the_same_list_keeps_its_date_and_writes_nothing(ledger: Ledger) -> None:
    run_id = ledger.start_run(NOW, "x")
    ledger.write_parked(run_id, (LEAVERS,), NOW)
    with ledger.reading() as db:
        pass
    before = db.total_changes
    ledger.write_parked(run_id, (LEAVERS,), NOW + HOUR)
    ledger.write_parked(run_id, (Parked(LEAVERS.changes[::-1], LEAVERS.why),), NOW + HOUR)
    assert db.total_changes == before
    ledger.write_parked(run_id, (Parked(LEAVERS.changes, "3 people now"), JOINERS), NOW + HOUR)
    assert [(row.why, row.since) for row in ledger.parked()] == [("3 people now", NOW), (JOINERS.why, NOW + HOUR)]
    ledger.write_parked(run_id, (), NOW + HOUR)
    assert ledger.parked() == ()


def test_an_approval_lets_the_changes_through_once(ledger: Ledger) -> None:
    ledger.write_parked(ledger.start_run(NOW, "x"), (LEAVERS,), NOW)
    assert ledger.approve(LEAVERS.digest, NOW, "admin root") == 3
    keys = {key_of(change) for change in LEAVERS.changes}
    assert ledger.read_state(NOW + HOUR).approved == keys
    commit(ledger, LEAVERS.changes[0], now=NOW + HOUR)
    state = ledger.read_state(NOW + HOUR)
    assert state.approved == keys - {key_of(LEAVERS.changes[0])}
    assert state.recent_removals == 0, "what an admin approved does not count against the limits"


def test_an_approval_is_over_after_24_hours(ledger: Ledger) -> None:
    ledger.write_parked(ledger.start_run(NOW, "x"), (LEAVERS,), NOW)
    ledger.approve(LEAVERS.digest, NOW, "admin root")
    assert ledger.read_state(NOW + timedelta(hours=23)).approved
    assert not ledger.read_state(NOW + timedelta(hours=24)).approved
    commit(ledger, LEAVERS.changes[0], now=NOW + timedelta(hours=24))
    assert ledger.read_state(NOW + timedelta(hours=24)).recent_removals == 1


def test_an_approved_creation_is_known_by_its_subject(ledger: Ledger) -> None:
    ledger.write_parked(ledger.start_run(NOW, "x"), (JOINERS,), NOW)
    ledger.approve(JOINERS.digest, NOW, "admin root")
    before = ledger.read_state(NOW).recent_creates
    commit(ledger, create(account("s-eve", "eve2", 20009)))
    state = ledger.read_state(NOW)
    assert state.recent_creates == before
    assert not state.approved


def test_an_approval_is_recorded_with_the_admin(ledger: Ledger) -> None:
    ledger.write_parked(ledger.start_run(NOW, "x"), (LEAVERS,), NOW)
    ledger.approve(LEAVERS.digest, NOW, "admin root")
    with ledger.reading() as db:
        kind, by, detail = db.execute("SELECT kind, by, detail FROM receipts ORDER BY seq DESC LIMIT 1").fetchone()
    assert (kind, by) == ("approve", "admin root")
    assert LEAVERS.digest in detail
    assert ledger.verify() == ()


@pytest.mark.parametrize("digest", ["", "000000000000", LEAVERS.digest[:-1], LEAVERS.digest.upper() + "x", "' OR 1=1"])
def test_a_digest_that_does_not_wait_is_refused_and_those_that_do_are_named(ledger: Ledger, digest: str) -> None:
    ledger.write_parked(ledger.start_run(NOW, "x"), (LEAVERS,), NOW)
    with pytest.raises(RefusedByGuard, match=f"waiting now: {LEAVERS.digest}") as caught:
        ledger.approve(digest, NOW, "admin root")
    assert caught.value.exit_status is Exit.REFUSED
    assert not ledger.read_state(NOW).approved


def test_with_nothing_parked_that_is_what_it_says(ledger: Ledger) -> None:
    with pytest.raises(RefusedByGuard, match="nothing waits now"):
        ledger.approve(LEAVERS.digest, NOW, "admin root")


def test_a_list_that_changed_must_be_approved_anew(ledger: Ledger) -> None:
    run_id = ledger.start_run(NOW, "x")
    ledger.write_parked(run_id, (LEAVERS,), NOW)
    ledger.write_parked(run_id, (Parked(LEAVERS.changes[:2], "1 person"),), NOW)
    with pytest.raises(RefusedByGuard):
        ledger.approve(LEAVERS.digest, NOW, "admin root")
