"""Whether an account that exists may be given to a person whom the IAM lists, and what speaks for it.

Pure. An adoption that is wrong hands somebody's files to somebody else, so every doubt is a refusal; what only ought
to be known before saying yes is a caution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.model.account import Account, UserName
from iam_bridge.model.change import AdoptAccount, Cause
from iam_bridge.model.identity import Member, Subject
from iam_bridge.model.rules import SourceRules
from iam_bridge.model.state import LedgerState, StoreSnapshot, StoreUser
from iam_bridge.policy.mapping import granting_group, record_of
from iam_bridge.policy.names import RESERVED_PREFIXES

FIRST_ORDINARY_UID = 1000
NEVER = (65534, 65535)  # nobody, and (uid_t) -1 of 16 bits


@dataclass(frozen=True, slots=True)
class HomeSeen:
    """What stands at an account's home: its owner, and when it was last changed."""

    owner: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class AdoptionFacts:
    """What decides: `members` are the last lists by subject, `host_uids` what the name service says of the names."""

    ledger: LedgerState
    store: StoreSnapshot
    sources: tuple[SourceRules, ...]
    members: Mapping[Subject, Member]
    reserved: Collection[str]
    host_uids: Mapping[str, int]
    homes: Mapping[str, HomeSeen]


@dataclass(frozen=True, slots=True)
class Adoption:
    """An account that may be taken over, with what speaks for it and what the admin should know before."""

    change: AdoptAccount
    iam_name: str
    home: HomeSeen | None
    cautions: tuple[str, ...]


def decide_adoption(name: UserName, subject: Subject, proof: str, facts: AdoptionFacts) -> Adoption | str:
    """Give the change that takes an account over, or the sentence that refuses it."""
    user = facts.store.users.get(name.text)
    if user is None:
        return f"the store has no account {name}"
    why = _why_not_account(user, facts) or _why_not_given(user, subject, facts)
    if why:
        return why
    source = next((source for source in facts.sources if source.issuer == subject.issuer), None)
    if source is None:
        return f"no source of the settings lists members of {subject.issuer}, byte for byte"
    member = facts.members.get(subject)
    if member is None:
        return f"the source of {subject.issuer} does not list the subject {subject.sub}"
    home = facts.homes.get(name.text)
    if home is not None and home.owner != user.uid:
        return f"{user.home} belongs to uid {home.owner}, and the account has {user.uid}"
    return _adopt(user, member, source, proof, home)


def _why_not_account(user: StoreUser, facts: AdoptionFacts) -> str:
    """Refuse what no person's account is, and what could not be locked."""
    name, uid = user.name, user.uid
    if name in facts.reserved or name.startswith(RESERVED_PREFIXES):
        return f"{name} is a system name"
    if uid < FIRST_ORDINARY_UID or uid in NEVER:
        return f"{name} has uid {uid}, which is no person's"
    if user.gid == 0:
        return f"{name} has root's group as its own"
    twins = sorted(other.name for other in facts.store.users.values() if other.uid == uid and other.name != name)
    if twins:
        return f"{name} shares uid {uid} with {', '.join(twins)}"
    if user.expiry is None:
        return f"{name} has no row in shadow, so a lock would have nowhere to stand"
    if facts.host_uids.get(name, uid) != uid:
        return f"{name} has uid {uid} in the store, and {facts.host_uids[name]} by the host's name service"
    return ""


def _why_not_given(user: StoreUser, subject: Subject, facts: AdoptionFacts) -> str:
    """Refuse what the ledger gave before."""
    for account in facts.ledger.accounts.values():
        if account.name.text == user.name or account.uid == user.uid:
            return f"{user.name} (uid {user.uid}) is in the ledger already, as {account.name} of {account.subject}"
    own = facts.ledger.accounts.get(subject)
    return f"{subject.sub} has an account already: {own.name} (uid {own.uid})" if own else ""


def _adopt(user: StoreUser, member: Member, source: SourceRules, proof: str, home: HomeSeen | None) -> Adoption:
    cautions = []
    if not member.active:
        cautions.append("suspended at the IAM: the next run locks")
    if granting_group(member, source.groups) is None:
        cautions.append("in no group that grants an account: the next run locks")
    if home is None:
        cautions.append(f"{user.home} is not there")
    same = member.username == user.name
    if not same and not proof:
        cautions.append("the IAM knows them by another name, and the table gives no proof")
    matched = "the IAM has the same user name" if same else "the IAM has another user name"
    seen = f"home of uid {home.owner}, changed {home.changed_at:%Y-%m-%d}" if home else "no home"
    told = "; ".join(filter(None, (proof, matched, seen)))
    account = Account(
        subject=member.subject, name=UserName.parse(user.name), uid=user.uid, gid=user.gid, home=user.home,
        shell=user.shell, adopted=True,
    )  # fmt: skip
    cause = Cause("map adopt", record_of(member))
    return Adoption(AdoptAccount(account, told, cause), member.username, home, tuple(cautions))
