"""oidc-agent: ask the agent that holds the person's refresh token for an access token.

The protocol is one JSON object each way over the Unix stream socket that OIDC_SOCK names (oidc-agent documentation,
"IPC-API"; the plain form, which the agent takes beside the encrypted one). The agent may ask the person for a
passphrase meanwhile, so that the time-out is a person's.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from iam_bridge.errors import BridgeError, SourceUnavailable
from iam_bridge.model.identity import Issuer
from iam_bridge.model.token import AccessToken

REPLY_MAX = 1 << 18
PERSON_TIMEOUT_S = 120.0
_SHOWN_MAX = 200


def _check_peer(connection: socket.socket, path: str, uid: int) -> None:
    """Refuse an agent of somebody else: its token would open somebody else's account (unix(7), SO_PEERCRED)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    _, peer_uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    if peer_uid not in (uid, 0):
        raise BridgeError(f"the oidc-agent at {path} belongs to another user", hint="start your own agent anew")


def _receive_object(connection: socket.socket) -> dict[str, Any]:
    """Read until the reply is one whole JSON object; the protocol has neither length nor end mark."""
    received = b""
    while len(received) <= REPLY_MAX:
        piece = connection.recv(65536)
        received += piece
        try:
            reply = json.loads(received)
        except (ValueError, RecursionError):
            if piece:
                continue
            break
        if isinstance(reply, dict):
            return reply
        break
    raise SourceUnavailable(
        "oidc-agent sent an answer that cannot be read", hint="is OIDC_SOCK an oidc-agent's socket?"
    )


def _ask(path: str, request: dict[str, Any], *, uid: int, timeout_s: float) -> dict[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(path)
            _check_peer(connection, path, uid)
            connection.sendall(json.dumps(request).encode())
            return _receive_object(connection)
    except TimeoutError as error:
        raise SourceUnavailable(f"oidc-agent did not answer within {timeout_s:g} s") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceUnavailable(f"oidc-agent at {path!r} cannot be asked: {reason}", hint="is it running?") from error


def fetch_token(
    path: str,
    *,
    account: str | None,
    issuer: Issuer | None,
    audience: str | None,
    min_valid_s: int,
    uid: int,
    timeout_s: float = PERSON_TIMEOUT_S,
) -> AccessToken:
    """Ask the agent for a token by account or, where that is None, by issuer, bound to the audience.

    Raises SourceUnavailable where there is no agent or no readable answer, BridgeError with the agent's own words
    where it refuses.
    """
    request: dict[str, Any] = {
        "request": "access_token",
        "min_valid_period": min_valid_s,
        "application_hint": "iam-ssh",
    }
    request |= {"account": account} if account else {"issuer": str(issuer)}
    if audience:
        request["audience"] = audience
    reply = _ask(path, request, uid=uid, timeout_s=timeout_s)
    token = reply.get("access_token")
    if reply.get("status") == "success" and isinstance(token, str) and token:
        return AccessToken(token)
    words = str(reply.get("error", "no reason given"))[:_SHOWN_MAX]
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in words)
    whose = f"account {account}" if account else f"issuer {issuer}"
    load = f"load it with: oidc-add {account or 'ACCOUNT'}"
    raise BridgeError(f"oidc-agent gives no token for {whose}: {shown}", hint=load)
