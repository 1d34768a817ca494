"""Where an issuer's endpoints are, by OpenID Connect Discovery 1.0 (RFC 8414 says the same of plain OAuth servers).

The document decides where our client secrets and the search for keys go, so it may only point to the issuer's own host
and port: an endpoint elsewhere counts as not named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from iam_bridge.iam.http import BadAnswer, Session
from iam_bridge.model.identity import Issuer

MAX_METADATA_BYTES = 128 * 1024
_HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the issuer says of itself; an endpoint is None where it names none on its own host.

    `scim_endpoint` is INDIGO IAM's own addition.
    """

    issuer: Issuer
    jwks_uri: str
    token_endpoint: str | None
    introspection_endpoint: str | None
    userinfo_endpoint: str | None
    scim_endpoint: str | None


def metadata_url(issuer: Issuer) -> str:
    """Give the address of the issuer's metadata (Discovery 4: a final slash of the issuer is dropped)."""
    return issuer.url.rstrip("/") + "/.well-known/openid-configuration"


def fetch_metadata(session: Session, issuer: Issuer, *, timeout_s: float) -> Metadata:
    """Fetch and check an issuer's metadata; raise SourceUnavailable where it is not there or not this issuer's."""
    url = metadata_url(issuer)
    body = session.fetch_json(url, timeout_s=timeout_s, max_bytes=MAX_METADATA_BYTES).body
    return parse_metadata(body, issuer)


def parse_metadata(body: dict[str, Any], issuer: Issuer) -> Metadata:
    """Read metadata; raise BadAnswer when `issuer` in it is another (Discovery 4.3) or it names no keys."""
    url = metadata_url(issuer)
    if not issuer.matches(body.get("issuer")):
        raise BadAnswer(
            f"{url} speaks for another issuer than {issuer}", hint="write the issuer exactly as its metadata do"
        )
    home = urlsplit(issuer.url)
    jwks_uri = _endpoint(body, "jwks_uri", home)
    if jwks_uri is None:
        raise BadAnswer(f"{url} names no jwks_uri by https on its own host")
    return Metadata(
        issuer=issuer,
        jwks_uri=jwks_uri,
        token_endpoint=_endpoint(body, "token_endpoint", home),
        introspection_endpoint=_endpoint(body, "introspection_endpoint", home),
        userinfo_endpoint=_endpoint(body, "userinfo_endpoint", home),
        scim_endpoint=_endpoint(body, "scim_endpoint", home),
    )


def _endpoint(body: dict[str, Any], name: str, home: SplitResult) -> str | None:
    value = body.get(name)
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return None
    try:
        there = urlsplit(value)
        same_host = (there.hostname, there.port or _HTTPS_PORT) == (home.hostname, home.port or _HTTPS_PORT)
    except ValueError:  # a port that is no number
        return None
    plain = there.scheme == "https" and "@" not in there.netloc and not there.fragment
    return value if plain and same_host else None
