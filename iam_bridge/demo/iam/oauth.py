"""Discovery, `/jwk`, `/token`, `/introspect`, `/userinfo` and `/stats`, as INDIGO IAM 1.12 gives them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iam_bridge.demo.iam.faults import FaultKind
from iam_bridge.demo.iam.profiles import name_groups, name_person, select_groups
from iam_bridge.demo.iam.records import Client
from iam_bridge.demo.iam.state import TOKEN_LIFETIME_S, EmbeddedIam
from iam_bridge.demo.iam.tokens import IssuedToken
from iam_bridge.demo.iam.wire import (
    Refusal,
    answer_json,
    check_bearer,
    check_client,
    find_basic_client,
    iam_of,
    read_form,
    strikes_of,
)

ENDPOINTS = {
    "authorization_endpoint": "/authorize",
    "token_endpoint": "/token",
    "userinfo_endpoint": "/userinfo",
    "jwks_uri": "/jwk",
    "registration_endpoint": "/iam/api/client-registration",
    "introspection_endpoint": "/introspect",
    "revocation_endpoint": "/revoke",
    "device_authorization_endpoint": "/devicecode",
    "scim_endpoint": "/scim",
    "op_policy_uri": "/about",
    "op_tos_uri": "/about",
}
# IAM lists HS* and none although it signs with neither: a client must pin its own list.
ALGORITHMS = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "none"]
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def discovery(request: Request) -> Response:
    """Answer `GET /.well-known/openid-configuration`; `issuer` always ends in a slash."""
    issuer = iam_of(request).issuer.rstrip("/") + "/"
    strike = strikes_of(request).get(FaultKind.WRONG_ISSUER)
    return answer_json(
        {
            "issuer": str(strike.fault.value) if strike else issuer,
            **{name: issuer.rstrip("/") + path for name, path in ENDPOINTS.items()},
            "response_types_supported": ["code", "token"],
            "grant_types_supported": [
                "authorization_code",
                "refresh_token",
                "client_credentials",
                "password",
                "urn:ietf:params:oauth:grant-type:token-exchange",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "subject_types_supported": ["public", "pairwise"],
            "id_token_signing_alg_values_supported": ALGORITHMS,
            "userinfo_signing_alg_values_supported": ALGORITHMS,
            "request_object_signing_alg_values_supported": ALGORITHMS,
            "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS[:-1],
            "token_endpoint_auth_methods_supported": [
                "client_secret_basic",
                "client_secret_post",
                "client_secret_jwt",
                "private_key_jwt",
                "none",
            ],
            "scopes_supported": ["openid", "profile", "email", "address", "phone", "offline_access", "attr"],
            "claims_supported": [
                "sub",
                "name",
                "preferred_username",
                "given_name",
                "family_name",
                "email",
                "groups",
                "wlcg.groups",
                "organisation_name",
                "external_authn",
            ],
            "code_challenge_methods_supported": ["plain", "S256"],
        }
    )


async def jwk(request: Request) -> Response:
    """Answer `GET /jwk`."""
    keys = {"keys": []} if FaultKind.EMPTY_KEYS in strikes_of(request) else iam_of(request).keys.jwks()
    return answer_json(keys, headers={"Cache-Control": "max-age=21600"})


async def stats(request: Request) -> Response:
    """Answer `GET /stats`, which asks for no authentication (since 1.10)."""
    number, active = iam_of(request).stats()
    return answer_json({"numberOfUsers": number, "activeUsers": active})


# ---- /token --------------------------------------------------------------------------------------


async def token(request: Request) -> Response:
    """Answer `POST /token` for the client_credentials grant (RFC 6749 section 4.4)."""
    iam, form = iam_of(request), await read_form(request)
    client = find_basic_client(request)
    if client is None:
        client = check_client(iam, form.get("client_id", ""), form.get("client_secret", ""))
    scopes = _check_grant(client, form)
    audience = form.get("audience") or form.get("resource") or ""
    minted = iam.mint_for_client(client.id, scopes=scopes, audience=audience)
    # No refresh token: IAM gives none for this grant since 1.11.
    body = {
        "access_token": minted,
        "token_type": "Bearer",
        "expires_in": TOKEN_LIFETIME_S - 1,
        "scope": " ".join(scopes),
    }
    return answer_json(body, headers=NO_STORE)


def _check_grant(client: Client, form: dict[str, str]) -> Sequence[str]:
    """Check grant type and scopes; give the granted ones (all of the client's, if none were asked for)."""
    grant = form.get("grant_type", "")
    if not grant:
        raise _token_error(400, "invalid_request", "Missing grant type")
    if grant != "client_credentials":
        raise _token_error(400, "unsupported_grant_type", "Unsupported grant type")
    if grant not in client.grants:
        raise _token_error(401, "invalid_client", f"Unauthorized grant type: {grant}")
    asked = form.get("scope", "").split() or sorted(client.scopes)
    if refused := [scope for scope in asked if not client.allows(scope)]:
        raise _token_error(400, "invalid_scope", f"Invalid scope: {' '.join(refused)}")
    return asked


def _token_error(status: int, error: str, description: str) -> Refusal:
    return Refusal(status, {"error": error, "error_description": description}, NO_STORE)


# ---- /introspect ---------------------------------------------------------------------------------


async def introspect(request: Request) -> Response:
    """Answer `POST /introspect` (RFC 7662): Basic authentication only, dead tokens say nothing else."""
    iam = iam_of(request)
    caller = find_basic_client(request)
    if caller is None:
        description = "Full authentication is required to access this resource"
        raise Refusal(
            401,
            {"error": "unauthorized", "error_description": description},
            {"WWW-Authenticate": 'Basic realm="oauth"'},
        )
    if not caller.may_introspect:
        raise Refusal(403, {"error": "access_denied", "error_description": "Access is denied"})
    form = await read_form(request)
    issued = iam.find_issued(form.get("token", ""))
    if issued is None or _honestly_dead(iam, issued):
        return answer_json({"active": False})
    if issued.person_id is None and issued.profile in {"wlcg", "kc"}:
        # These profiles' helpers expect a person behind every token and fall over a client's own.
        raise Refusal(500, {"error": "server_error", "error_description": "Internal Server Error"})
    return answer_json(_show_active(iam, issued, caller))


def _honestly_dead(iam: EmbeddedIam, issued: IssuedToken) -> bool:
    person = iam.find_person(issued.person_id or "")
    return not iam.suspended_tokens_stay_active and person is not None and not person.active


def _show_active(iam: EmbeddedIam, issued: IssuedToken, caller: Client) -> dict[str, Any]:
    person = iam.find_person(issued.person_id or "")
    claims = issued.claims
    # Scopes are cut to the caller's own; what hangs on them in the iam and aarc profiles goes with them.
    scopes = [scope for scope in issued.scopes if caller.allows(scope)]
    audience = claims.get("aud", [])
    values = audience.split() if isinstance(audience, str) else audience
    body: dict[str, Any] = {"active": True, "sub": claims.get("sub"), "client_id": issued.client_id}
    body["scope"] = " ".join(scopes)
    if iam.version == "1.14":
        body |= {name: claims[name] for name in ("iss", "aud", "exp", "iat", "nbf", "jti") if name in claims}
        body |= {"token_type": "ACCESS_TOKEN", **({"username": person.username} if person else {})}
    else:
        body |= {"iss": iam.issuer.rstrip("/") + "/", "token_type": "Bearer"}
        body |= {"user_id": person.username} if person else {}
        body |= {"aud": " ".join(map(str, values))} if values else {}
        if isinstance(exp := claims.get("exp"), (int, float)):
            body |= {"exp": int(exp), "expires_at": datetime.fromtimestamp(exp, UTC).strftime("%Y-%m-%dT%H:%M:%S%z")}
    if person is not None:
        follows = issued.scopes if issued.profile in {"wlcg", "kc"} else scopes
        body |= name_groups(issued.profile, select_groups(issued.profile, iam.groups_of(person), follows))
        if issued.profile in {"iam", "aarc"}:
            named = name_person(person, set(scopes) & {"profile", "email"})
            body |= {name: named[name] for name in INTROSPECTED_NAMES if name in named}
    return body


INTROSPECTED_NAMES = ("name", "preferred_username", "organisation_name", "email")


# ---- /userinfo -----------------------------------------------------------------------------------


async def userinfo(request: Request) -> Response:
    """Answer `GET` and `POST /userinfo`; needs a person's token with the scope `openid`."""
    iam, issued = iam_of(request), check_bearer(request, "openid")
    person = iam.find_person(issued.person_id or "")
    if person is None:
        raise Refusal(403, {"error": "access_denied", "error_description": "Access is denied"})
    body = {"sub": person.id, **name_person(person, issued.scopes)}
    if issued.profile == "wlcg" and "wlcg.groups" in issued.claims:
        body["wlcg.groups"] = issued.claims["wlcg.groups"]
    elif issued.profile != "wlcg":
        body |= name_groups(issued.profile, select_groups(issued.profile, iam.groups_of(person), issued.scopes))
    return answer_json(body)


ROUTES = [
    Route("/.well-known/openid-configuration", discovery),
    Route("/jwk", jwk),
    Route("/stats", stats),
    Route("/token", token, methods=["POST"]),
    Route("/introspect", introspect, methods=["POST"]),
    Route("/userinfo", userinfo, methods=["GET", "POST"]),
]
