"""Who people are: issuers, subjects and members as the IAM lists them.

The identity key is (issuer, subject), byte for byte; an e-mail address, a user name or a display name never is one.
All text in a `Member` comes from outside and is hostile until a rule accepted it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from iam_bridge.errors import InvalidValue

SUBJECT_MAX = 255  # OpenID Connect Core 2: "MUST NOT exceed 255 ASCII characters in length"
ISSUER_MAX = 255
GROUP_PATH_MAX = 512

_USUAL_PATH = re.compile(r"/?[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z")


def has_control(text: str) -> bool:
    """Tell whether the text holds a control, format or line-separating character."""
    return not text.isprintable()


@dataclass(frozen=True, slots=True, order=True)
class Issuer:
    """An identity provider's URL, as configured (OpenID Connect Discovery 3: https, no query, no fragment)."""

    url: str

    @classmethod
    def parse(cls, text: object) -> Issuer:
        """Read an issuer URL; raise InvalidValue for anything but a plain https URL in ASCII."""
        if not isinstance(text, str) or not text.isascii() or has_control(text) or " " in text:
            raise InvalidValue(f"{text!r} is no issuer URL", hint="write it as https://host/ in ASCII")
        try:
            parts = urlsplit(text)
            port_ok = parts.port is None or parts.port > 0
        except ValueError as error:
            raise InvalidValue(f"{text!r} is no URL: {error}") from error
        if parts.scheme != "https" or not parts.hostname or not port_ok or len(text) > ISSUER_MAX:
            raise InvalidValue(f"{text!r} is no https URL", hint="an issuer is written https://host/")
        if parts.query or parts.fragment or "@" in parts.netloc or text.endswith(("?", "#")):
            raise InvalidValue(f"{text!r} has a query, a fragment or a user", hint="leave only scheme, host and path")
        return cls(text)

    def matches(self, text: object) -> bool:
        """Tell whether a token's `iss` is this issuer: as configured, or differing by one final slash."""
        if not isinstance(text, str):
            return False
        twin = self.url[:-1] if self.url.endswith("/") else self.url + "/"
        return text in (self.url, twin)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """A person: (issuer, sub); the only identity key."""

    issuer: Issuer
    sub: str

    @classmethod
    def parse(cls, issuer: Issuer, sub: object) -> Subject:
        """Read a `sub`; raise InvalidValue unless it is 1 to 255 printable ASCII characters without a space."""
        if not isinstance(sub, str) or not sub or len(sub) > SUBJECT_MAX:
            raise InvalidValue("the subject is missing, no text, or too long")
        if not sub.isascii() or has_control(sub) or " " in sub:
            raise InvalidValue("the subject holds characters that no subject has")
        return cls(issuer, sub)

    @classmethod
    def parse_text(cls, text: str) -> Subject:
        """Read `SUB@ISSUER`, the form that commands and reports use."""
        sub, at, issuer = text.rpartition("@https://")
        if not at:
            raise InvalidValue(f"{text!r} is no subject", hint="write it as SUB@https://issuer/")
        return cls.parse(Issuer.parse("https://" + issuer), sub)

    def __str__(self) -> str:
        return f"{self.sub}@{self.issuer.url}"


def parse_group_path(text: object) -> str:
    """Read one IAM group as a path without a leading slash (`A/B`); raise InvalidValue for anything else."""
    if not isinstance(text, str):
        raise InvalidValue("a group is no text")
    if len(text) <= GROUP_PATH_MAX and _USUAL_PATH.match(text):  # a token may hold hundreds, so the usual ones go fast
        return text.removeprefix("/")
    path = text.removeprefix("/")
    if not path or len(path) > GROUP_PATH_MAX or has_control(path) or any(not part.strip() for part in path.split("/")):
        raise InvalidValue("a group path is empty, too long, or holds control characters")
    return path


@dataclass(frozen=True, slots=True)
class Member:
    """A person as a source lists them; `groups` are paths without a leading slash."""

    subject: Subject
    username: str
    active: bool
    created: datetime
    groups: frozenset[str]
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberSnapshot:
    """What one source answered: all its members, or as many as it gave and why that is not all.

    A snapshot that is not `complete` may add and never removes; `reason` then says why, in one clear sentence.
    """

    issuer: Issuer
    members: tuple[Member, ...]
    groups: frozenset[str]
    taken_at: datetime
    complete: bool
    reason: str = ""
    requests: int = 0
