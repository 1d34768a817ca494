"""`iam-bridge token show`: what a token says of itself, loudly unverified, and what this site says of it."""

from __future__ import annotations

import base64
import binascii
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iam_bridge.cli.context import read_config, utc_now
from iam_bridge.cli.decision import verify
from iam_bridge.cli.log_notes import Notes, logs_as_notes
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import moment, print_fields, print_json, say, span
from iam_bridge.cli.token_input import TokenFile, read_token
from iam_bridge.errors import Exit, InvalidValue, TokenRefused
from iam_bridge.iam.jws import MAX_TOKEN_CHARS
from iam_bridge.iam.strict_json import parse_json_object
from iam_bridge.model.token import fingerprint_of

app = new_family("Look into a token.")

SHOWN_MAX = 400
"""Characters of one value; all of it is in --json."""
_TIMES = ("exp", "iat", "nbf", "auth_time")
_LABEL = "UNVERIFIED: anybody can write this; nothing below is believed before the verdict at the end says so"


@app.command(
    short_help="Show a token's claims, and whether it verifies.",
    epilog=example("iam-bridge token show --token-file token", "iam-bridge token show --token-file - --json < token"),
)
def show(token_file: TokenFile = None, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Show header and claims of a token WITHOUT verifying them, then what verification for a login here says.

    The token itself and its signature are never printed. Exit status 0: it verifies (or there are no settings to
    verify it with); 3: it is refused.
    """
    raw = read_token(token_file)
    parts = _unverified_parts(raw)
    with logs_as_notes() as notes:
        verdict = _verdict(raw, config, notes)
    if as_json:
        names = ("unverified_header", "unverified_claims")
        print_json({"fingerprint": fingerprint_of(raw), **dict(zip(names, parts, strict=True)), **verdict})
    else:
        _print(raw, parts, verdict)
    return Exit.REFUSED if verdict["verified"] is False else Exit.OK


def _unverified_parts(raw: bytes) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Read header and payload, each None where it is no JSON object; nothing is believed and nothing is asked."""
    pieces = raw.split(b".") if len(raw) <= MAX_TOKEN_CHARS else []
    header, payload = [_unverified_object(piece) for piece in (*pieces[:2], b"", b"")[:2]]
    return header, payload


def _unverified_object(piece: bytes) -> dict[str, Any] | None:
    try:
        return parse_json_object(base64.urlsafe_b64decode(piece + b"=" * (-len(piece) % 4)))
    except (InvalidValue, binascii.Error, ValueError):
        return None


def _verdict(raw: bytes, config: Path, notes: Notes) -> dict[str, Any]:
    """Say what the login daemon says; `verified` is None where there are no settings here, as on a laptop."""
    if config == SETTINGS_FILE and not os.path.lexists(config):
        return {"verified": None, "reason": "", "detail": f"there are no settings on this host ({config})"}
    settings = read_config(config)
    try:
        token = verify(settings, raw, utc_now)
    except TokenRefused as refused:
        notes.said(refused.detail)
        return {"verified": False, "reason": refused.reason.value, "detail": refused.detail}
    return {"verified": True, "reason": "", "detail": f"{token.subject} until {moment(token.expires_at)}"}


def _print(raw: bytes, parts: tuple[dict[str, Any] | None, dict[str, Any] | None], verdict: dict[str, Any]) -> None:
    say(_LABEL, "change")
    print_fields([("token", f"{len(raw)} bytes, fingerprint {fingerprint_of(raw)}")])
    now = utc_now()
    for what, part in zip(("header", "claim"), parts, strict=True):
        if part is None:
            say(f"{what}: cannot be read: no JSON object in base64url", "bad")
        else:
            print_fields((f"{what} {_short(name, 60)}", _shown(name, value, now)) for name, value in part.items())
    match verdict["verified"]:
        case True:
            say(f"VERIFIED for a login here: {verdict['detail']}", "good")
        case False:
            say(f"REFUSED for a login here: {verdict['reason']}: {verdict['detail']}", "bad")
        case _:
            say(f"not verified: {verdict['detail']}", "change")


def _shown(name: str, value: Any, now: datetime) -> str:
    """Write a value as JSON in ASCII, a time with its meaning behind it."""
    text = _short(json.dumps(value, ensure_ascii=True), SHOWN_MAX)
    if name not in _TIMES or isinstance(value, bool) or not isinstance(value, int | float):
        return text
    try:
        at = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return text
    away = (at - now).total_seconds()
    return f"{text}  {moment(at)}, " + (f"in {span(away)}" if away > 0 else f"{span(away)} ago")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "..."
