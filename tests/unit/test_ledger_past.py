"""Who was who, what happened to them, in which run and why."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from iam_bridge.errors import InvalidValue, LedgerError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.account import LockReason
from tests.unit.build import GPU, NOW, account, member, snapshot
from tests.unit.ledgers import adopt, commit, create, join, lock, unlock, with_accounts

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADA, BOB = account(), account("s-bob", "bob", 20001)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return with_accounts(tmp_path, [ADA])


def test_who_was_a_number_or_a_name_at_a_date(ledger: Ledger) -> None:
    commit(ledger, lock(ADA), now=NOW + HOUR)
    for who in (ledger.who(NOW + DAY, uid=20000), ledger.who(NOW + DAY, name="ada"), ledger.who(NOW, uid=20000)):
        assert who is not None
        assert (who.subject, who.name, who.uid, who.gid, who.since, who.until) == (
            ADA.subject, "ada", 20000, 20000, NOW, None,
        )  # fmt: skip
        assert who.locks == {LockReason.LEFT}


def test_before_it_was_given_a_number_was_nobodys(ledger: Ledger) -> None:
    assert ledger.who(NOW - HOUR, uid=20000) is None
    assert ledger.who(NOW, uid=20001) is None
    assert ledger.who(NOW, name="ADA") is None


def test_after_a_mapping_ended_its_holder_is_known_for_the_time_before(ledger: Ledger) -> None:
    with ledger.reading() as db:
        pass
    db.execute("UPDATE mappings SET until = '2026-05-03T13:00:00.000000Z'")
    assert ledger.who(NOW + HOUR - timedelta(microseconds=1), uid=20000) is not None
    assert ledger.who(NOW + HOUR, uid=20000) is None


def test_who_is_asked_by_one_thing(ledger: Ledger) -> None:
    for question in ({}, {"uid": 1, "name": "x"}):
        with pytest.raises(InvalidValue):
            ledger.who(NOW, **question)  # type: ignore[arg-type]


def test_a_history_is_found_by_any_key_and_told_in_order(ledger: Ledger) -> None:
    commit(ledger, create(BOB))
    commit(ledger, lock(ADA), now=NOW + HOUR, by="admin root")
    ledger.add_ban(NOW + HOUR, "admin root", name="ada", reason="key lost")
    commit(ledger, join(ADA, GPU), unlock(ADA), now=NOW + DAY)
    expected = [("create", "run"), ("lock", "admin root"), ("ban", "admin root"), ("join", "run"), ("unlock", "run")]
    for key in ({"subject": ADA.subject}, {"name": "ada"}, {"uid": 20000}):
        history = ledger.history(**key)
        assert [(receipt.kind, receipt.by) for receipt in history] == expected
    assert [receipt.kind for receipt in ledger.history(uid=20000, limit=2)] == ["join", "unlock"]
    lock_receipt = ledger.history(name="ada")[1]
    assert (lock_receipt.at, lock_receipt.subject, lock_receipt.uid) == (NOW + HOUR, str(ADA.subject), 20000)
    assert (lock_receipt.rule, lock_receipt.record) == ("members.groups hpc/users", "userName=ada")
    assert lock_receipt.detail == "left"


def test_nobody_has_no_history(ledger: Ledger) -> None:
    assert ledger.history(name="nobody") == ledger.history(uid=0) == ledger.history() == ()


def test_why_gathers_record_run_and_receipts(ledger: Ledger) -> None:
    ledger.write_members(snapshot(member()), NOW)
    ban = ledger.add_ban(NOW, "admin root", uid=20000)
    ledger.lift_ban(ban.ban_id, NOW + HOUR, "admin root")
    why = ledger.why("ada")
    assert why is not None
    assert why.account == ADA
    assert why.member is not None
    assert why.member.username == "ada"
    assert why.source is not None
    assert why.source.taken_at == NOW
    assert why.created is not None
    assert (why.created.kind, why.created.detail) == ("create", "gid=20000 groups=hpcusers locks= home=/home/ada")
    assert why.run is not None
    assert why.run.command == "provision run"
    assert [receipt.kind for receipt in why.latest] == ["lift", "ban", "create"]
    assert [past.until for past in why.bans] == [NOW + HOUR]


def test_why_of_an_adopted_account_shows_the_proof(ledger: Ledger) -> None:
    commit(ledger, adopt(account("s-kim", "kim", 1001, (), adopted=True)))
    why = ledger.why("kim")
    assert why is not None
    assert why.created is not None
    assert why.created.detail.endswith("proof=same person as in the site's list")
    assert why.member is None


def test_there_is_no_why_for_a_name_that_is_not_ours(ledger: Ledger) -> None:
    assert ledger.why("root") is None


def test_a_run_is_one_row_that_ends_once(ledger: Ledger) -> None:
    run_id = ledger.start_run(NOW, "provision run")
    assert ledger.runs(1)[0].finished_at is None, "an interrupted run stays so"
    ledger.finish_run(run_id, NOW + HOUR, outcome="done", counts={"create": 2}, remarks=["a remark"])
    run = ledger.runs(1)[0]
    assert (run.run_id, run.started_at, run.finished_at) == (run_id, NOW, NOW + HOUR)
    assert (run.outcome, run.counts, run.remarks) == ("done", {"create": 2}, ("a remark",))
    for ended in (run_id, run_id + 1):
        with pytest.raises(LedgerError, match="no run"):
            ledger.finish_run(ended, NOW, outcome="done", counts={})


def test_a_run_with_nothing_to_do_writes_one_row_and_nothing_else(ledger: Ledger) -> None:
    with ledger.reading() as db:
        pass
    before = db.total_changes, ledger.generation(), ledger.history(name="ada")
    ledger.record_check(NOW + HOUR, "provision run", remarks=["nothing new"])
    assert (db.total_changes, ledger.generation(), ledger.history(name="ada")) == (before[0] + 1, *before[1:])
    run = ledger.runs()[0]
    assert (run.started_at, run.finished_at, run.outcome) == (NOW + HOUR, NOW + HOUR, "nothing-to-do")
