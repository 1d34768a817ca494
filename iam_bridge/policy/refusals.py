"""What a person reads when their token is refused: one sentence, and where it helps the command to run next."""

from __future__ import annotations

from iam_bridge.errors import Reason, TokenRefused
from iam_bridge.model.verdict import Deny
from iam_bridge.policy.login import NO_ACCESS, NOT_NOW

_FIXED = {
    Reason.EXPIRED: "Your token has expired. Get a new one and log in again.",
    Reason.NOT_YET_VALID: "Your token is not valid yet: its clock is ahead of this host's.",
    Reason.TRUNCATED: "The token was cut on its way (OpenSSH passes 1023 characters). Log in with: iam-ssh",
    Reason.TOO_LONG: "The token is too long. Ask your IAM for one with fewer groups or scopes.",
    Reason.NOT_A_TOKEN: "This is no access token. Passwords do not work at this prompt.",
    Reason.EMPTY: "No token was given.",
    Reason.ID_TOKEN: "This is an ID token; an access token is needed.",
    Reason.BOUND_TOKEN: "This token is bound to a key (DPoP or mutual TLS); a plain bearer token is needed.",
    Reason.CLIENT_TOKEN: "This token speaks for a client, not for a person.",
    Reason.UNTRUSTED_ISSUER: "This site does not trust the issuer of this token.",
    Reason.INACTIVE: "The IAM says that this token is no longer active.",
    Reason.NO_KEYS: NOT_NOW,
    Reason.ISSUER_UNREACHABLE: NOT_NOW,
    Reason.INTERNAL: NOT_NOW,
}


def explain_refusal(refused: TokenRefused, audience: tuple[str, ...]) -> Deny:
    """Turn a refused token into a denial; a missing audience names the command that gets the right token."""
    if refused.reason in (Reason.NO_AUDIENCE, Reason.WRONG_AUDIENCE) and audience:
        text = f"This token is not for this site. Get one with: oidc-token --aud {audience[0]} ACCOUNT"
        return Deny(refused.reason, text, refused.detail)
    return Deny(refused.reason, _FIXED.get(refused.reason, NO_ACCESS), refused.detail)
