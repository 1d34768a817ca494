"""Whether a person may log in: the decision at the prompt, and the one that also covers keys and certificates.

Pure: facts in, verdict out. Every early way out is a denial, and what cannot be decided is denied. The texts are what
the person reads; they are fixed sentences, but for the reason that an admin wrote beside a ban.
"""

from __future__ import annotations

from datetime import datetime

from iam_bridge.errors import Reason
from iam_bridge.model.account import Account, Foreign, LockReason, Orphan
from iam_bridge.model.rules import LoginRules, Requirement
from iam_bridge.model.token import VerifiedToken
from iam_bridge.model.verdict import AccountFacts, AccountVerdict, Ban, Deny, NotOurs, Permit, Remark, Verdict

NOT_NOW = "This login cannot be decided right now. Please try again later or tell your site's support."
NO_ACCESS = "Access denied."

_LOCK_REASONS = {
    LockReason.BANNED: Reason.BANNED,
    LockReason.SUSPENDED: Reason.SUSPENDED,
    LockReason.LEFT: Reason.LEFT,
    LockReason.ADMIN: Reason.LOCKED,
    LockReason.IDLE: Reason.LOCKED,
}
_TEXTS = {
    Reason.BANNED: "Your access to this site has been stopped.",
    Reason.SUSPENDED: "Your identity is suspended at the IAM. Please contact your IAM administrator.",
    Reason.LEFT: "You are no longer a member of a group that may use this site.",
    Reason.LOCKED: "Your account here is locked. Please contact the site's support.",
    Reason.NOT_A_MEMBER: "You are not a member of a group that may log in here.",
    Reason.TOKEN_LACKS_GROUP: "This token leaves out the group that may log in here; get one that names it.",
    Reason.NO_ACCOUNT: "There is no account for you here yet; accounts are made from the site's IAM group.",
}


def _deny(reason: Reason, detail: str = "", locks: frozenset[LockReason] = frozenset()) -> Deny:
    return Deny(reason, _TEXTS.get(reason, NO_ACCESS), detail, locks)


def _deny_ban(ban: Ban) -> Deny:
    until = f" until {ban.until:%Y-%m-%d %H:%M} UTC" if ban.until else ""
    why = f" Reason: {ban.reason}" if ban.reason else ""
    return Deny(Reason.BANNED, f"{_TEXTS[Reason.BANNED][:-1]}{until}.{why}", f"ban {ban.ban_id}")


def _holding(bans: tuple[Ban, ...], now: datetime) -> Ban | None:
    """Give the ban in force that lasts longest, so that nobody is told an end that is none."""
    held = [ban for ban in bans if ban.holds_at(now)]
    return max(held, key=lambda ban: (ban.until is None, ban.until or now, ban.ban_id)) if held else None


def _members_age(facts: AccountFacts, rules: LoginRules, now: datetime) -> Deny | tuple[Remark, ...]:
    """Judge how old the last complete snapshot is; one from the future is no better than none."""
    if facts.members_taken_at is None:
        return Deny(Reason.STALE_MEMBERS, NOT_NOW, "no complete snapshot of the members yet")
    age_s = (now - facts.members_taken_at).total_seconds()
    if not -rules.members_warn_s <= age_s < rules.members_deny_s:
        return Deny(Reason.STALE_MEMBERS, NOT_NOW, f"the last complete snapshot is {int(age_s)} s old")
    return (Remark.MEMBERS_AGEING,) if age_s >= rules.members_warn_s else ()


def _requirements_met(account: Account, facts: AccountFacts, rules: LoginRules) -> tuple[Requirement, ...]:
    return tuple(
        requirement
        for requirement in rules.requires
        if requirement.issuer == account.subject.issuer and requirement.group in facts.iam_groups
    )


def _decide_ours(account: Account, facts: AccountFacts, rules: LoginRules, now: datetime) -> Permit | Deny:
    """Decide what holds for every way in: number, locks, freshness, suspension, membership."""
    if facts.nss_uid is None:
        return Deny(
            Reason.UID_MISMATCH, NOT_NOW, f"the host knows no account of that name, the ledger uid {account.uid}"
        )
    if facts.nss_uid != account.uid:
        return Deny(Reason.UID_MISMATCH, NOT_NOW, f"the host says uid {facts.nss_uid}, the ledger {account.uid}")
    if not any(account.uid in uids for uids in rules.uids) and not account.adopted:
        return Deny(Reason.UID_MISMATCH, NOT_NOW, f"uid {account.uid} is outside the ranges")
    for lock, reason in _LOCK_REASONS.items():
        if lock in account.locks:
            return _deny(reason, "locked", account.locks)
    age = _members_age(facts, rules, now)
    if isinstance(age, Deny):
        return age
    if not facts.iam_active:
        return _deny(Reason.SUSPENDED, "not active in the last complete snapshot")
    if not rules.requires:
        return Deny(Reason.NO_RULES, NOT_NOW, "login.requires is empty, which permits nobody")
    met = _requirements_met(account, facts, rules)
    if not met:
        return _deny(Reason.NOT_A_MEMBER, "in none of login.requires")
    rule = f"login.requires {met[0].group} at {met[0].issuer}"
    return Permit(account.name.text, account.uid, rule, age)


def decide_account(name: str, facts: AccountFacts, rules: LoginRules, now: datetime) -> AccountVerdict:
    """Decide the account phase, which every login passes: by token, key or certificate.

    A foreign account is none of our business; a name that nobody knows, or an orphan, is denied.
    """
    account = facts.account
    if isinstance(account, Foreign):
        return NotOurs(name)
    ban = _holding(facts.bans, now)
    if ban is not None:
        return _deny_ban(ban)
    if isinstance(account, Orphan):
        return Deny(Reason.ORPHAN, NO_ACCESS, f"uid {account.uid} is in our range and not in the ledger")
    if account is None:
        return _deny(Reason.NO_ACCOUNT, "neither the ledger nor the host knows this name")
    if account.name.text != name:
        return Deny(Reason.WRONG_NAME, NO_ACCESS, "a directory answered to another spelling")
    return _decide_ours(account, facts, rules, now)


def decide_login(
    name: str,
    token: VerifiedToken,
    facts: AccountFacts,
    *,
    own: Account | None,
    rules: LoginRules,
    now: datetime,
) -> Verdict:
    """Decide a login by token under `name`.

    `facts` are those of the name and of the token's subject (bans of both); `own` is the account of the token's
    subject, or None. A valid token under another name is told its own account's name.
    """
    named = facts.account
    is_own = isinstance(named, Account) and (named.subject, named.name.text) == (token.subject, name)
    account = named if is_own and isinstance(named, Account) else None
    # Under another's name, that other's ban and its reason are none of this person's business.
    bans = facts.bans if account else tuple(ban for ban in facts.bans if ban.subject == token.subject)
    ban = _holding(bans, now)
    if ban is not None:
        return _deny_ban(ban)
    if account is None:
        return _deny_name(named, own)
    verdict = _decide_ours(account, facts, rules, now)
    if isinstance(verdict, Deny):
        return verdict
    # Groups in a token can only narrow what the snapshot says (design, invariant 5).
    if token.groups is not None:
        met = _requirements_met(account, facts, rules)
        if not any(requirement.group in token.groups for requirement in met):
            return _deny(Reason.TOKEN_LACKS_GROUP, "the token names groups, and none that is required")
    return verdict


def _deny_name(account: Account | Foreign | Orphan | None, own: Account | None) -> Deny:
    """Refuse a valid token under a name that is not its own, and say which is."""
    if own is not None:
        text = f"This token belongs to the account {own.name}: log in as {own.name}."
        return Deny(Reason.WRONG_NAME, text, f"the token's own account is {own.name}")
    match account:
        case Foreign():
            return Deny(Reason.NOT_OURS, NO_ACCESS, "not an account of ours; the token has none here")
        case Orphan():
            return Deny(Reason.ORPHAN, NO_ACCESS, f"uid {account.uid} is in our range and not in the ledger")
        case _:
            return _deny(Reason.NO_ACCOUNT, "the token's subject has no account here")
