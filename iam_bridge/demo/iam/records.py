"""What an INDIGO IAM knows: people, groups and clients, as frozen values.

Nothing here checks a name: a hostile user name is a thing that tests want to serve.  Times are
epoch milliseconds, which is what SCIM dates resolve to, so that 100 000 people cost no date object.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a person or a group (prefix may be empty)."""

    name: str
    value: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class SshKey:
    """An SSH key as the person registered it: the whole authorized_keys text."""

    display: str
    value: str
    primary: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate; `pem` shows only in the answer for one person, never in a list."""

    subject_dn: str
    issuer_dn: str
    pem: str = ""


@dataclass(frozen=True, slots=True)
class LinkedId:
    """An identity at another provider: OpenID Connect (issuer, subject) or SAML (idp, user, attribute)."""

    provider: str
    subject: str
    attribute: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """An IAM account.  `groups` are group ids; `id` is the UUID that tokens carry as `sub`."""

    id: str
    username: str
    given_name: str
    family_name: str
    email: str
    created_ms: int
    modified_ms: int
    active: bool = True
    groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    labels: tuple[Label, ...] = ()
    ssh_keys: tuple[SshKey, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    oidc_ids: tuple[LinkedId, ...] = ()
    saml_ids: tuple[LinkedId, ...] = ()
    end_time_ms: int | None = None
    aup_signed_ms: int | None = None
    service_account: bool = False

    @property
    def name(self) -> str:
        """Say the display name that IAM formats from the two parts."""
        return f"{self.given_name} {self.family_name}"


@dataclass(frozen=True, slots=True)
class Group:
    """An IAM group.  `path` is the full path without a leading slash: `hpc/users`."""

    id: str
    path: str
    created_ms: int
    modified_ms: int
    parent_id: str | None = None
    description: str = ""
    labels: tuple[Label, ...] = ()

    @property
    def optional(self) -> bool:
        """Tell whether the WLCG profile gives this group only when it is asked for by name."""
        return any(label.name == "wlcg.optional-group" for label in self.labels)


@dataclass(frozen=True, slots=True)
class Client:
    """A registered OAuth client.  `profile` is the JWT profile of the tokens it obtains."""

    id: str
    secret: str | None = field(repr=False)
    scopes: frozenset[str]
    grants: frozenset[str] = frozenset({"client_credentials"})
    profile: str | None = None
    may_introspect: bool = False

    def allows(self, scope: str) -> bool:
        """Tell whether the client may ask for `scope`; `wlcg.groups` also covers `wlcg.groups:/a`."""
        return scope in self.scopes or scope.partition(":/")[0] in self.scopes


@dataclass(frozen=True, slots=True)
class DataSet:
    """What an embedded IAM starts with."""

    people: tuple[Person, ...] = ()
    groups: tuple[Group, ...] = ()
    clients: tuple[Client, ...] = ()
