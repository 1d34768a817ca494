"""Changes become rows and receipts; what contradicts the ledger leaves it as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_bridge.errors import LedgerError
from iam_bridge.model.account import Account, GroupName, LockReason, UserName
from iam_bridge.model.change import Change, CreateGroup
from tests.unit.build import GPU, ISSUER, NOW, OTHER, USERS, account, subject
from tests.unit.ledgers import (
    CAUSE,
    GROUPS,
    adopt,
    commit,
    create,
    join,
    leave,
    lock,
    open_ledger,
    unlock,
    with_accounts,
)

ADA = account()
BOB = account("s-bob", "bob", 20001)


def test_what_was_created_is_read_back_equal(tmp_path: Path) -> None:
    ledger = with_accounts(tmp_path, [ADA, BOB])
    state = ledger.read_state(NOW)
    assert dict(state.accounts) == {ADA.subject: ADA, BOB.subject: BOB}
    assert state.groups == {USERS: 30000, GPU: 30001}
    assert state.names_given == {"ada", "bob", "hpcusers", "gpu"}
    assert state.numbers_given == {20000, 20001, 30000, 30001}
    assert state.homes_due == {ADA.name, BOB.name}
    assert not state.stopped


def test_all_kinds_of_change_alter_what_they_name(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [ADA, BOB]) as ledger:
        commit(ledger, lock(ADA), lock(ADA, LockReason.ADMIN), join(ADA, GPU), leave(BOB, USERS))
        accounts = ledger.read_state(NOW).accounts
        assert accounts[ADA.subject].locks == {LockReason.LEFT, LockReason.ADMIN}
        assert accounts[ADA.subject].groups == {USERS, GPU}
        assert accounts[BOB.subject].groups == frozenset()
        commit(ledger, unlock(ADA))
        assert ledger.read_state(NOW).accounts[ADA.subject].locks == {LockReason.ADMIN}


def test_the_ledger_survives_being_closed(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [ADA]) as ledger:
        first = ledger.ledger_id, ledger.generation()
    with open_ledger(tmp_path) as again:
        assert (again.ledger_id, again.generation()) == first
        assert again.read_state(NOW).accounts == {ADA.subject: ADA}


# what is given once, by what a second change would give
CONFLICTS: dict[str, tuple[Change, str]] = {
    "a name is given to another": (create(account("s-eve", "ada", 20005)), "name ada"),
    "a uid is given to another": (create(account("s-eve", "eve", 20000)), "number 20000"),
    "a uid is the gid of a group": (create(account("s-eve", "eve", 30000)), "number 30000"),
    "a private gid is another's uid": (create(replace(account("s-eve", "eve", 20005), gid=20001)), "number 20001"),
    "a private gid is the gid of a group": (create(replace(account("s-eve", "eve", 20005), gid=30001)), "number 30001"),
    "a subject gets a second uid": (create(account("s-ada", "ada2", 20005)), "has the account ada with uid 20000"),
    "a name is the name of a group": (create(account("s-eve", "gpu", 20005)), "name gpu"),
    "a group has the name of an account": (CreateGroup(GroupName("ada"), 30005, CAUSE), "name ada"),
    "a group has the number of an account": (CreateGroup(GroupName("new"), 20001, CAUSE), "number 20001"),
    "a group has the number of a group": (CreateGroup(GroupName("new"), 30000, CAUSE), "number 30000"),
    "an adopted name is given": (adopt(account("s-eve", "ada", 1005, adopted=True)), "name ada"),
    "an adopted uid is given": (adopt(account("s-eve", "eve", 20001, adopted=True)), "number 20001"),
    "an adopted subject has an account": (adopt(account("s-ada", "ada2", 1005, adopted=True)), "has the account ada"),
    "uid 0": (create(account("s-eve", "eve", 0)), "number 0"),
    "a uid that is -1 to the kernel": (create(account("s-eve", "eve", 2**32 - 1)), "no uid or gid"),
    "a uid past 64 bits": (create(account("s-eve", "eve", 2**70)), "cannot hold"),
    "an unknown unix group": (create(account("s-eve", "eve", 20005, (GroupName("nope"),))), "unix group nope"),
    "a join to an unknown group": (join(ADA, GroupName("nope")), "unix group nope"),
    "a lock that holds already": (lock(BOB, LockReason.ADMIN), "needs no lock"),
    "an unlock of what is open": (unlock(ADA), "needs no unlock"),
    "a join that was done": (join(ADA, USERS), "needs no join"),
    "a leave from where one is not": (leave(ADA, GPU), "needs no leave"),
    "a lock by another's uid": (lock(replace(ADA, uid=20001)), "is not the account"),
    "a lock by another's name": (lock(replace(ADA, name=UserName("bob"))), "is not the account"),
    "a lock by the same sub of another issuer": (lock(replace(ADA, subject=subject("s-ada", OTHER))), "is not the acc"),
    "a lock of nobody": (lock(account("s-eve", "eve", 20009)), "is not the account"),
    "adopted and created at once": (create(account("s-eve", "eve", 20005, adopted=True)), "adopted and created"),
    "text that UTF-8 cannot hold": (create(replace(account("s-eve", "eve", 20005), home="/h/\udce4")), "cannot hold"),
}


@pytest.mark.parametrize("case", CONFLICTS, ids=str)
def test_a_contradiction_is_named_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    change, words = CONFLICTS[case]
    bob = replace(BOB, locks=frozenset({LockReason.ADMIN}))
    with with_accounts(tmp_path, [ADA, bob]) as ledger:
        run_id = ledger.start_run(NOW, "x")
        before = ledger.read_state(NOW), ledger.history(name="ada"), ledger.generation()
        good = create(account("s-carol", "carol", 20004))
        with pytest.raises(LedgerError, match=words):
            ledger.commit(run_id, [good, change], now=NOW, saved_expiry={}, by="run")
        assert (ledger.read_state(NOW), ledger.history(name="ada"), ledger.generation()) == before
        assert ledger.history(name="carol") == ()
        assert ledger.verify() == ()


def test_two_creations_of_one_commit_cannot_share_anything(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        commit(ledger, *GROUPS)
        for second in (account("s-bob", "ada", 20001), account("s-bob", "bob", 20000), account("s-ada", "bob", 20001)):
            with pytest.raises(LedgerError, match=r"name ada|number 20000|two accounts"):
                commit(ledger, create(ADA), create(second))
        assert not ledger.read_state(NOW).accounts


def test_a_tombstone_keeps_name_numbers_and_subject_taken(tmp_path: Path) -> None:
    ledger = with_accounts(tmp_path, [ADA])
    with ledger.reading() as db:
        pass
    db.execute("UPDATE mappings SET until = since")
    state = ledger.read_state(NOW)
    assert not state.accounts
    assert "ada" in state.names_given
    assert 20000 in state.numbers_given
    for again in (account("s-eve", "ada", 20005), account("s-eve", "eve", 20000), account("s-ada", "new", 20005)):
        with pytest.raises(LedgerError, match=r"given before|has the account"):
            commit(ledger, create(again))


def test_the_same_sub_of_another_issuer_is_another_person(tmp_path: Path) -> None:
    twin = account("s-ada", "ada2", 20001, issuer=OTHER)
    with with_accounts(tmp_path, [ADA, twin]) as ledger:
        assert set(ledger.read_state(NOW).accounts) == {subject("s-ada", ISSUER), subject("s-ada", OTHER)}


def test_adopted_people_may_share_a_primary_group_that_is_later_a_mapped_group(tmp_path: Path) -> None:
    staff = GroupName("staff50")
    people = [
        replace(account(f"s-{n}", n, uid, (), adopted=True), gid=5000) for n, uid in (("kim", 1001), ("lee", 1002))
    ]
    with open_ledger(tmp_path) as ledger:
        commit(ledger, *map(adopt, people))
        commit(ledger, CreateGroup(staff, 5000, CAUSE))
        state = ledger.read_state(NOW)
        assert state.numbers_given == {1001, 1002, 5000}
        assert not state.homes_due, "an adopted account has its home"
        with pytest.raises(LedgerError, match="number 5000"):
            commit(ledger, create(account("s-eve", "eve", 5000, ())))
        assert ledger.verify() == ()


def test_a_pair_of_different_numbers_takes_both(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        commit(ledger, create(replace(account(groups=()), gid=40000)))
        assert ledger.read_state(NOW).numbers_given == {20000, 40000}


def test_the_first_saved_expiry_is_kept_while_a_lock_holds(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [ADA]) as ledger:
        commit(ledger, lock(ADA), saved={ADA.name: "20000"})
        commit(ledger, lock(ADA, LockReason.ADMIN), saved={ADA.name: "1"})
        ledger.clear_saved_expiry([ADA.name])
        assert ledger.read_state(NOW).saved_expiry == {ADA.name: "20000"}, "a locked account keeps what stood before"
        commit(ledger, unlock(ADA), unlock(ADA, LockReason.ADMIN))
        assert ledger.read_state(NOW).saved_expiry == {ADA.name: "20000"}, "until the store gave it back"
        ledger.clear_saved_expiry([ADA.name])
        assert ledger.read_state(NOW).saved_expiry == {}
        commit(ledger, lock(ADA), saved={ADA.name: ""})
        assert ledger.read_state(NOW).saved_expiry == {ADA.name: ""}, "an empty field is a value too"


def test_an_account_that_begins_locked_keeps_its_expiry_too(tmp_path: Path) -> None:
    kim = account("s-kim", "kim", 1001, (), (LockReason.BANNED,), adopted=True)
    with open_ledger(tmp_path) as ledger:
        commit(ledger, adopt(kim), saved={kim.name: "19999"})
        assert ledger.read_state(NOW).saved_expiry == {kim.name: "19999"}


def test_homes_are_due_until_they_are_made(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [ADA, BOB]) as ledger:
        ledger.homes_made([ADA.name], NOW)
        assert ledger.read_state(NOW).homes_due == {BOB.name}


def test_limits_count_people_of_the_last_24_hours(tmp_path: Path) -> None:
    ledger = with_accounts(tmp_path, [ADA, BOB])
    later = NOW + timedelta(hours=1)
    commit(ledger, lock(ADA), leave(ADA, USERS), lock(BOB, LockReason.ADMIN), now=later)
    state = ledger.read_state(later)
    assert (state.recent_creates, state.recent_removals) == (2, 1), "an admin's lock does not count, a person once"
    commit(ledger, unlock(ADA), now=later)
    commit(ledger, lock(ADA, LockReason.SUSPENDED), lock(BOB, LockReason.BANNED), now=later)
    assert ledger.read_state(later).recent_removals == 1
    state = ledger.read_state(NOW + timedelta(hours=24))
    assert (state.recent_creates, state.recent_removals) == (0, 1)
    assert ledger.read_state(later + timedelta(hours=24)).recent_removals == 0


def test_a_commit_of_nothing_writes_nothing(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [ADA]) as ledger:
        before = ledger.generation(), ledger.history(name="ada")
        ledger.commit(1, [], now=NOW, saved_expiry={}, by="run")
        assert (ledger.generation(), ledger.history(name="ada")) == before


def test_a_commit_of_no_run_is_refused(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger, pytest.raises(LedgerError, match="no run 99"):
        ledger.commit(99, [create(account(groups=()))], now=NOW, saved_expiry={}, by="run")


PEOPLE = [account(f"s-{n}", name, 20000 + uid, ()) for n in range(4) for name in "abcd" for uid in range(4)]


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4), max_size=8))
def test_no_sequence_of_commits_gives_anything_twice(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Account]]
) -> None:
    given_to: dict[object, object] = {}
    with open_ledger(tmp_path_factory.mktemp("ledger")) as ledger:
        for batch in batches:
            wanted = dict(given_to)
            clash = False
            for person in batch:
                for thing in (("name", person.name), ("uid", person.uid), ("who", person.subject)):
                    clash = clash or thing in wanted
                    wanted[thing] = person
            if clash:
                with pytest.raises(LedgerError):
                    commit(ledger, *map(create, batch))
            else:
                commit(ledger, *map(create, batch))
                given_to = wanted
        assert set(ledger.read_state(NOW).accounts.values()) == set(given_to.values())
        assert ledger.verify() == ()


def test_a_generation_never_stands_still_when_something_changed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        seen = [ledger.generation()]
        for changes in ((GROUPS[0],), (create(ADA),), (lock(ADA),), (unlock(ADA),)):
            commit(ledger, *changes)
            seen.append(ledger.generation())
        assert seen == sorted(set(seen))


def test_a_closed_ledger_says_so_in_our_own_error(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        pass
    with pytest.raises(LedgerError, match=r"cannot be used|damaged"):
        ledger.generation()
