"""The brakes: what goes ahead, what waits, and that nothing slips between."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.model.account import LockReason
from iam_bridge.model.change import Change, LockAccount, Plan, digest_of, key_of, kind_of
from iam_bridge.model.identity import MemberSnapshot
from iam_bridge.model.rules import Limit, Limits
from iam_bridge.model.state import LedgerState
from iam_bridge.policy.diff import diff
from iam_bridge.policy.guard import guard, is_removal
from tests.unit.build import GPU, ISSUER, LIMITS, NOW, OTHER, USERS, account, ledger, member, snapshot
from tests.unit.test_diff import world


def staff(count: int) -> list[Any]:
    return [account(f"s-{n}", f"p{n}", 20000 + n) for n in range(count)]


def run(answer: MemberSnapshot, state: LedgerState, limits: Limits = LIMITS, **options: Any) -> Plan:
    draft = diff(world(answer, ledger=state, banned=options.pop("banned", frozenset())))
    return guard(draft, state, (answer,), limits, NOW, **options)


def present(count: int, start: int = 0) -> list[Any]:
    return [member(f"s-{n}", f"p{n}") for n in range(start, count)]


@pytest.mark.parametrize(
    ("sentence", "size", "gone", "limits", "recent", "ahead"),
    [
        ("as many as may", 20, 5, LIMITS, 0, True),
        ("one more than may", 20, 6, LIMITS, 0, False),
        ("a percentage above the number", 200, 10, LIMITS, 0, True),
        ("one more than the percentage", 200, 11, LIMITS, 0, False),
        ("what happened within a day counts", 20, 3, LIMITS, 3, False),
        ("what may still happen within a day", 20, 2, LIMITS, 3, True),
        ("no removal at all is allowed", 20, 1, Limits(Limit(0, 0), Limit(50, 10), 100), 0, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_removals(sentence: str, size: int, gone: int, limits: Limits, recent: int, ahead: bool) -> None:
    state = ledger(*staff(size), recent_removals=recent)
    plan = run(snapshot(*present(size, gone)), state, limits)
    locks = [c for c in plan.changes if isinstance(c, LockAccount)]
    assert len(locks) == (gone if ahead else 0)
    assert [len(p.changes) for p in plan.parked] == ([] if ahead else [gone])


def test_parked_removals_do_not_stop_additions() -> None:
    state = ledger(*staff(20))
    plan = run(snapshot(*present(20, 10), member("s-new", "newcomer")), state)
    assert [kind_of(c) for c in plan.changes] == ["create"]
    (parked,) = plan.parked
    assert len(parked.changes) == 10
    assert "10 people would lose something" in parked.why


def test_people_count_not_changes() -> None:
    limits = Limits(Limit(1, 0), Limit(50, 10), 100)
    people = [member(groups=(), active=False)]
    plan = run(snapshot(*people), ledger(account(groups=(USERS, GPU))), limits)
    assert [kind_of(c) for c in plan.changes] == ["lock", "lock"]


def test_leaving_a_unix_group_is_a_removal() -> None:
    limits = Limits(Limit(0, 0), Limit(50, 10), 100)
    plan = run(snapshot(member()), ledger(account(groups=(USERS, GPU))), limits)
    assert [kind_of(c) for c in plan.parked[0].changes] == ["leave"]


@pytest.mark.parametrize(
    ("sentence", "answer", "approved", "ahead"),
    [
        (
            "nobody of three is in the group any more",
            [member(f"s-{n}", f"p{n}", ("hpc/gpu",)) for n in range(3)],
            [],
            0,
        ),
        ("all three are suspended", [member(f"s-{n}", f"p{n}", active=False) for n in range(3)], [], 0),
        ("one of three stays", present(1), [], 2),
        ("all three go, and an admin knows of one", present(9, 5), [20000], 1),
        ("all three go, and an admin knows of all", present(9, 5), [20000, 20001, 20002], 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nobody_left_is_never_taken_for_the_truth(
    sentence: str, answer: list[Any], approved: list[int], ahead: int
) -> None:
    words = frozenset((str(uid), "lock", "left") for uid in approved)
    plan = run(snapshot(*answer), ledger(*staff(3), approved=words))
    assert len([c for c in plan.changes if isinstance(c, LockAccount)]) == ahead
    if not approved and ahead == 0:
        (parked,) = plan.parked
        assert "nobody of https://iam.example.org/ would have an open account" in parked.why


def test_the_only_account_of_a_site_may_leave() -> None:
    plan = run(
        snapshot(member(groups=("hpc/gpu",))), ledger(account(), account("s-b", "b", 20001, locks=(LockReason.LEFT,)))
    )
    assert [kind_of(c) for c in plan.changes] == ["lock"]


def test_a_ban_is_no_limits_business() -> None:
    limits = Limits(Limit(0, 0), Limit(50, 10), 100)
    state = ledger(account())
    plan = run(snapshot(member()), state, limits, banned=frozenset({account().subject}))
    assert [c.reason for c in plan.changes if isinstance(c, LockAccount)] == [LockReason.BANNED]
    assert not any(is_removal(change) for change in plan.changes)


@pytest.mark.parametrize(
    ("sentence", "counts", "parks"),
    [
        ("far fewer than within the day", [(timedelta(hours=1), 100)], True),
        ("far fewer than two days ago", [(timedelta(hours=48), 100), (timedelta(hours=1), 22)], False),
        ("far fewer than before an outage of two days", [(timedelta(hours=48), 100)], True),
        ("as many as before", [(timedelta(hours=1), 22)], False),
        ("fewer, but no landslide on a small site", [(timedelta(hours=1), 25)], False),
        ("never counted before", [], False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shrink(sentence: str, counts: list[Any], parks: bool) -> None:
    state = ledger(*staff(21), member_counts=tuple((NOW - ago, ISSUER, n) for ago, n in counts))
    plan = run(snapshot(*present(21, 1)), state)
    assert bool(plan.parked) is parks
    if parks:
        assert "limits.shrink" in plan.parked[0].why


@pytest.mark.parametrize(
    ("sentence", "standing", "new", "recent", "initial", "ahead"),
    [
        ("a first run within the limit", 0, 50, 0, None, True),
        ("a first run above it", 0, 51, 0, None, False),
        ("a first run above it that was announced", 0, 51, 0, 60, True),
        ("a first run above what was announced", 0, 61, 0, 60, False),
        ("--initial counts for the first run only", 1, 51, 0, 60, False),
        ("a percentage above the number", 600, 60, 0, None, True),
        ("what was made within a day counts", 60, 30, 30, None, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_creations(sentence: str, standing: int, new: int, recent: int, initial: int | None, ahead: bool) -> None:
    state = ledger(*staff(standing), recent_creates=recent)
    newcomers = [member(f"n-{n}", f"n{n}x") for n in range(new)]
    plan = run(snapshot(*present(standing), *newcomers), state, initial=initial)
    made = [c for c in plan.changes if kind_of(c) == "create"]
    assert len(made) == (new if ahead else 0)
    assert bool(plan.parked) is not ahead
    if not ahead:
        assert ("--initial" in plan.parked[0].why) is (standing == 0)


def test_an_issuer_that_seems_to_be_renamed_gives_no_second_accounts_unasked() -> None:
    state = ledger(account("s-ada", issuer=OTHER))
    plan = run(snapshot(member("s-ada"), member("s-new", "newcomer")), state)
    (parked,) = plan.parked
    assert not [c for c in plan.changes if kind_of(c) == "create"]
    assert (
        "1 people of https://iam.example.org/ have the same subject as accounts of https://other.example.org/"
        in parked.why
    )
    approved = frozenset(key_of(change) for change in parked.changes)
    again = run(snapshot(member("s-ada"), member("s-new", "newcomer")), replace(state, approved=approved))
    assert len([c for c in again.changes if kind_of(c) == "create"]) == 2


def test_what_was_approved_and_is_still_due_goes_ahead() -> None:
    state = ledger(*staff(20))
    first = run(snapshot(*present(20, 10)), state)
    approved = frozenset(key_of(change) for change in first.parked[0].changes)
    second = run(snapshot(*present(20, 10)), ledger(*staff(20), approved=approved))
    assert len(second.changes) == 10
    assert not second.parked


def test_an_approval_covers_only_what_it_named() -> None:
    first = run(snapshot(*present(20, 10)), ledger(*staff(20)))
    approved = frozenset(key_of(change) for change in first.parked[0].changes)
    second = run(snapshot(*present(20, 17)), ledger(*staff(20), approved=approved))
    assert len(second.changes) == 10
    assert [len(p.changes) for p in second.parked] == [7]


def test_a_digest_names_the_same_set_from_run_to_run() -> None:
    state = ledger(*staff(20))
    one, two = run(snapshot(*present(20, 10)), state), run(snapshot(*reversed(present(20, 10))), state)
    assert one.parked[0].digest == two.parked[0].digest
    assert run(snapshot(*present(20, 9)), state).parked[0].digest != one.parked[0].digest


@given(
    st.integers(0, 30), st.integers(0, 30), st.integers(0, 10), st.integers(0, 100), st.integers(0, 20), st.sets(st.integers(0, 29))
)  # fmt: skip
def test_nothing_is_lost_and_no_limit_is_passed(
    size: int, gone: int, most: int, percent: int, recent: int, ok: set[int]
) -> None:
    gone = min(gone, size)
    approved = frozenset((str(20000 + n), "lock", "left") for n in ok)
    state = ledger(*staff(size), recent_removals=recent, approved=approved)
    limits = Limits(Limit(most, percent), Limit(50, 10), 100)
    answer = snapshot(*present(size, gone), member("s-extra", "extra", ()))
    draft = diff(world(answer, ledger=state))
    plan = guard(draft, state, (answer,), limits, NOW)
    together: list[Change] = [*plan.changes, *(change for parked in plan.parked for change in parked.changes)]
    assert digest_of(together) == digest_of(draft.changes)
    unapproved = [c for c in plan.changes if is_removal(c) and key_of(c) not in approved]
    assert not unapproved or len(unapproved) + recent <= max(most, (size + recent) * percent // 100)
