"""The four JWT profiles of INDIGO IAM: which claim holds the groups, in which form, for which scope."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from iam_bridge.demo.iam.records import Group, Person

PROFILES = ("iam", "wlcg", "aarc", "kc")
DEFAULT_SCOPES: dict[str, tuple[str, ...]] = {
    "iam": ("openid", "profile"),
    "wlcg": ("openid", "profile", "wlcg.groups"),
    "aarc": ("openid", "profile", "entitlements"),
    "kc": ("openid", "profile"),
}
"""What `mint` asks for when the caller names no scopes: enough for groups to show where they can."""
ENTITLEMENT_SCOPES = frozenset({"entitlements", "eduperson_entitlement"})
URN_NAMESPACE = "iam.example"
ORGANISATION = "iam-example"
WLCG_ANY_AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"


def spell_group(profile: str, path: str) -> str:
    """Write a group path as a profile does: `A/b`, `/A/b` (wlcg) or an AARC-G002 URN without authority."""
    if profile == "wlcg":
        return f"/{path}"
    if profile == "aarc":
        return f"urn:geant:{URN_NAMESPACE}:group:{path.replace('/', ':')}"
    return path


def name_groups(profile: str, paths: Collection[str]) -> dict[str, Any]:
    """Make the group claims of a profile for exactly these paths; empty lists are left out, as IAM does."""
    if not paths:
        return {}
    spelled = [spell_group(profile, path) for path in paths]
    if profile == "aarc":
        return {"entitlements": spelled, "eduperson_entitlement": spelled}
    return {{"iam": "groups", "wlcg": "wlcg.groups", "kc": "roles"}[profile]: spelled}


def select_groups(profile: str, groups: Sequence[Group], scopes: Collection[str]) -> list[str]:
    """List the paths that a profile shows for these scopes, in its order.

    wlcg: those asked for by name come first, in the order of asking; optional ones come only so
    (WLCG Common JWT Profiles 1.0, "Group membership").
    """
    paths = [group.path for group in groups]
    if profile == "kc" or (profile == "iam" and "profile" in scopes):
        return paths
    if profile == "aarc" and ENTITLEMENT_SCOPES & set(scopes):
        return paths
    if profile != "wlcg" or not any(scope.partition(":")[0] == "wlcg.groups" for scope in scopes):
        return []
    asked = [scope.removeprefix("wlcg.groups:/") for scope in scopes if scope.startswith("wlcg.groups:/")]
    by_default = [group.path for group in groups if not group.optional]
    return list(dict.fromkeys([*(path for path in asked if path in paths), *by_default]))


def name_person(person: Person, scopes: Collection[str]) -> dict[str, Any]:
    """Make the claims about the person that the scopes `profile`, `email`, `attr`, `ssh-keys` open."""
    claims: dict[str, Any] = {}
    if "profile" in scopes:
        claims |= {
            "name": person.name,
            "given_name": person.given_name,
            "family_name": person.family_name,
            "preferred_username": person.username,
            "organisation_name": ORGANISATION,
        }
    if "email" in scopes:
        claims |= {"email": person.email, "email_verified": True}
    if "attr" in scopes and person.attributes:
        claims["attr"] = dict(person.attributes)
    if "ssh-keys" in scopes and person.ssh_keys:
        claims["ssh_keys"] = [{"value": key.value} for key in person.ssh_keys]
    return claims


def shape_access_claims(
    profile: str, person: Person, groups: Sequence[Group], scopes: Sequence[str], *, include_authn_info: bool
) -> dict[str, Any]:
    """Make the claims that a profile adds to an access token of a person, as IAM 1.12 does."""
    claims = shape_client_claims(profile, scopes)
    if profile != "iam" or include_authn_info:
        claims |= name_groups(profile, select_groups(profile, groups, scopes))
    if include_authn_info and profile in {"iam", "wlcg"}:
        claims |= name_person(person, set(scopes) - {"attr"})
    if profile == "aarc":
        claims["voperson_id"] = person.id
    if "attr" in scopes and person.attributes and profile in {"iam", "wlcg"}:
        claims["attr"] = dict(person.attributes)
    return claims


def shape_client_claims(profile: str, scopes: Sequence[str]) -> dict[str, Any]:
    """Make the claims that a profile adds to any access token, a client's own included."""
    claims: dict[str, Any] = {}
    if profile in {"wlcg", "kc"} and scopes:
        claims["scope"] = " ".join(scopes)
    if profile == "wlcg":
        claims["wlcg.ver"] = "1.0"
    return claims
