"""Accounts on the cluster: names and numbers that we may give, and the three kinds of account.

Ours is in the ledger. Foreign is not, with a uid outside our ranges: never opened, never touched. Orphan is not, with
a uid inside our ranges: denied everywhere until an admin decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from iam_bridge.errors import InvalidValue
from iam_bridge.model.identity import Subject

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
"""Names that we give. 32 characters is what utmp, ps and Debian's shadow tools show whole."""

# systemd.io/UIDS-GIDS and Debian policy 9.2.2: what lies between belongs to somebody else.
USABLE_IDS = ((1000, 59999), (65536, 524287), (1879048192, 2147483647))


class LockReason(Enum):
    """Why an account is locked; an account is open while it has none of them."""

    LEFT = "left"
    SUSPENDED = "suspended"
    ADMIN = "admin"
    IDLE = "idle"
    BANNED = "banned"


@dataclass(frozen=True, slots=True, order=True)
class UserName:
    """An account name that we may give."""

    text: str

    @classmethod
    def parse(cls, text: object) -> UserName:
        """Read a name; raise InvalidValue unless it matches `^[a-z][a-z0-9_-]{0,31}$`."""
        if not isinstance(text, str) or not NAME_PATTERN.match(text):
            raise InvalidValue(f"{text!r} is no account name", hint="a-z first, then a-z 0-9 _ -, 32 at most")
        return cls(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class GroupName:
    """A unix group name that the mapping table may name."""

    text: str

    @classmethod
    def parse(cls, text: object) -> GroupName:
        """Read a name; the same grammar as account names, since they share a number space with private groups."""
        if not isinstance(text, str) or not NAME_PATTERN.match(text):
            raise InvalidValue(f"{text!r} is no group name", hint="a-z first, then a-z 0-9 _ -, 32 at most")
        return cls(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """Numbers that we may give, both ends included."""

    low: int
    high: int

    @classmethod
    def parse(cls, low: object, high: object) -> IdRange:
        """Read a range; raise InvalidValue unless it lies whole inside one block that Linux leaves to sites."""
        if not isinstance(low, int) or not isinstance(high, int) or isinstance(low, bool) or isinstance(high, bool):
            raise InvalidValue("an id range is two whole numbers, as in [20000, 59999]")
        if low > high:
            raise InvalidValue(f"the range [{low}, {high}] is upside down")
        if not any(first <= low and high <= last for first, last in USABLE_IDS):
            blocks = ", ".join(f"{first}-{last}" for first, last in USABLE_IDS)
            raise InvalidValue(
                f"the range [{low}, {high}] leaves the blocks that a site may use", hint=f"one of {blocks}"
            )
        return cls(low, high)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    def overlaps(self, other: IdRange) -> bool:
        """Tell whether a number lies in both."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Account:
    """Ours: one subject's account. `groups` are unix groups that the mapping gave; `locks` is empty while it is open.

    `gecos` is an opaque tag. `adopted` accounts existed before us: their numbers may lie outside our ranges and
    their rows in the store were written by somebody else.
    """

    subject: Subject
    name: UserName
    uid: int
    gid: int
    home: str
    shell: str
    groups: frozenset[GroupName] = frozenset()
    locks: frozenset[LockReason] = frozenset()
    gecos: str = ""
    adopted: bool = False

    @property
    def is_open(self) -> bool:
        """Tell whether no lock holds."""
        return not self.locks


@dataclass(frozen=True, slots=True)
class Foreign:
    """Somebody else's account: none of our business."""

    name: str
    uid: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """An account inside our ranges that the ledger does not know: denied until an admin decides."""

    name: str
    uid: int


def gecos_of(uid: int) -> str:
    """Give the opaque tag of an account; no display name ever reaches a file (design, invariant 10)."""
    return f"iam-bridge-{uid}"


def lock_words(locks: Iterable[LockReason]) -> str:
    """Write lock reasons in one fixed order, for people and for digests."""
    return ",".join(sorted(lock.value for lock in locks))
