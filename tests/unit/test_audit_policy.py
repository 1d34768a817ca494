"""The audit: each thing that is not as it should be is one finding with what to do, and a site in order has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from iam_bridge.model.account import LockReason, UserName
from iam_bridge.model.change import (
    AdoptAccount,
    Cause,
    CreateAccount,
    CreateGroup,
    JoinGroup,
    LockAccount,
    Plan,
    Refusal,
)
from iam_bridge.model.state import LedgerState, StoreGroup, StoreSnapshot, StoreUser
from iam_bridge.policy.audit import audit
from iam_bridge.policy.findings import AuditFacts, AuditFinding, HomeFact, HostUser, SourceAge, Waiting
from tests.unit.build import GPU, ISSUER, LOGIN_RULES, NOW, USERS, account, account_rules, ledger, subject

ADA = account()
BOB = account("s-bob", "bob", 20001)
RULES = account_rules()
CAUSE = Cause("rule", "record")
NAME = UserName.parse


def facts(*accounts: object, **changes: object) -> AuditFacts:
    """Give a site in good order with these accounts (ada and bob), changed as told."""
    people = accounts or (ADA, BOB)
    state: LedgerState = ledger(*people)  # type: ignore[arg-type]
    users = {
        a.name.text: StoreUser(a.name.text, a.uid, a.gid, a.home, a.shell, "1" if a.locks else "")
        for a in state.accounts.values()
    }
    groups = {
        g.text: StoreGroup(g.text, gid, frozenset(a.name.text for a in state.accounts.values() if g in a.groups))
        for g, gid in state.groups.items()
    }
    values: dict[str, object] = {
        "now": NOW,
        "ledger": state,
        "store": StoreSnapshot(users, groups),
        "host_users": {name: HostUser(name, user.uid, user.gid) for name, user in users.items()},
        "homes": {a.name: HomeFact("folder", a.uid, 0o700) for a in state.accounts.values()},
        "strays": (("/home/lost+found", 0), ("/home/other", 1000)),
        "shells": frozenset({"/bin/bash", "/bin/zsh"}),
        "sources": (SourceAge(ISSUER, NOW - timedelta(minutes=1), ""),),
        "plan": Plan(()),
        "suspended": frozenset(),
        "parked": (),
        "banned": frozenset(),
        "running": {},
        "later": {},
        "group_counts": {"ada": 16},
        "elsewhere": (),
    }
    return AuditFacts(**(values | changes))  # type: ignore[arg-type]


def user(name: str = "ada", uid: int = 20000, **changes: object) -> StoreUser:
    values: dict[str, object] = {
        "name": name, "uid": uid, "gid": 20000, "home": "/home/ada", "shell": "/bin/bash", "expiry": "",
    }  # fmt: skip
    return StoreUser(**(values | changes))  # type: ignore[arg-type]


def with_user(row: StoreUser | None, given: AuditFacts | None = None, name: str = "ada") -> AuditFacts:
    """Put another row in the place of ada's, or none."""
    base = given or facts()
    users = {n: u for n, u in base.store.users.items() if n != name} | ({name: row} if row else {})
    return replace(base, store=replace(base.store, users=users))


def with_group(name: str, gid: int, *members: str) -> AuditFacts:
    base = facts()
    groups = {**base.store.groups, name: StoreGroup(name, gid, frozenset(members))}
    return replace(base, store=replace(base.store, groups=groups))


def with_host(row: HostUser | None) -> AuditFacts:
    base = facts()
    rest = {name: found for name, found in base.host_users.items() if name != "ada"}
    return replace(base, host_users=rest | ({"ada": row} if row else {}))


def with_home(home: HomeFact | None, **changes: object) -> AuditFacts:
    return facts(homes={ADA.name: home, BOB.name: HomeFact("folder", BOB.uid, 0o700)}, **changes)


def stray(name: str, uid: int) -> AuditFacts:
    base = facts()
    return replace(base, store=replace(base.store, users={**base.store.users, name: user(name, uid)}))


LOCKED = account(locks=(LockReason.LEFT,))
ADOPTED = account(uid=1500, adopted=True)
OLD = NOW - timedelta(days=2)
EXPIRED = str(int(NOW.timestamp()) // 86400)
AHEAD = str(int(NOW.timestamp()) // 86400 + 1)
SAVED = {"saved_expiry": {ADA.name: ""}}


def state_of(base: AuditFacts, **changes: object) -> AuditFacts:
    return replace(base, ledger=replace(base.ledger, **changes))  # type: ignore[arg-type]


IN_ORDER: list[tuple[str, Callable[[], AuditFacts]]] = [
    ("a site in order", facts),
    ("a site without accounts", lambda: facts(BOB)),
    ("nobody at all", lambda: replace(facts(), ledger=ledger(), store=StoreSnapshot({}, {}), host_users={}, homes={})),
    ("a shell of /etc/shells that the person chose", lambda: with_user(user(shell="/bin/zsh"))),
    ("an expiry date ahead, which somebody else wrote", lambda: with_user(user(expiry=AHEAD))),
    ("a locked account with its lock", lambda: facts(LOCKED, BOB)),
    ("somebody suspended without an account", lambda: facts(
        plan=Plan((), refused=(Refusal(subject("s-m"), "m", "suspended at the IAM"),)), suspended=frozenset({subject("s-m")}))),
    ("processes of somebody who is open", lambda: facts(running={20000: 3}, later={ADA.name: ("/x",)})),
    ("somebody else in a mapped group", lambda: with_group("hpcusers", 30000, "ada", "bob", "local")),
    ("an adopted account outside the range", lambda: facts(ADOPTED)),
    ("a user outside the range", lambda: stray("local", 1000)),
]  # fmt: skip


@pytest.mark.parametrize("given", [g for _, g in IN_ORDER], ids=[i for i, _ in IN_ORDER])
def test_what_is_in_order_is_no_finding(given: Callable[[], AuditFacts]) -> None:
    assert audit(given(), RULES, LOGIN_RULES) == ()


FOUND: list[tuple[str, Callable[[], AuditFacts], str, str, str]] = [
    # what it is, the facts, the code, who, a part of what is said
    ("allocation that is stopped", lambda: state_of(facts(), stopped="an anchor is ahead"), "stopped", "", "an anchor is ahead"),
    ("a source never seen", lambda: facts(sources=(SourceAge(ISSUER, None, ""),)), "list-missing", ISSUER.url, "no complete list"),
    ("a list past the age that denies", lambda: facts(sources=(SourceAge(ISSUER, OLD, ""),)), "list-stale", ISSUER.url, "2880 minutes"),
    ("a list past the age that warns", lambda: facts(sources=(SourceAge(ISSUER, NOW - timedelta(minutes=15), ""),)), "list-ageing", ISSUER.url, "15 minutes"),
    ("a last attempt that failed", lambda: facts(sources=(SourceAge(ISSUER, NOW, "a page was short"),)), "list-incomplete", ISSUER.url, "a page was short"),
    ("an orphan in the store", lambda: stray("eve", 20100), "orphan", "eve", "uid 20100 is in our range"),
    ("an orphan that only the host lists", lambda: replace(facts(), host_users={**facts().host_users, "eve": HostUser("eve", 20100, 1)}), "orphan", "eve", "20100"),
    ("our number under another name", lambda: stray("eve", 20000), "uid-shared", "eve", "which is ada's"),
    ("a second home of somebody", lambda: facts(strays=(("/home/old", 20000),)), "leftover", "/home/old", "whose home is /home/ada"),
    ("files of a number that nobody has", lambda: facts(strays=(("/home/old", 20100),)), "no-owner", "/home/old", "no account has that number"),
    ("a host that looks elsewhere", lambda: facts(host_users={}), "nss-blind", "", "none of the 2 accounts"),
    ("a row that is gone", lambda: with_user(None), "row-missing", "ada", "no passwd row"),
    ("an adopted row that is gone", lambda: with_user(None, facts(ADOPTED)), "row-missing", "ada", "no passwd row"),
    ("another uid in the store", lambda: with_user(user(uid=7)), "uid-drift", "ada", "the store says uid 7, the ledger 20000"),
    ("another gid in the store", lambda: with_user(user(gid=7)), "gid-drift", "ada", "gid 7"),
    ("another home in the store", lambda: with_user(user(home="/x")), "home-drift", "ada", "home /x"),
    ("a shell that nobody can choose", lambda: with_user(user(shell="/evil")), "shell-drift", "ada", "/evil"),
    ("no shadow row", lambda: with_user(user(expiry=None)), "shadow-missing", "ada", "no shadow row"),
    ("no shadow row of an adopted one", lambda: with_user(user(uid=1500, gid=1500, expiry=None), facts(ADOPTED)), "shadow-missing", "ada", "no shadow row"),
    ("locked, and open in shadow", lambda: with_user(user(expiry=""), facts(LOCKED)), "lock-missing", "ada", "(left)"),
    ("locked, and another date in shadow", lambda: with_user(user(expiry="20000"), facts(LOCKED)), "lock-missing", "ada", "'20000'"),
    ("open, and our lock in shadow", lambda: state_of(with_user(user(expiry="1")), **SAVED), "lock-left", "ada", "still stands"),
    ("open, and locked by somebody else", lambda: with_user(user(expiry="1")), "expiry-not-ours", "ada", "'1', which we did not write"),
    ("open, and expired today", lambda: with_user(user(expiry=EXPIRED)), "expiry-not-ours", "ada", EXPIRED),
    ("open, and an expiry that is none", lambda: with_user(user(expiry="never")), "expiry-not-ours", "ada", "'never'"),
    ("unknown to the host", lambda: with_host(None), "nss-missing", "ada", "does not know it"),
    ("another uid at the host", lambda: with_host(HostUser("ada", 7, 20000)), "nss-uid", "ada", "says uid 7"),
    ("another gid at the host", lambda: with_host(HostUser("ada", 20000, 7)), "nss-gid", "ada", "says gid 7"),
    ("more groups than NFS carries", lambda: facts(group_counts={"ada": 17}), "many-groups", "ada", "in 17 groups"),
    ("no home", lambda: with_home(None), "home-missing", "ada", "not there any more"),
    ("no home of an adopted one", lambda: facts(ADOPTED, homes={ADA.name: None}), "home-missing", "ada", "is not there"),
    ("a home that is due", lambda: state_of(with_home(None), homes_due=frozenset({ADA.name})), "home-due", "ada", "could not be made"),
    ("a link for a home", lambda: with_home(HomeFact("link", 20000, 0o777)), "home-no-folder", "ada", "a symbolic link"),
    ("a file for a home", lambda: with_home(HomeFact("other", 20000, 0o600)), "home-no-folder", "ada", "no folder"),
    ("a home of somebody else", lambda: with_home(HomeFact("folder", 0, 0o700)), "home-owner", "ada", "belongs to uid 0"),
    ("a home that others write", lambda: with_home(HomeFact("folder", 20000, 0o770)), "home-open", "ada", "mode 0770"),
    ("processes of somebody locked", lambda: facts(LOCKED, running={20000: 2}), "still-running", "ada", "locked (left), and 2 processes"),
    ("processes of somebody banned", lambda: facts(banned=frozenset({ADA.subject}), running={20000: 2}), "still-running", "ada", "it is banned"),
    ("a crontab of somebody locked", lambda: facts(LOCKED, later={ADA.name: ("/var/x",)}), "starts-later", "ada", "by /var/x"),
    ("a group that is gone", lambda: replace(facts(), store=replace(facts().store, groups={"gpu": StoreGroup("gpu", 30001, frozenset())})), "group-missing", "hpcusers", "no such group"),
    ("a group with another gid", lambda: with_group("hpcusers", 7, "ada", "bob"), "group-drift", "hpcusers", "gid 7, the ledger 30000"),
    ("a member without a right", lambda: with_group("gpu", 30001, "bob"), "member-no-right", "bob", "in the group gpu"),
    ("a right without a member", lambda: with_group("hpcusers", 30000, "bob"), "right-no-member", "ada", "not in the group hpcusers"),
    ("somebody who waits to leave", lambda: facts(parked=(Waiting("d1g", "lock", "ada", 20000, str(ADA.subject), "left"),)), "parked", "ada", "until then they keep"),
    ("somebody who waits to come", lambda: facts(parked=(Waiting("d1g", "create", "zoe", 20002, "s-zoe@x", ""),)), "no-account", "s-zoe@x", "waits for approval"),
    ("a member who is turned away", lambda: facts(plan=Plan((), refused=(Refusal(subject("s-z"), "z", "the range is used up"),))), "no-account", str(subject("s-z")), "the range is used up"),
    ("an account that is due", lambda: facts(plan=Plan((CreateAccount(account("s-z", "zoe", 20002), CAUSE),))), "pending", str(subject("s-z")), "create is due"),
    ("an adoption that is due", lambda: facts(plan=Plan((AdoptAccount(account("s-z", "zoe", 1502, adopted=True), "p", CAUSE),))), "pending", str(subject("s-z")), "adopt is due"),
    ("a group that is due", lambda: facts(plan=Plan((CreateGroup(GPU, 30001, CAUSE),))), "pending", "gpu", "create-group is due"),
    ("a lock that is due", lambda: facts(plan=Plan((LockAccount(ADA.subject, ADA.name, ADA.uid, LockReason.BANNED, CAUSE),))), "pending", "ada", "lock is due"),
    ("what others found", lambda: facts(elsewhere=(AuditFinding("chain", "", 0, "broken", "restore"),)), "chain", "", "broken"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code", "who", "told"), [f[1:] for f in FOUND], ids=[f[0] for f in FOUND])
def test_what_is_not_in_order_is_one_finding(given: Callable[[], AuditFacts], code: str, who: str, told: str) -> None:
    found = audit(given(), RULES, LOGIN_RULES)
    assert [(finding.code, finding.who) for finding in found] == [(code, who)], found
    assert told in found[0].what
    assert found[0].todo


def test_a_home_that_somebody_else_makes_may_be_missing() -> None:
    assert audit(with_home(None), account_rules(make_homes=False), LOGIN_RULES) == ()


def test_an_account_that_is_due_and_waits_is_told_once() -> None:
    zoe = CreateAccount(account("s-z", "zoe", 20002), CAUSE)
    waits = Waiting("d1g", "create", "zoe", 20002, str(subject("s-z")), "")
    found = audit(facts(plan=Plan((zoe,)), parked=(waits,)), RULES, LOGIN_RULES)
    assert [finding.code for finding in found] == ["no-account"]


def test_a_pending_join_names_the_account() -> None:
    join = JoinGroup(ADA.subject, ADA.name, ADA.uid, USERS, CAUSE)
    (finding,) = audit(facts(plan=Plan((join,))), RULES, LOGIN_RULES)
    assert (finding.who, finding.uid) == ("ada", 20000)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    broken = replace(
        with_user(user(gid=7, shell="/evil", expiry="1")), running={20000: 1}, banned=frozenset({ADA.subject})
    )
    codes = [finding.code for finding in audit(broken, RULES, LOGIN_RULES)]
    assert codes == ["gid-drift", "shell-drift", "expiry-not-ours", "still-running"]
