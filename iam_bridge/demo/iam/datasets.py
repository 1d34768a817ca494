"""The data sets: IAM's own test fixtures, the demo's cast, and any number of synthetic people."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

from iam_bridge.demo.iam.records import Client, DataSet, Group, Person

USER_SCOPES = frozenset(
    {
        "openid", "profile", "email", "address", "phone", "offline_access", "attr", "ssh-keys",
        "wlcg", "wlcg.groups", "entitlements", "eduperson_entitlement",
    }
)  # fmt: skip
SERVICE_CLIENTS = (
    Client("sync-client", "sync-secret", frozenset({"scim:read"})),
    Client("admin-client", "admin-secret", frozenset({"scim:read", "scim:write", "iam:admin.read"})),
    Client("login-client", "login-secret", USER_SCOPES, may_introspect=True),
    Client("narrow-client", "narrow-secret", frozenset({"openid"}), may_introspect=True),
    Client("public-client", None, USER_SCOPES, grants=frozenset({"device_code"})),
    *(
        Client(f"{profile}-client", f"{profile}-secret", USER_SCOPES | {profile}, profile=profile)
        for profile in ("iam", "wlcg", "aarc", "kc")
    ),
)
"""Clients of every data set: the two that a site registers (`sync-client`, `login-client`), one that
introspects without the `profile` scope, a public one, and one per JWT profile."""


def _ms(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, 9, 30, tzinfo=UTC).timestamp()) * 1000


def _groups(start_ms: int, ids: dict[str, str]) -> dict[str, Group]:
    """Make groups from {path: id}; a parent must stand before its children."""
    made: dict[str, Group] = {}
    for path, group_id in ids.items():
        parent = made.get(path.rpartition("/")[0])
        made[path] = Group(group_id, path, start_ms, start_ms, parent_id=parent.id if parent else None)
    return made


def _named_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://iam.example.org/{name}"))


def synthetic_people(n: int, seed: int = 1) -> DataSet:
    """Make `n` active members of `hpc/users`, every tenth also of `hpc/gpu`; the same for the same seed.

    User names are `user000001`...: they fit unix and are unique.
    """
    rng = random.Random(seed)  # noqa: S311 the same people for the same seed, nothing secret
    start_ms = _ms(2024, 1, 2)
    groups = _groups(start_ms, {path: _named_id(path) for path in ("hpc", "hpc/users", "hpc/gpu")})
    plain = (groups["hpc"].id, groups["hpc/users"].id)
    gpu = (*plain, groups["hpc/gpu"].id)
    people = []
    for number in range(1, n + 1):
        digits = f"{rng.getrandbits(128):032x}"
        created_ms = start_ms + rng.randrange(60_000_000_000)
        username = f"user{number:06d}"
        people.append(
            Person(
                id=f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}",
                username=username,
                given_name="Syn",
                family_name=f"Thetic {number}",
                email=f"{username}@iam.example",
                created_ms=created_ms,
                modified_ms=created_ms,
                groups=plain if number % 10 else gpu,
            )
        )
    return DataSet(tuple(people), tuple(groups.values()), SERVICE_CLIENTS)


DEMO_CAST: tuple[tuple[str, str, str, tuple[int, int, int], tuple[str, ...]], ...] = (
    ("ada", "Ada", "Lovelace", (2023, 2, 1), ("hpc", "hpc/users", "hpc/gpu")),
    ("grace", "Grace", "Hopper", (2023, 3, 1), ("hpc", "hpc/users")),
    ("linus", "Linus", "Pauling", (2023, 4, 1), ("hpc", "hpc/users")),
    ("mallory", "Mallory", "Example", (2023, 5, 1), ("hpc", "hpc/users")),
    ("root", "Roberta", "Root", (2023, 6, 1), ("hpc", "hpc/users")),
    ("kim", "Kim", "Park", (2023, 7, 1), ("hpc", "hpc/users")),
    ("kim.sun", "Kim", "Sun", (2024, 7, 1), ("hpc", "hpc/users")),
    ("marie.curie@lab", "Marie", "Curie", (2023, 8, 1), ("hpc", "hpc/users")),
    ("oscar", "Oscar", "Outsider", (2023, 9, 1), ()),
)


def demo_people() -> DataSet:
    """Give the cast of the demo: eight members of `hpc/users` and one outsider.

    mallory is suspended.  IAM keeps user names unique, so the two who want the name `kim` are `kim`
    (earlier) and `kim.sun` (later), whose attribute `posix_username` asks for `kim`.
    """
    groups = _groups(_ms(2023, 1, 2), {path: _named_id(path) for path in ("hpc", "hpc/users", "hpc/gpu")})
    people = [
        Person(
            id=_named_id(username),
            username=username,
            given_name=given,
            family_name=family,
            email=f"{given.lower()}.{family.lower()}@iam.example",
            created_ms=_ms(*created),
            modified_ms=_ms(*created),
            active=username != "mallory",
            groups=tuple(groups[path].id for path in paths),
            attributes=(("posix_username", "kim"),) if username == "kim.sun" else (),
        )
        for username, given, family, created, paths in DEMO_CAST
    ]
    return DataSet(tuple(people), tuple(groups.values()), SERVICE_CLIENTS)


FIXTURE_IDS = {
    "admin": "73f16d93-2441-4a50-88ff-85360d78c6b5",
    "test": "80e5fb8d-b7c8-451a-89ba-346ae278a66f",
    "Production": "c617d586-54e6-411d-8e38-64967798fa8a",
    "Analysis": "6a384bcd-d4b3-4b7f-a2fe-7d897ada0dd1",
}
FIXTURE_CLIENTS: dict[str, tuple[str, ...]] = {
    "client": ("openid", "profile", "email", "attr", "ssh-keys"),
    "client-cred": ("scim:read", "scim:write", "iam:admin.read"),
    "password-grant": ("openid", "profile", "email"),
    "scim-client-ro": ("scim:read",),
    "scim-client-rw": ("scim:read", "scim:write"),
    "admin-client-ro": ("scim:read", "iam:admin.read"),
    "admin-client-rw": ("scim:read", "scim:write", "iam:admin.read", "iam:admin.write"),
    "token-exchange-actor": ("openid", "profile", "offline_access"),
    "token-exchange-subject": ("openid", "profile", "offline_access"),
    "device-code-client": ("openid", "profile", "offline_access"),
}


def indigo_fixture() -> DataSet:
    """Mirror IAM's own test data (V100000___test_data.sql): 255 accounts, 22 groups, secret `secret`.

    admin, test, test-with-mfa and test_100..test_347 are as there; four more bring the count to 255,
    among them two that share one e-mail address.
    """
    start_ms = _ms(2026, 1, 21)
    paths = ("Production", "Analysis", *(f"Test-{number:03d}" for number in range(1, 21)))
    groups = _groups(start_ms, {path: FIXTURE_IDS.get(path) or _named_id(path) for path in paths})
    both = (groups["Production"].id, groups["Analysis"].id)
    numbered = [f"test_{number}" for number in range(100, 348)]
    others = ["test-with-mfa", "same-email-1", "same-email-2", "no-group-1", "no-group-2"]
    people = [
        Person(
            id=FIXTURE_IDS.get(username) or _named_id(username),
            username=username,
            given_name="Admin" if username == "admin" else "Test",
            family_name="User",
            email="same@iam.test" if username.startswith("same") else f"{username}@iam.test",
            created_ms=start_ms,
            modified_ms=start_ms,
            # /stats of the real fixture says 255 people, 254 of them active.
            active=username != "no-group-2",
            groups=both if username.startswith("test") and username != "test-with-mfa" else (),
        )
        for username in ("admin", "test", *numbered, *others)
    ]
    clients = [
        Client(
            client_id,
            "secret",
            frozenset(scopes),
            may_introspect=client_id in {"client", "password-grant", "client-cred"},
        )
        for client_id, scopes in FIXTURE_CLIENTS.items()
    ]
    public = Client("public-dc-client", None, frozenset({"openid", "profile"}), grants=frozenset({"device_code"}))
    return DataSet(tuple(people), tuple(groups.values()), (*clients, public, *SERVICE_CLIENTS))
