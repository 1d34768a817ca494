"""Rules that the settings file states, as values that policy takes; `settings` alone builds them.

A collection that grants (audiences, requirements, groups, issuers) refuses to be empty where it is built, and denies
where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.model.account import GroupName, IdRange
from iam_bridge.model.identity import Issuer


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """An OAuth client of ours at an issuer; the secret stays in its file."""

    client_id: str
    secret_file: Path | None


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """What a token of this issuer must look like.

    `algorithms` are asymmetric JWS names; `types` are accepted `typ` headers in lower case, `absent` for none;
    `validation` is offline, introspect or both; `refresh_s` and `usable_s` are ages of the key set in seconds.
    """

    issuer: Issuer
    algorithms: tuple[str, ...]
    types: frozenset[str]
    validation: str
    client: ClientSettings | None
    ca_file: Path | None
    refresh_s: int
    usable_s: int
    timeout_s: float
    down: str
    """What an unanswered introspection means: `deny`, or `offline` (the signature check alone decides)."""


@dataclass(frozen=True, slots=True)
class GroupRule:
    """An IAM group (a path without a leading slash) and the unix group that mirrors it.

    `unix` is None where membership makes an account and no unix group.
    """

    iam: str
    unix: GroupName | None
    grants_account: bool
    adopt: bool


@dataclass(frozen=True, slots=True)
class SourceRules:
    """Where the members of one issuer come from. `file` is the path of a `file` source."""

    issuer: Issuer
    kind: str
    groups: tuple[GroupRule, ...]
    client: ClientSettings | None
    ca_file: Path | None
    file: Path | None
    trusted_attributes: frozenset[str]
    timeout_s: float
    user: str
    """The unprivileged account that does the pull where the run was started as root."""


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How accounts are made. `name_sources` are tried in order; `home` has the field `{name}`.

    `layout` is `etc` (passwd, group, shadow, gshadow in `folder`) or `extrausers` (no gshadow). `subid_folder` holds
    subuid and subgid, None where none are given.
    """

    uids: IdRange
    gids: IdRange
    name_sources: tuple[str, ...]
    home: str
    shell: str
    skel: Path | None
    home_mode: int
    layout: str
    folder: Path
    subid_folder: Path | None
    subid_count: int
    make_homes: bool = True
    """Whether homes are made here; false where a file server or pam_mkhomedir makes them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A brake: `most` people or `percent` of them, the larger of the two counts."""

    most: int
    percent: int

    def allows(self, base: int) -> int:
        """Give how many of `base` may be touched."""
        return max(self.most, base * self.percent // 100)


@dataclass(frozen=True, slots=True)
class Limits:
    """Brakes over a rolling 24 hours."""

    locks: Limit
    creates: Limit
    shrink_percent: int


@dataclass(frozen=True, slots=True)
class Requirement:
    """One way to be admitted: membership of an IAM group (a path without a leading slash) at an issuer."""

    issuer: Issuer
    group: str


@dataclass(frozen=True, slots=True)
class LoginRules:
    """What a login needs: one of `audience` in the token, one of `requires` in the last complete snapshot.

    Empty `audience` or `requires` permit nobody. Ages are in seconds.
    """

    audience: tuple[str, ...]
    requires: tuple[Requirement, ...]
    members_warn_s: int
    members_deny_s: int
    uids: tuple[IdRange, ...]


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """The login daemon: its rules, where it listens, whom it answers and as whom it runs.

    `peers` are the uids that may ask; `user` is the account that the daemon becomes when it is started as root.
    """

    rules: LoginRules
    socket: Path
    peers: frozenset[int]
    user: str
    receipts: Path
    key_cache: Path


@dataclass(frozen=True, slots=True)
class StatePaths:
    """Where the ledger and what is made from it live."""

    ledger: Path
    view: Path
    bans: Path
    journal: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the settings file says, checked."""

    site: str
    issuers: Mapping[Issuer, IssuerRules]
    sources: tuple[SourceRules, ...]
    accounts: AccountRules
    limits: Limits
    login: LoginSettings
    paths: StatePaths
    path: Path
