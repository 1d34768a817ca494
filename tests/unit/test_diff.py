"""What is due: members against the ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.model.account import GroupName, IdRange, LockReason
from iam_bridge.model.change import CreateAccount, CreateGroup, count_kinds, kind_of
from iam_bridge.model.identity import MemberSnapshot
from iam_bridge.model.rules import GroupRule
from iam_bridge.model.state import HostNames, StoreGroup, StoreSnapshot
from iam_bridge.policy.diff import Draft, World, diff
from iam_bridge.policy.mapping import record_of
from tests.unit.build import (
    EMPTY_HOST,
    EMPTY_STORE,
    GPU,
    NOW,
    OTHER,
    RULES,
    USERS,
    account,
    account_rules,
    ledger,
    member,
    snapshot,
    source,
    subject,
)  # fmt: skip


def world(*snapshots: MemberSnapshot, **changes: Any) -> World:
    values: dict[str, Any] = {
        "snapshots": snapshots, "sources": (source(),), "ids": account_rules(), "ledger": ledger(), "store": EMPTY_STORE,
        "host": EMPTY_HOST, "reserved": frozenset({"root", "sudo", "shadow", "disk", "docker"}), "banned": frozenset(),
    }  # fmt: skip
    return World(**(values | changes))


def due(draft: Draft) -> list[str]:
    """Write a draft's changes as short words: `lock ada left`, `join ada gpu`."""
    words = []
    for change in draft.changes:
        who = change.group if isinstance(change, CreateGroup) else getattr(change, "name", None) or change.account.name  # type: ignore[union-attr]
        what = getattr(change, "reason", None) or (
            getattr(change, "group", "") if not isinstance(change, CreateGroup) else ""
        )
        words.append(f"{kind_of(change)} {who} {getattr(what, 'value', what)}".strip())
    return words


def test_a_first_run_makes_groups_and_accounts() -> None:
    draft = diff(world(snapshot(member(), member("s-g", "grace", ("hpc/users", "hpc/gpu")))))
    assert due(draft) == ["create-group hpcusers", "create-group gpu", "create ada", "create grace"]
    made = {c.account.name.text: c.account for c in draft.changes if isinstance(c, CreateAccount)}
    assert made["ada"].groups == {USERS}
    assert made["grace"].groups == {USERS, GPU}
    assert made["ada"].uid == made["ada"].gid
    assert made["ada"].home == "/home/ada"
    assert made["ada"].gecos == f"iam-bridge-{made['ada'].uid}"
    numbers = [c.gid for c in draft.changes if isinstance(c, CreateGroup)] + [a.uid for a in made.values()]
    assert sorted(numbers) == [20000, 20001, 20002, 20003]


def test_nothing_is_due_when_all_is_as_it_should_be() -> None:
    assert due(diff(world(snapshot(member()), ledger=ledger(account())))) == []


@pytest.mark.parametrize(
    ("sentence", "people", "standing", "expected"),
    [
        ("leaves the group", [member(groups=("hpc",))], account(), ["lock ada left"]),
        ("is gone from the IAM", [member("s-x", "xenia", ())], account(), ["lock ada left"]),
        ("is suspended", [member(active=False)], account(), ["lock ada suspended"]),
        (
            "is suspended and left",
            [member(groups=(), active=False)],
            account(),
            ["lock ada left", "lock ada suspended"],
        ),
        ("comes back", [member()], account(locks=(LockReason.LEFT,)), ["unlock ada left"]),
        ("is restored", [member()], account(locks=(LockReason.SUSPENDED,)), ["unlock ada suspended"]),
        (
            "comes back to an admin's lock",
            [member()],
            account(locks=(LockReason.LEFT, LockReason.ADMIN)),
            ["unlock ada left"],
        ),
        ("stays away", [member("s-x", "x", ())], account(locks=(LockReason.LEFT,)), []),
        ("joins a second group", [member(groups=("hpc/users", "hpc/gpu"))], account(), ["join ada gpu"]),
        ("leaves the second group", [member()], account(groups=(USERS, GPU)), ["leave ada gpu"]),
        ("is only in a group that grants nothing", [member(groups=("hpc/gpu",))], account(), ["lock ada left"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_somebody(sentence: str, people: list[Any], standing: Any, expected: list[str]) -> None:
    assert due(diff(world(snapshot(*people), ledger=ledger(standing)))) == expected


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("an incomplete answer", snapshot(member("s-x", "xenia", ()), complete=False)),
        ("an incomplete answer that shows a suspension", snapshot(member(active=False), complete=False)),
        ("an incomplete answer without the group", snapshot(member(groups=("hpc",)), complete=False)),
        ("an empty answer that claims to be complete", snapshot()),
        ("an answer in which a mapped group is missing", snapshot(member("s-x", "x", ()), groups=("hpc/users",))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_whole_removes_nothing(sentence: str, answer: MemberSnapshot) -> None:
    draft = diff(world(answer, ledger=ledger(account(groups=(USERS, GPU)))))
    assert due(draft) == []


def test_what_is_not_whole_opens_nothing() -> None:
    answer = snapshot(member(), complete=False)
    assert due(diff(world(answer, ledger=ledger(account(locks=(LockReason.LEFT,)))))) == []


def test_what_is_not_whole_still_adds() -> None:
    answer = snapshot(member(groups=("hpc/users", "hpc/gpu")), member("s-g", "grace"), complete=False)
    draft = diff(world(answer, ledger=ledger(account())))
    assert due(draft) == ["create grace", "join ada gpu"]
    assert any("not complete" in remark for remark in draft.remarks)


def test_a_source_without_an_answer_changes_nothing() -> None:
    assert due(diff(world(ledger=ledger(account())))) == []


def test_accounts_of_an_issuer_without_a_source_stay() -> None:
    draft = diff(world(snapshot(member()), ledger=ledger(account("s-o", "otto", 20005, issuer=OTHER))))
    assert due(draft) == ["create ada"]
    assert any(str(OTHER) in remark for remark in draft.remarks)


def test_of_two_who_want_a_name_the_one_created_first_gets_it() -> None:
    first = member("s-z", "kim", created=NOW - timedelta(days=2))
    second = member("s-a", "kim", created=NOW - timedelta(days=1))
    for order in ((first, second), (second, first)):
        made = {
            c.account.subject.sub: c.account.name.text
            for c in diff(world(snapshot(*order))).changes
            if isinstance(c, CreateAccount)
        }
        assert made["s-z"] == "kim"
        assert made["s-a"].startswith("u2")


def test_of_two_created_at_once_the_lower_id_gets_it() -> None:
    made = {
        c.account.subject.sub: c.account.name.text
        for c in diff(world(snapshot(member("s-b", "kim"), member("s-a", "kim")))).changes
        if isinstance(c, CreateAccount)
    }
    assert made["s-a"] == "kim"


@pytest.mark.parametrize(
    ("sentence", "name", "changes"),
    [
        ("the system's", "root", {"host": HostNames({"root": "root is reserved"}, frozenset())}),
        ("a name given before", "old", {"ledger": ledger(names_given=frozenset({"old"}))}),
        ("a mapped group's", "hpcusers", {}),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_names_that_are_never_given(sentence: str, name: str, changes: dict[str, Any]) -> None:
    draft = diff(world(snapshot(member(username=name)), **changes))
    (made,) = [c.account for c in draft.changes if isinstance(c, CreateAccount)]
    assert made.name.text == f"u{made.uid}"


def test_a_member_who_can_have_no_name_is_refused_and_shown() -> None:
    busy = HostNames({"root": "root is reserved", "u20002": "u20002 has a leftover home"}, frozenset())
    draft = diff(world(snapshot(member(username="root")), host=busy))
    assert [kind_of(c) for c in draft.changes] == ["create-group", "create-group"]
    assert draft.refused[0].why == "u20002 has a leftover home; and root is reserved"


def test_a_suspended_newcomer_is_refused_and_shown() -> None:
    draft = diff(world(snapshot(member(active=False), member("s-n", "nobody-special", (), active=False))))
    assert [(r.username, r.why) for r in draft.refused] == [("ada", "suspended at the IAM")]


def test_numbers_in_use_by_others_are_passed_over() -> None:
    draft = diff(world(snapshot(member()), host=HostNames({}, frozenset({20000, 20001, 20002}))))
    assert {c.account.uid for c in draft.changes if isinstance(c, CreateAccount)} == {20005}


def test_a_ledger_that_is_stopped_gives_no_number() -> None:
    stopped = ledger(stopped="the store is ahead of the ledger; run: iam-bridge ledger reconcile")
    draft = diff(world(snapshot(member()), ledger=stopped))
    assert due(draft) == []
    assert "reconcile" in draft.refused[0].why
    assert any("no number is given" in remark for remark in draft.remarks)


def test_a_range_that_is_used_up_is_said() -> None:
    tiny = account_rules(uids=IdRange(20000, 20002), gids=IdRange(20000, 20002))
    draft = diff(world(snapshot(member(), member("s-g", "grace")), ids=tiny))
    assert "used up" in draft.refused[0].why
    full = account_rules(uids=IdRange(20000, 20000), gids=IdRange(20000, 20000))
    assert any("gid range is used up" in remark for remark in diff(world(snapshot(member()), ids=full)).remarks)


@pytest.mark.parametrize(
    ("sentence", "rule", "store", "host", "said"),
    [
        ("exists already", GroupRule("hpc/users", USERS, True, False), {"hpcusers": 3000}, {}, "exists already"),
        ("is to be adopted and is not there", GroupRule("hpc/users", USERS, True, True), {}, {}, "not in the store"),
        ("is a system group by number", GroupRule("hpc/users", USERS, True, True), {"hpcusers": 999}, {}, "below 1000"),
        ("is known to NSS only", GroupRule("hpc/users", USERS, True, False), {}, {"hpcusers": "in NSS"}, "in NSS"),
        (
            "is called sudo",
            GroupRule("hpc/users", GroupName.parse("sudo"), True, True),
            {"sudo": 5000},
            {},
            "never joined",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_unix_group_that(
    sentence: str, rule: GroupRule, store: dict[str, int], host: dict[str, str], said: str
) -> None:
    groups = {name: StoreGroup(name, gid, frozenset()) for name, gid in store.items()}
    draft = diff(
        world(
            snapshot(member()),
            sources=(source((rule,)),),
            store=StoreSnapshot({}, groups),
            host=HostNames(host, frozenset()),
        )
    )
    (made,) = draft.changes
    assert isinstance(made, CreateAccount)
    assert made.account.groups == frozenset()
    assert any(said in remark for remark in draft.remarks)


def test_a_local_group_is_adopted_when_the_table_says_so() -> None:
    rule = GroupRule("hpc/users", USERS, grants_account=True, adopt=True)
    store = StoreSnapshot({}, {"hpcusers": StoreGroup("hpcusers", 3000, frozenset({"local"}))})
    draft = diff(world(snapshot(member()), sources=(source((rule,)),), store=store))
    group, made = draft.changes
    assert isinstance(group, CreateGroup)
    assert isinstance(made, CreateAccount)
    assert group.gid == 3000
    assert made.account.groups == {USERS}


def test_a_mapped_group_is_not_made_over_an_accounts_name() -> None:
    draft = diff(world(snapshot(member()), ledger=ledger(names_given=frozenset({"gpu"}))))
    assert "create-group gpu" not in due(draft)
    assert any("an account of this ledger" in remark for remark in draft.remarks)


def test_two_tables_may_name_one_unix_group() -> None:
    here, there = source(RULES), source((GroupRule("x", USERS, True, False),), OTHER)
    answers = (snapshot(member()), snapshot(member("s-o", "otto", ("x",), issuer=OTHER), issuer=OTHER, groups=("x",)))
    draft = diff(world(*answers, sources=(here, there)))
    assert count_kinds(draft.changes) == {"create-group": 2, "create": 2}


def test_a_ban_locks_and_its_end_opens() -> None:
    people = snapshot(member())
    assert due(diff(world(people, ledger=ledger(account()), banned=frozenset({subject()})))) == ["lock ada banned"]
    banned = ledger(account(locks=(LockReason.BANNED,)))
    assert due(diff(world(people, ledger=banned, banned=frozenset({subject()})))) == []
    assert due(diff(world(people, ledger=banned))) == ["unlock ada banned"]


def test_a_ban_may_precede_the_account() -> None:
    draft = diff(world(snapshot(member()), banned=frozenset({subject()})))
    (made,) = [c.account for c in draft.changes if isinstance(c, CreateAccount)]
    assert made.locks == {LockReason.BANNED}


def test_every_change_says_its_rule_and_record() -> None:
    draft = diff(world(snapshot(member())))
    (made,) = [c for c in draft.changes if isinstance(c, CreateAccount)]
    assert made.cause.rule == "members.groups hpc/users; name from preferred_username"
    assert made.cause.record == "userName=ada active=true created=2026-05-03 groups=hpc/users"


def test_a_record_is_cleaned_before_it_is_shown() -> None:
    assert "\n" not in record_of(member(username="a\nb\x1b[2J"))


people = st.lists(
    st.builds(
        lambda n, name, groups, active: member(f"s-{n}", name, tuple(groups), active=active),
        st.integers(0, 12), st.sampled_from(["ada", "kim", "root", "x y", ""]), st.sets(st.sampled_from(["hpc", "hpc/users", "hpc/gpu"])),
        st.booleans(),
    ),
    max_size=10, unique_by=lambda m: m.subject,
)  # fmt: skip


@given(people, st.randoms(use_true_random=False))
def test_page_order_never_matters(members: list[Any], random: Any) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)
    start = ledger(account("s-1", "one", 20001), account("s-2", "two", 20002, locks=(LockReason.LEFT,)))
    assert (
        diff(world(snapshot(*members), ledger=start)).changes == diff(world(snapshot(*shuffled), ledger=start)).changes
    )


@given(people)
def test_an_incomplete_answer_never_removes_or_opens(members: list[Any]) -> None:
    start = ledger(account("s-1", "one", 20001, (USERS, GPU)), account("s-2", "two", 20002, locks=(LockReason.LEFT,)))
    kinds = count_kinds(diff(world(snapshot(*members, complete=False), ledger=start)).changes)
    assert set(kinds) <= {"create-group", "create", "join"}


@given(people)
def test_no_number_and_no_name_goes_to_two(members: list[Any]) -> None:
    made = [c.account for c in diff(world(snapshot(*members))).changes if isinstance(c, CreateAccount)]
    assert len({a.uid for a in made}) == len({a.name for a in made}) == len(made)
