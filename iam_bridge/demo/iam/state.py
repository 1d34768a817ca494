"""The embedded IAM itself: its people, keys, tokens, faults and request log, without any network.

Tests hold this object and change it while the server answers from it.  It can mint tokens before any
server runs; the server sets `issuer` to where it listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from iam_bridge.demo.iam.directory import Directory, UnknownRecord
from iam_bridge.demo.iam.faults import Fault, FaultKind, Faults, Value
from iam_bridge.demo.iam.keys import KeyRing, SigningKey, encode_b64url
from iam_bridge.demo.iam.profiles import (
    DEFAULT_SCOPES,
    PROFILES,
    WLCG_ANY_AUDIENCE,
    name_groups,
    name_person,
    select_groups,
    shape_access_claims,
    shape_client_claims,
)
from iam_bridge.demo.iam.records import Client, DataSet, Person
from iam_bridge.demo.iam.requestlog import RequestLog, SeenRequest
from iam_bridge.demo.iam.tokens import (
    UNISSUED_KEYS,
    IssuedToken,
    edit_claims,
    fingerprint,
    make_audience,
    write_token,
)

Version = Literal["1.12", "1.14"]
TOKEN_LIFETIME_S = 3600


class EmbeddedIam(Directory):
    """One IAM in memory.  Every method may be called from any thread, while it is served or not.

    Switches (attributes): `version` shapes introspection as up to 1.13 (`1.12`) or as `1.14`;
    `default_profile` is the instance's JWT profile; `include_authn_info` is
    IAM_ACCESS_TOKEN_INCLUDE_AUTHN_INFO (off, as in IAM); `suspended_tokens_stay_active` off makes
    introspection honest about suspended people, which IAM's is not; `include_labels` and
    `include_attributes` name what `/scim/Users` shows (scim.include_labels, scim.include_attributes).
    """

    def __init__(
        self,
        data: DataSet | None = None,
        *,
        issuer: str = "https://iam.example.org/",
        version: Version = "1.12",
        key_pool: str = "iam",
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
    ) -> None:
        given = data or DataSet()
        super().__init__(given, clock=clock, seed=seed)
        self.issuer = issuer
        self.version: Version = version
        self.default_profile = "iam"
        self.include_authn_info = False
        self.suspended_tokens_stay_active = True
        self.include_labels = frozenset({"unix", "lifecycle.status"})
        self.include_attributes = frozenset({"posix_username", "uid", "gid"})
        self.keys = KeyRing(key_pool)
        self.clients = {client.id: client for client in given.clients}
        self.log = RequestLog()
        self._faults = Faults()
        self._issued: dict[bytes, IssuedToken] = {}

    # ---- tokens ------------------------------------------------------------------------------

    def mint(
        self,
        person: str | Person,
        *,
        profile: str | None = None,
        audience: str | Sequence[str] = (),
        lifetime_s: float = TOKEN_LIFETIME_S,
        scopes: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        client_id: str = "public-client",
        claims: Mapping[str, Any] | None = None,
        without: Iterable[str] = (),
        headers: Mapping[str, Any] | None = None,
        key: str = "current",
        pad_to: int | None = None,
    ) -> str:
        """Mint an access token of a person, as if `client_id` had obtained it.

        `groups` are paths that replace the person's own in the profile's claim, whatever the scopes;
        `claims` override and `without` removes; a None in `headers` removes; `key` is as in
        `KeyRing.chosen`, or `none` or `hmac-public`; `pad_to` is an exact length in bytes.

        Raises:
            UnknownRecord: no such person.
            ValueError: no such profile or key, or `pad_to` is too small.
        """
        owner = self.person(person) if isinstance(person, str) else person
        shape = self._profile(profile or self._client_profile(client_id))
        asked = tuple(DEFAULT_SCOPES[shape] if scopes is None else scopes)
        made = self._base_claims(owner.id, client_id, shape, audience, lifetime_s)
        made |= shape_access_claims(
            shape, owner, self.groups_of(owner), asked, include_authn_info=self.include_authn_info
        )
        if groups is not None:
            made |= name_groups(shape, groups)
        token, final = write_token(
            self.keys, edit_claims(made, claims, without), key=key, headers=headers, pad_to=pad_to
        )
        if key not in UNISSUED_KEYS:
            self._issued[fingerprint(token)] = IssuedToken(owner.id, client_id, shape, asked, final)
        return token

    def mint_for_client(
        self,
        client_id: str,
        *,
        audience: str | Sequence[str] = (),
        lifetime_s: float = TOKEN_LIFETIME_S,
        scopes: Sequence[str] = ("scim:read",),
        claims: Mapping[str, Any] | None = None,
        without: Iterable[str] = (),
        headers: Mapping[str, Any] | None = None,
        key: str = "current",
        pad_to: int | None = None,
    ) -> str:
        """Mint what the client_credentials grant gives: a token whose `sub` is the client itself."""
        shape = self._client_profile(client_id)
        made = self._base_claims(client_id, client_id, shape, audience, lifetime_s)
        made |= shape_client_claims(shape, scopes)
        token, final = write_token(
            self.keys, edit_claims(made, claims, without), key=key, headers=headers, pad_to=pad_to
        )
        if key not in UNISSUED_KEYS:
            self._issued[fingerprint(token)] = IssuedToken(None, client_id, shape, tuple(scopes), final)
        return token

    def mint_id_token(
        self,
        person: str | Person,
        *,
        client_id: str = "public-client",
        nonce: str | None = None,
        lifetime_s: float = 600,
        claims: Mapping[str, Any] | None = None,
        without: Iterable[str] = (),
        headers: Mapping[str, Any] | None = None,
        key: str = "current",
        pad_to: int | None = None,
    ) -> str:
        """Mint an ID token (OpenID Connect Core 2): `aud` is the client, `at_hash` and `auth_time` are there."""
        owner = self.person(person) if isinstance(person, str) else person
        now = int(self.clock())
        shape = self._client_profile(client_id)
        made: dict[str, Any] = {
            "iss": self._issuer_as_typed(),
            "sub": owner.id,
            "aud": client_id,
            "exp": now + int(lifetime_s),
            "iat": now,
            "auth_time": now,
            "jti": self.new_id(),
            "at_hash": encode_b64url(self.rng.randbytes(16)),
            **({"nonce": nonce} if nonce else {}),
            **name_person(owner, {"profile"}),
            **name_groups(shape, select_groups(shape, self.groups_of(owner), DEFAULT_SCOPES[shape])),
        }
        edited = edit_claims(made, claims, without)
        return write_token(self.keys, edited, key=key, headers=headers, pad_to=pad_to)[0]

    def revoke(self, token: str) -> None:
        """Revoke one access token."""
        self._issued.pop(fingerprint(token), None)

    def find_issued(self, token: str) -> IssuedToken | None:
        """Find a live token of this IAM; a deleted person's, an expired or a foreign one is none.

        A suspended person's is still live: the suspension hole of IAM (indigo-iam/iam#1157).
        """
        issued = self._issued.get(fingerprint(token))
        if issued is None or issued.expires_at <= self.clock():
            return None
        if issued.person_id is not None and self.find_person(issued.person_id) is None:
            return None
        return issued

    def rotate_keys(self, keep_old: bool = True) -> SigningKey:
        """Sign with a new RSA key from now on; the old one stays published if `keep_old`."""
        with self.lock:
            return self.keys.rotate(keep_old=keep_old)

    # ---- faults and what was asked -----------------------------------------------------------

    def fault(
        self,
        kind: str,
        *,
        path: str | None = None,
        value: Value = None,
        nth: int | None = None,
        first: int = 1,
        last: int | None = None,
    ) -> Fault:
        """Switch a fault on: everywhere its kind applies, or for the `nth` request of `path` from now."""
        return self._faults.switch_on(kind, path=path, value=value, nth=nth, first=first, last=last)

    def clear_faults(self, kind: str | None = None) -> None:
        """Switch faults of a kind off, or all."""
        self._faults.switch_off(kind)

    @property
    def faults(self) -> Faults:
        """Give the switchboard, for the server."""
        return self._faults

    @property
    def requests(self) -> list[SeenRequest]:
        """List the requests since the last reset."""
        return self.log.requests()

    def count(self, path: str | None = None, method: str | None = None) -> int:
        """Count the requests of a path (`/scim/*` for a prefix, None for all)."""
        return self.log.count(path, method)

    def reset_counters(self) -> None:
        """Forget the requests so far."""
        self.log.reset()

    # ---- claims ------------------------------------------------------------------------------

    def _issuer_as_typed(self) -> str:
        # IAM signs the configured value as typed, while discovery always ends in a slash.
        return self.issuer.rstrip("/") if self._faults.is_on(FaultKind.SLASHLESS_ISSUER) else self.issuer

    def _profile(self, name: str) -> str:
        if name not in PROFILES:
            raise ValueError(f"no JWT profile {name!r}: use one of {', '.join(PROFILES)}")
        return name

    def _client_profile(self, client_id: str) -> str:
        client = self.clients.get(client_id)
        return client.profile if client and client.profile else self.default_profile

    def _base_claims(
        self, subject: str, client_id: str, profile: str, audience: str | Sequence[str], lifetime_s: float
    ) -> dict[str, Any]:
        now = int(self.clock())
        wanted = audience or (WLCG_ANY_AUDIENCE if profile == "wlcg" else ())
        return {
            "sub": subject,
            "iss": self._issuer_as_typed(),
            "exp": now + int(lifetime_s),
            "iat": now,
            "jti": self.new_id(),
            "client_id": client_id,
            **({"nbf": now} if profile in {"wlcg", "kc"} else {}),
            **make_audience(wanted, as_string=self._faults.is_on(FaultKind.STRING_AUDIENCE)),
        }

    def client(self, client_id: str) -> Client:
        """Find a client.

        Raises:
            UnknownRecord: there is no such client.
        """
        found = self.clients.get(client_id)
        if found is None:
            raise UnknownRecord(f"no client {client_id!r} in this IAM")
        return found
