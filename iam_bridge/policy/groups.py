"""The groups that a token names, from any of INDIGO IAM's four token profiles, as paths without a leading slash."""

from __future__ import annotations

import re
from collections.abc import Iterable

from iam_bridge.errors import InvalidValue, Reason, TokenRefused
from iam_bridge.model.identity import parse_group_path
from iam_bridge.model.token import SignedClaims

GROUPS_MAX = 1000
"""More than any real token carries in 20 000 bytes of use; a longer list is somebody's experiment."""

# iam: groups, kc: roles, wlcg: wlcg.groups (WLCG Common JWT Profiles 1.2, 3.2), aarc: entitlements (AARC-G069)
_PLAIN = ("groups", "wlcg.groups", "roles")
_ENTITLEMENTS = ("entitlements", "eduperson_entitlement")
# What follows the first `group:` always matches (DOTALL), so that no text makes it look for a second one.
_GROUP_URN = re.compile(r"urn:[a-z0-9][a-z0-9-]{1,31}:(?:[^#]*?:)?group:([^#]+)(?:#.*)?\Z", re.IGNORECASE | re.DOTALL)


def _texts(name: str, value: object) -> Iterable[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TokenRefused(Reason.BAD_CLAIMS, f"{name} is not a list of texts")
    if len(value) > GROUPS_MAX:
        raise TokenRefused(Reason.BAD_CLAIMS, f"{name} lists more than {GROUPS_MAX} groups")
    return value


def _path(name: str, text: str) -> str:
    try:
        return parse_group_path(text)
    except InvalidValue as error:
        raise TokenRefused(Reason.BAD_CLAIMS, f"{name} holds a group that is no path") from error


def parse_token_groups(claims: SignedClaims) -> frozenset[str] | None:
    """Read the groups of a token; None where it says nothing about groups, an empty set where it says "none".

    An entitlement that is no group URN (AARC-G069: `urn:NID:...:group:GROUP[:SUBGROUP]*[#AUTHORITY]`) is passed over.
    Raises TokenRefused(BAD_CLAIMS) for a claim of the wrong shape.
    """
    found: set[str] = set()
    spoke = False
    for name in _PLAIN:
        if name in claims:
            spoke = True
            found.update(_path(name, text) for text in _texts(name, claims[name]))
    for name in _ENTITLEMENTS:
        if name in claims:
            spoke = True
            matches = (_GROUP_URN.match(text) for text in _texts(name, claims[name]))
            found.update(_path(name, match[1].replace(":", "/")) for match in matches if match)
    return frozenset(found) if spoke else None
