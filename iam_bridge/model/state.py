"""What the ledger and a store hold at one moment, as values that pure rules can look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.model.account import Account, GroupName, UserName
from iam_bridge.model.identity import Issuer, Subject


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Who is who according to the ledger.

    `names_given` and `numbers_given` hold everything ever given to anybody, tombstones included: none of it is given
    again. `groups` are the unix groups that we made, or adopted, with their gids. `saved_expiry` holds, by account,
    the shadow expiry field that stood there before our lock. `member_counts` are (time, issuer, members) of complete
    pulls in the last 24 hours, oldest first, and the last one before where there was none; `recent_creates` and
    `recent_removals` count people over those 24 hours, approved changes left out.
    """

    generation: int
    accounts: Mapping[Subject, Account]
    groups: Mapping[GroupName, int]
    names_given: frozenset[str]
    numbers_given: frozenset[int]
    saved_expiry: Mapping[UserName, str]
    homes_due: frozenset[UserName]
    member_counts: tuple[tuple[datetime, Issuer, int], ...]
    recent_creates: int
    recent_removals: int
    approved: frozenset[tuple[str, str, str]]
    stopped: str = ""
    """Why no number may be allocated (a store ahead of this ledger, say); empty while allocation is free."""


@dataclass(frozen=True, slots=True)
class StoreUser:
    """A row of the account store; `expiry` is the shadow field as it stands, None where there is no shadow row."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    expiry: str | None


@dataclass(frozen=True, slots=True)
class StoreGroup:
    """A group of the account store with the members that it lists by name."""

    name: str
    gid: int
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """Everything that the store holds, ours or not."""

    users: Mapping[str, StoreUser]
    groups: Mapping[str, StoreGroup]


@dataclass(frozen=True, slots=True)
class HostNames:
    """Names and numbers that are in use around us: NSS, leftovers, reserved words.

    `busy_names` maps a name that must not be given to the sentence that says why.
    """

    busy_names: Mapping[str, str]
    busy_numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class WantedAccount:
    """What the store must hold of one account of ours.

    `saved_expiry` is as in `LedgerState`, None where no lock of ours stands in the store.
    """

    account: Account
    saved_expiry: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the store must hold of all that is ours: accounts, and the unix groups of the mapping table.

    In a group only names of ours are ours to add or remove; other members of the same group stay.
    """

    accounts: tuple[WantedAccount, ...]
    groups: Mapping[GroupName, int]


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What a store wrote, by account name or group name; empty when there was nothing to do."""

    written: tuple[str, ...]
    problems: tuple[str, ...] = ()
