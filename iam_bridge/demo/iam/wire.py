"""What the endpoints share: the IAM behind a request, who asks, and IAM's ways to refuse."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from iam_bridge.demo.iam.faults import FaultKind, Strikes
from iam_bridge.demo.iam.records import Client
from iam_bridge.demo.iam.state import EmbeddedIam
from iam_bridge.demo.iam.tokens import IssuedToken, fingerprint

JSON_TYPE = "application/json;charset=UTF-8"
SCIM_TYPE = "application/scim+json;charset=UTF-8"


class Refusal(Exception):
    """An error answer: status, body and headers as IAM gives them."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers


def answer_json(
    body: Mapping[str, Any], status: int = 200, *, headers: Mapping[str, str] | None = None, kind: str = JSON_TYPE
) -> Response:
    """Answer with compact JSON; non-ASCII is escaped, so that any hostile text can be served."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, status, dict(headers or {}), media_type=kind)


def iam_of(request: Request) -> EmbeddedIam:
    """Give the IAM that serves this request."""
    return cast("EmbeddedIam", request.app.state.iam)


def strikes_of(request: Request) -> Strikes:
    """Give the faults that strike at this request."""
    return cast("Strikes", request.scope.get("strikes", {}))


async def read_form(request: Request) -> dict[str, str]:
    """Read an urlencoded form; of repeated fields the last counts."""
    body = await request.body()
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def check_bearer(request: Request, scope: str) -> IssuedToken:
    """Check the Bearer token of a resource request (RFC 6750) and its scope.

    Raises:
        Refusal: 401 without a live token of this IAM, 403 without the scope.
    """
    iam = iam_of(request)
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        description = "Full authentication is required to access this resource"
        raise Refusal(
            401,
            {"error": "unauthorized", "error_description": description},
            {"WWW-Authenticate": f'Bearer realm="openid", error="unauthorized", error_description="{description}"'},
        )
    if strike := strikes_of(request).get(FaultKind.TOKEN_DIES):
        uses: Counter[bytes] = request.app.state.token_uses
        uses[fingerprint(token)] += 1
        if uses[fingerprint(token)] > strike.fault.number:
            iam.revoke(token)
    issued = iam.find_issued(token)
    if issued is None:
        description = "Invalid access token"
        raise Refusal(
            401,
            {"error": "invalid_token", "error_description": description},
            {"WWW-Authenticate": f'Bearer realm="openid", error="invalid_token", error_description="{description}"'},
        )
    if scope not in issued.scopes:
        raise Refusal(403, {"error": "access_denied", "error_description": "Access is denied"})
    return issued


def find_basic_client(request: Request) -> Client | None:
    """Find the client of a Basic header; None if there is no such header.

    Raises:
        Refusal: 401, the credentials are wrong.
    """
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        client_id, secret = "", ""
    return check_client(iam_of(request), client_id, secret)


def check_client(iam: EmbeddedIam, client_id: str, secret: str) -> Client:
    """Check a confidential client's secret.

    Raises:
        Refusal: 401, no such client or another secret.
    """
    client = iam.clients.get(client_id)
    expected = client.secret if client and client.secret else ""
    if client is None or not expected or not hmac.compare_digest(expected.encode(), secret.encode()):
        raise Refusal(
            401,
            {"error": "invalid_client", "error_description": "Bad client credentials"},
            {"WWW-Authenticate": 'Basic realm="oauth"'},
        )
    return client
