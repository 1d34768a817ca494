"""Where the token comes from, and whether it can be of use at that host.

Sources in order: --token-file, BEARER_TOKEN, BEARER_TOKEN_FILE, the places of WLCG Bearer Token Discovery 1.0
($XDG_RUNTIME_DIR/bt_u<uid>, /tmp/bt_u<uid>), oidc-agent. What was named must be right; what merely lies in a place is
passed over where it does not fit and a later source gives a better one. A token is looked at without verifying it, and
only to say early, and in a sentence, what the host would refuse; the look decides nothing else.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from iam_bridge.errors import BridgeError, InvalidValue
from iam_bridge.model.token import AccessToken
from pam_module.client import oidc_agent
from pam_module.client.settings import HostSettings

TOKEN_MAX = 20_000  # pam_iam takes no longer one
MIN_VALID_S = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """What a token is wanted for, and by whom."""

    host: str
    settings: HostSettings
    environ: Mapping[str, str]
    uid: int
    now: float
    token_file: str | None = None

    def better_token(self) -> str:
        """Name the command that gets the token that fits."""
        audience = f" --aud {self.settings.audience}" if self.settings.audience else ""
        whom = self.settings.account or self.settings.issuer or "ACCOUNT"
        return f"get one with: oidc-token{audience} {whom}"


@dataclass(frozen=True, slots=True)
class Found:
    """A token and where it was."""

    token: AccessToken
    where: str


def _segment(text: str) -> dict[str, Any]:
    """Decode one part of a JWT (RFC 7515 2: base64url without padding) that must hold a JSON object."""
    padded = text + "=" * (-len(text) % 4)
    decoded = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    if not isinstance(decoded, dict):
        raise TypeError
    return decoded


def look_at(token: AccessToken) -> dict[str, Any]:
    """Give a token's claims unverified; raise InvalidValue for what is visibly no signed JWT (RFC 7515 3.1)."""
    try:
        header, payload, signature = token.reveal().split(".")
        _segment(header)
        claims = _segment(payload)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InvalidValue("is no access token (no signed JWT)") from None
    if not signature:
        raise InvalidValue("is no access token (it has no signature)")
    return claims


def check_fit(found: Found, asked: Asked) -> None:
    """Raise InvalidValue for what is no token, BridgeError for one that the host would refuse, with what to do."""
    if len(found.token) > TOKEN_MAX:
        raise BridgeError(
            f"{found.where} holds a token of more than {TOKEN_MAX} bytes, which no host takes",
            hint="ask your IAM for one with fewer groups or scopes",
        )
    try:
        claims = look_at(found.token)
    except InvalidValue as error:
        raise InvalidValue(f"{found.where} {error.message}", hint=asked.better_token()) from None
    expires_at = claims.get("exp")
    if isinstance(expires_at, (int, float)) and asked.now >= expires_at:
        raise BridgeError(f"the token of {found.where} has expired", hint=asked.better_token())
    issuer = asked.settings.issuer
    if issuer is not None and not issuer.matches(claims.get("iss")):
        raise BridgeError(
            f"the token of {found.where} is not from {issuer}, which is set for {asked.host}", hint=asked.better_token()
        )
    wanted, given = asked.settings.audience, claims.get("aud")
    audiences = given if isinstance(given, list) else [given]
    if wanted is not None and wanted not in audiences:
        raise BridgeError(
            f"the token of {found.where} is not for {asked.host} (its audience lacks {wanted})",
            hint=asked.better_token(),
        )


def _clean(raw: bytes, where: str) -> AccessToken:
    text = raw.strip()
    if not text:
        raise InvalidValue(f"{where} is empty")
    if any(not 0x21 <= byte <= 0x7E for byte in text):
        raise InvalidValue(f"{where} holds more than one token: blanks, lines or characters that no token has")
    return AccessToken(text.decode("ascii"))


def _read(path: str, where: str, check: Callable[[os.stat_result], str] | None = None, flags: int = 0) -> AccessToken:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    with os.fdopen(descriptor, "rb") as file:
        wrong = check(os.fstat(file.fileno())) if check else ""
        if wrong:
            raise BridgeError(f"{where} is not taken: {wrong}", hint=f"look at it, then run: rm {path}")
        raw = file.read(4 * TOKEN_MAX)
    return _clean(raw, where)


def read_named(path: str, where: str) -> AccessToken:
    """Read a token file that the person named; raise InvalidValue where it cannot be read or holds no text of one."""
    try:
        return _read(path, where)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _strangeness(uid: int) -> Callable[[os.stat_result], str]:
    """Say why a file in a shared place is not taken; "" where it is the person's own and theirs alone."""

    def check(status: os.stat_result) -> str:
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if status.st_uid != uid:
            return "it belongs to another user"
        return "others may read or write it" if status.st_mode & 0o077 else ""

    return check


def _places(environ: Mapping[str, str], uid: int) -> Iterator[str]:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        yield f"{runtime}/bt_u{uid}"
    yield f"/tmp/bt_u{uid}"  # noqa: S108 the place that WLCG Bearer Token Discovery names; owner and mode are checked


def _read_place(place: str, uid: int) -> Found | None:
    try:
        return Found(_read(place, place, _strangeness(uid), os.O_NOFOLLOW | os.O_NONBLOCK), place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BridgeError(
            f"{place} is not taken: {error.strerror}", hint=f"look at it, then run: rm {place}"
        ) from error


def _ask_agent(path: str, asked: Asked) -> Found:
    settings = asked.settings
    if settings.account is None and settings.issuer is None:
        raise InvalidValue(
            f"oidc-agent runs, but nothing says which of its accounts is for {asked.host}",
            hint="name an account or issuer for it in ~/.config/iam-bridge/client.yaml",
        )
    token = oidc_agent.fetch_token(
        path,
        account=settings.account,
        issuer=settings.issuer,
        audience=settings.audience,
        min_valid_s=MIN_VALID_S,
        uid=asked.uid,
    )
    return Found(token, "oidc-agent")


def _find_named(asked: Asked) -> Found | None:
    """Give the token that the person named, if they named one."""
    if asked.token_file is not None:
        return Found(read_named(asked.token_file, asked.token_file), asked.token_file)
    text, path = asked.environ.get("BEARER_TOKEN"), asked.environ.get("BEARER_TOKEN_FILE")
    if text:
        return Found(_clean(text.encode("utf-8", "surrogateescape"), "BEARER_TOKEN"), "BEARER_TOKEN")
    if path:
        return Found(read_named(path, f"BEARER_TOKEN_FILE ({path})"), f"BEARER_TOKEN_FILE ({path})")
    return None


def _lying_about(asked: Asked) -> Iterator[Callable[[], Found | None]]:
    for place in _places(asked.environ, asked.uid):
        yield partial(_read_place, place, asked.uid)
    agent = asked.environ.get("OIDC_SOCK")
    if agent:
        yield partial(_ask_agent, agent, asked)


def find_token(asked: Asked) -> AccessToken:
    """Give the first token that fits; raise the complaint about the first one that was there, or that none was."""
    named = _find_named(asked)
    if named is not None:
        check_fit(named, asked)
        return named.token
    complaint: BridgeError | None = None
    for source in _lying_about(asked):
        try:
            found = source()
            if found is not None:
                check_fit(found, asked)
                return found.token
        except BridgeError as error:
            complaint = complaint or error
    raise complaint or InvalidValue(
        "there is no access token: neither --token-file, BEARER_TOKEN, BEARER_TOKEN_FILE, a file "
        f"bt_u{asked.uid} nor OIDC_SOCK",
        hint=f"{asked.better_token()} > FILE, then: iam-ssh --token-file FILE {asked.host}",
    )
