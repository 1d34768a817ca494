"""Client credentials (RFC 6749 4.4): how the pull gets its token.

This goes through our own session and not through an OAuth library's: the rules of that session (https only, no
redirect, no environment, one deadline, a bounded body) hold for the one request that carries the client's secret too.
"""

from __future__ import annotations

from dataclasses import dataclass

from iam_bridge.errors import SourceUnavailable
from iam_bridge.iam.http import BadStatus, Session
from iam_bridge.model.token import AccessToken

TOKEN_MAX = 64 * 1024
_CLIENT_ANSWERS = (400, 401, 403)


@dataclass(frozen=True, slots=True, repr=False)
class ClientCredentials:
    """A confidential client of ours at one token endpoint."""

    token_endpoint: str
    client_id: str
    secret: str
    scope: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"<client {self.client_id}>"

    def fetch_token(self, session: Session) -> AccessToken:
        """Ask for a fresh token; raise SourceUnavailable where none is given, or one without our scope."""
        try:
            answer = session.fetch_json(
                self.token_endpoint,
                timeout_s=self.timeout_s,
                method="POST",
                form={"grant_type": "client_credentials", "scope": self.scope},
                basic=(self.client_id, self.secret),
            )
        except BadStatus as error:
            if error.status not in _CLIENT_ANSWERS:
                raise
            hint = f"check the client's id and secret, its grant client_credentials and its scope {self.scope}"
            raise SourceUnavailable(f"the client {self.client_id} gets no token: {error.message}", hint=hint) from error
        return self._check_answer(answer.body)

    def _check_answer(self, body: dict[str, object]) -> AccessToken:
        text, kind = body.get("access_token"), body.get("token_type")
        where = f"{self.token_endpoint} answered the client {self.client_id}"
        if not isinstance(text, str) or not 0 < len(text) <= TOKEN_MAX:
            raise SourceUnavailable(f"{where} without a usable access token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise SourceUnavailable(f"{where} with a token that is no bearer token")
        granted = body.get("scope", self.scope)  # RFC 6749 5.1: absent where it is what was asked for
        if not isinstance(granted, str) or self.scope not in granted.split():
            hint = f"an admin of the IAM can give the client the scope {self.scope}"
            raise SourceUnavailable(f"{where} with a token that lacks the scope {self.scope}", hint=hint)
        return AccessToken(text)
