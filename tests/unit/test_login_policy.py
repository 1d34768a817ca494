"""Who may log in: the table of decisions, for tokens and for keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from iam_bridge.errors import Reason, TokenRefused
from iam_bridge.model.account import Foreign, LockReason, Orphan
from iam_bridge.model.rules import Requirement
from iam_bridge.model.token import VerifiedToken
from iam_bridge.model.verdict import AccountFacts, Ban, Deny, NotOurs, Permit, Remark
from iam_bridge.policy.login import NOT_NOW, decide_account, decide_login
from iam_bridge.policy.refusals import explain_refusal
from tests.unit.build import AUDIENCE, ISSUER, LOGIN_RULES, NOW, OTHER, account, subject

ADA = account()
FACTS = AccountFacts(ADA, 20000, frozenset({"hpc/users"}), iam_active=True, members_taken_at=NOW, bans=())
TOKEN = VerifiedToken(subject(), AUDIENCE, frozenset(), None, "portal", "j", NOW + timedelta(hours=1), "f" * 16)


def ban(**changes: Any) -> Ban:
    values = {"ban_id": 1, "subject": subject(), "name": None, "uid": None, "reason": "stolen laptop",
              "since": NOW - timedelta(minutes=1), "until": None}  # fmt: skip
    return Ban(**(values | changes))


@dataclass(frozen=True)
class Case:
    sentence: str
    facts: dict[str, Any]
    reason: Reason
    rules: dict[str, Any] | None = None


SHARED = [
    Case("a ban", {"bans": (ban(),)}, Reason.BANNED),
    Case("NSS gives another uid", {"nss_uid": 20001}, Reason.UID_MISMATCH),
    Case("NSS knows no such name", {"nss_uid": None}, Reason.UID_MISMATCH),
    Case("locked by an admin", {"account": account(locks=(LockReason.ADMIN,))}, Reason.LOCKED),
    Case("idle", {"account": account(locks=(LockReason.IDLE,))}, Reason.LOCKED),
    Case("locked by a ban", {"account": account(locks=(LockReason.BANNED,))}, Reason.BANNED),
    Case("left the group", {"account": account(locks=(LockReason.LEFT,))}, Reason.LEFT),
    Case("locked as suspended", {"account": account(locks=(LockReason.SUSPENDED,))}, Reason.SUSPENDED),
    Case("suspended in the snapshot", {"iam_active": False}, Reason.SUSPENDED),
    Case("no snapshot yet", {"members_taken_at": None}, Reason.STALE_MEMBERS),
    Case("the snapshot is a day old", {"members_taken_at": NOW - timedelta(hours=24)}, Reason.STALE_MEMBERS),
    Case("the snapshot is from the future", {"members_taken_at": NOW + timedelta(hours=1)}, Reason.STALE_MEMBERS),
    Case("in no required group", {"iam_groups": frozenset({"hpc"})}, Reason.NOT_A_MEMBER),
    Case("requirements are empty", {}, Reason.NO_RULES, {"requires": ()}),
    Case("the group of another issuer", {}, Reason.NOT_A_MEMBER, {"requires": (Requirement(OTHER, "hpc/users"),)}),
    Case("a uid outside the ranges", {"account": account(uid=1000), "nss_uid": 1000}, Reason.UID_MISMATCH),
]


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.sentence)
def test_every_way_in_is_denied(case: Case) -> None:
    facts, rules = replace(FACTS, **case.facts), replace(LOGIN_RULES, **(case.rules or {}))
    own = facts.account
    assert not isinstance(own, Foreign | Orphan)
    by_token = decide_login("ada", TOKEN, facts, own=own, rules=rules, now=NOW)
    by_key = decide_account("ada", facts, rules, NOW)
    assert isinstance(by_token, Deny)
    assert isinstance(by_key, Deny)
    assert by_token.reason is by_key.reason is case.reason
    assert by_token.text
    assert "\n" not in by_token.text


def test_a_member_is_permitted_by_name_and_uid() -> None:
    verdict = decide_login("ada", TOKEN, FACTS, own=ADA, rules=LOGIN_RULES, now=NOW)
    assert verdict == Permit("ada", 20000, f"login.requires hpc/users at {ISSUER}")
    assert decide_account("ada", FACTS, LOGIN_RULES, NOW) == verdict


def test_an_ageing_snapshot_is_remarked() -> None:
    facts = replace(FACTS, members_taken_at=NOW - timedelta(minutes=15))
    verdict = decide_account("ada", facts, LOGIN_RULES, NOW)
    assert isinstance(verdict, Permit)
    assert verdict.remarks == (Remark.MEMBERS_AGEING,)


def test_adopted_accounts_keep_their_numbers() -> None:
    old = account(uid=1005, adopted=True)
    facts = replace(FACTS, account=old, nss_uid=1005)
    assert isinstance(decide_account("ada", facts, LOGIN_RULES, NOW), Permit)


def test_one_of_several_requirements_is_enough() -> None:
    rules = replace(LOGIN_RULES, requires=(Requirement(ISSUER, "hpc/none"), Requirement(ISSUER, "hpc/users")))
    assert isinstance(decide_account("ada", FACTS, rules, NOW), Permit)


@pytest.mark.parametrize(
    ("groups", "permitted"),
    [(None, True), (frozenset({"hpc/users"}), True), (frozenset({"hpc"}), False), (frozenset(), False)],
    ids=["says nothing", "names the group", "names another", "says none"],
)
def test_groups_in_a_token_only_narrow(groups: frozenset[str] | None, permitted: bool) -> None:
    verdict = decide_login("ada", replace(TOKEN, groups=groups), FACTS, own=ADA, rules=LOGIN_RULES, now=NOW)
    assert isinstance(verdict, Permit) is permitted
    if isinstance(verdict, Deny):
        assert verdict.reason is Reason.TOKEN_LACKS_GROUP


def test_groups_in_a_token_never_widen() -> None:
    facts = replace(FACTS, iam_groups=frozenset())
    token = replace(TOKEN, groups=frozenset({"hpc/users"}))
    verdict = decide_login("ada", token, facts, own=ADA, rules=LOGIN_RULES, now=NOW)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.NOT_A_MEMBER


@pytest.mark.parametrize(
    ("name", "standing", "own", "reason", "told"),
    [
        ("ada", account("s-grace", "ada"), account("s-ada", "lovelace"), Reason.WRONG_NAME, "lovelace"),
        ("ADA", ADA, ADA, Reason.WRONG_NAME, "ada"),
        ("root", Foreign("root", 0), ADA, Reason.WRONG_NAME, "ada"),
        ("root", Foreign("root", 0), None, Reason.NOT_OURS, ""),
        ("ghost", Orphan("ghost", 20009), None, Reason.ORPHAN, ""),
        ("nobody1", None, None, Reason.NO_ACCOUNT, ""),
        ("grace", account("s-grace", "grace"), None, Reason.NO_ACCOUNT, ""),
        ("ada", account("s-ada", "ada", issuer=OTHER), None, Reason.NO_ACCOUNT, ""),
    ],
)
def test_a_token_opens_its_own_name_only(name: str, standing: Any, own: Any, reason: Reason, told: str) -> None:
    facts = replace(FACTS, account=standing)
    verdict = decide_login(name, TOKEN, facts, own=own, rules=LOGIN_RULES, now=NOW)
    assert isinstance(verdict, Deny)
    assert verdict.reason is reason
    assert told in verdict.text


def test_a_ban_is_told_before_the_wrong_name() -> None:
    facts = replace(FACTS, account=None, bans=(ban(),))
    verdict = decide_login("other", TOKEN, facts, own=ADA, rules=LOGIN_RULES, now=NOW)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.BANNED


def test_nobody_reads_of_the_ban_of_another() -> None:
    bob = account("s-bob", "bob", 20001)
    hidden = (ban(subject=bob.subject), ban(ban_id=2, subject=None, name="bob"), ban(ban_id=3, subject=None, uid=20001))
    facts = replace(FACTS, account=bob, nss_uid=20001, bans=hidden)
    verdict = decide_login("bob", TOKEN, facts, own=ADA, rules=LOGIN_RULES, now=NOW)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.WRONG_NAME
    assert "stolen laptop" not in verdict.text


@pytest.mark.parametrize(
    ("bans", "told"),
    [
        ((ban(),), "stopped. Reason: stolen laptop"),
        ((ban(reason=""),), "stopped."),
        ((ban(until=NOW + timedelta(days=1)),), "until 2026-05-04 12:00 UTC. Reason: stolen laptop"),
        ((ban(until=NOW + timedelta(days=1)), ban(ban_id=2, reason="second")), "stopped. Reason: second"),
    ],
)
def test_a_banned_person_reads_why_and_until_when(bans: tuple[Ban, ...], told: str) -> None:
    verdict = decide_account("ada", replace(FACTS, bans=bans), LOGIN_RULES, NOW)
    assert isinstance(verdict, Deny)
    assert verdict.text.endswith(told)


def test_a_ban_that_is_over_stops_nobody() -> None:
    facts = replace(FACTS, bans=(ban(until=NOW),))
    assert isinstance(decide_account("ada", facts, LOGIN_RULES, NOW), Permit)


def test_a_clock_that_was_set_back_lifts_no_ban() -> None:
    facts = replace(FACTS, bans=(ban(since=NOW + timedelta(hours=1)),))
    verdict = decide_account("ada", facts, LOGIN_RULES, NOW)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.BANNED


def test_key_logins_of_others() -> None:
    foreign = replace(FACTS, account=Foreign("root", 0), bans=(ban(),))
    assert decide_account("root", foreign, LOGIN_RULES, NOW) == NotOurs("root")
    for standing, reason in ((Orphan("x", 20001), Reason.ORPHAN), (None, Reason.NO_ACCOUNT), (ADA, Reason.WRONG_NAME)):
        verdict = decide_account("x", replace(FACTS, account=standing), LOGIN_RULES, NOW)
        assert isinstance(verdict, Deny)
        assert verdict.reason is reason


def test_a_missing_audience_names_the_command_that_gets_the_right_token() -> None:
    for reason in (Reason.NO_AUDIENCE, Reason.WRONG_AUDIENCE):
        deny = explain_refusal(TokenRefused(reason, "no aud"), AUDIENCE)
        assert f"oidc-token --aud {AUDIENCE[0]}" in deny.text
        assert deny.reason is reason


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.value)
def test_every_refusal_has_one_sentence(reason: Reason) -> None:
    deny = explain_refusal(TokenRefused(reason, "a detail for the log"), ())
    assert deny.text.isascii()
    assert "detail" not in deny.text
    assert 8 < len(deny.text) < 200


def test_our_own_troubles_are_no_verdict_on_the_person() -> None:
    assert explain_refusal(TokenRefused(Reason.NO_KEYS), AUDIENCE).text == NOT_NOW
