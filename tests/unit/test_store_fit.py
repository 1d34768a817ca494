"""The decision what to change in the account files, without a disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.model.account import Account, GroupName, LockReason
from iam_bridge.model.state import WantedAccount
from provisioner.stores.fit import Fit, fit_tables
from provisioner.stores.members import merge_members
from provisioner.stores.rows import parse_table
from tests.contract.people import GPU, GROUP, account, rules_for, wanted

ALICE = {
    "passwd": "alice:x:20000:20000:iam-bridge-20000:/home/alice:/bin/bash\n",
    "group": "alice:x:20000:\nhpcusers:x:50000:alice\n",
    "shadow": "alice:*:20000:0:99999:7:::\n",
    "gshadow": "alice:!::\nhpcusers:!::alice\n",
}


def fit(*people: Account | WantedAccount, groups: dict[GroupName, int] | None = None, **files: str) -> Fit:
    tables = {kind: parse_table(kind, files.get(kind, text).encode()) for kind, text in ALICE.items()}
    rules = rules_for("/etc")  # type: ignore[arg-type]
    return fit_tables(tables, wanted(*people, groups=groups or {GROUP: 50000}), rules, 20000)


def after(fitted: Fit, kind: str) -> str:
    return fitted.drafts[kind].render().decode()


def test_what_fits_is_left() -> None:
    fitted = fit(account(groups=[GROUP]))
    assert (fitted.written, fitted.problems) == ((), ())
    assert all(after(fitted, kind) == text for kind, text in ALICE.items())


@pytest.mark.parametrize("kind", ["group", "gshadow"])
def test_a_lock_is_written_though_a_group_line_cannot_be_read(kind: str) -> None:
    fitted = fit(account(groups=[GROUP], locks=[LockReason.LEFT]), **{kind: ALICE[kind].replace("alice:", "alice", 1)})
    assert after(fitted, "shadow") == "alice:*:20000:0:99999:7::1:\n"


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("passwd", "alice:x:20000\n", "alice: the line of that name in passwd cannot be read: correct it"),
        ("shadow", "alice:*\n", "alice: the line of that name in shadow cannot be read: correct it"),
        ("group", "alice:x:20000\n", "alice: the line of that name in group cannot be read: correct it"),
        ("gshadow", "alice:!:\n", "alice: the line of that name in gshadow cannot be read: correct it"),
        ("passwd", "alice:x:x:20000::/:/bin/sh\n", "alice: passwd gives uid 'x', the ledger 20000: left alone"),
        ("passwd", " alice:x:0:0::/:/bin/sh\n" + ALICE["passwd"], "in passwd cannot be read"),
        ("group", "alice:x:4:\n", "alice: a group of that name has gid '4', the ledger says 20000: left alone"),
        ("group", "bob:x:20000:\n", "alice: gid 20000 belongs to the group 'bob': left alone"),
        ("group", ALICE["group"].replace("50000:alice", "50001:"), "group hpcusers: it has gid '50001', the ledger says"),
        ("group", ALICE["group"].replace(":50000:alice", ""), "group hpcusers: the line of that name cannot be read"),
        ("gshadow", "alice:!::\nhpcusers\n", "group hpcusers: the line of that name cannot be read"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_and_left(kind: str, text: str, problem: str) -> None:
    fitted = fit(account(groups=[GROUP], locks=[LockReason.LEFT]), **{kind: text})
    assert any(problem in told for told in fitted.problems), fitted.problems
    assert after(fitted, kind).startswith(text)


def test_an_adopted_account_without_shadow_is_told_and_still_joins_its_groups() -> None:
    fitted = fit(account(adopted=True, groups=[GPU]), groups={GROUP: 50000, GPU: 50001}, shadow="")
    assert fitted.problems == ("alice: adopted, but shadow has no row of that name: a lock has nowhere to stand",)
    assert after(fitted, "shadow") == ""
    assert "gpu:x:50001:alice\n" in after(fitted, "group")
    assert "hpcusers:x:50000:\n" in after(fitted, "group")


def test_one_number_is_never_given_to_two_groups() -> None:
    fitted = fit(account(groups=[GPU]), groups={GPU: 50007, GroupName("other"): 50007})
    assert fitted.problems == ("group other: gid 50007 belongs to the group 'gpu': left alone",)
    fitted = fit(account(), account("bob", 20001), groups={GPU: 20001})
    assert fitted.problems == ("group gpu: gid 20001 belongs to the group 'bob': left alone",)


def test_two_accounts_of_one_number_are_not_both_made() -> None:
    fitted = fit(account("ann", 20005), account("ben", 20005))
    assert fitted.problems == ("ben: uid 20005 belongs to 'ann' in passwd: left alone; find out whose it is",)
    assert "ben:" not in after(fitted, "passwd")


def test_members_of_a_group_are_completed_in_gshadow() -> None:
    fitted = fit(account(groups=[GROUP]), gshadow="alice:!::\n")
    assert after(fitted, "gshadow") == "alice:!::\nhpcusers:!::alice\n"
    assert fitted.written == ("hpcusers",)


def test_a_group_that_the_site_keeps_out_of_gshadow_stays_out() -> None:
    fitted = fit(
        account(groups=[GROUP]), group=ALICE["group"].replace("hpcusers:x", "hpcusers:!"), gshadow="alice:!::\n"
    )
    assert fitted.written == ()


def test_an_iam_group_outside_the_table_is_never_joined() -> None:
    fitted = fit(account(groups=[GROUP, GroupName("docker")]), group=ALICE["group"] + "docker:x:998:\n")
    assert fitted.written == ()


def test_a_row_whose_uid_differs_keeps_its_lock_and_groups() -> None:
    text = ALICE["passwd"].replace(":20000:20000:", ":1234:1234:")
    fitted = fit(account(locks=[LockReason.LEFT]), passwd=text)
    assert fitted.written == ()
    assert after(fitted, "shadow") == ALICE["shadow"]
    assert after(fitted, "group") == ALICE["group"]


NAMES = st.sampled_from(["ann", "ben", "cat", "root", "", "x"])


@pytest.mark.parametrize(
    ("text", "due", "then"),
    [
        ("", ["ann"], "ann"),
        ("root,ann,x", ["ann"], "root,ann,x"),
        ("root,ann,x", [], "root,x"),
        ("x", ["ben", "ann"], "x,ann,ben"),
        ("ann,,x,ann", [], ",x"),
        ("x,x", [], "x,x"),
    ],
)
def test_member_lists(text: str, due: list[str], then: str) -> None:
    assert merge_members(text, {"ann", "ben"}, set(due)) == then


@given(st.lists(NAMES), st.sets(st.sampled_from(["ann", "ben", "cat"])))
def test_member_lists_keep_others_in_order_and_are_stable(names: list[str], due: set[str]) -> None:
    ours = {"ann", "ben", "cat"}
    text = ",".join(names)
    once = merge_members(text, ours, due)
    members = once.split(",") if once else []
    assert [name for name in members if name and name not in ours] == [
        n for n in (text.split(",") if text else []) if n and n not in ours
    ]
    assert {name for name in members if name in ours} == due
    assert merge_members(once, ours, due) == once
