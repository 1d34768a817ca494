"""Authorised SCIM requests: the token, its renewal, a server's wish to wait, and the count of what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from iam_bridge.errors import SourceUnavailable
from iam_bridge.iam.http import BadStatus, Session
from iam_bridge.iam.members.tokens import ClientCredentials
from iam_bridge.model.identity import Issuer
from iam_bridge.model.token import AccessToken

PAGE_BYTES_MAX = 16 * 1024 * 1024
"""A hundred people in three hundred groups each, three times over."""
WAIT_MAX_S = 60.0
"""The longest Retry-After that is obeyed, three times for one request; beyond that the next run has to try."""
WAITS = 3
_BUSY = (429, 503)


class ScimClient:
    """Asks one SCIM server; `requests` counts what was sent there, tokens and discovery apart."""

    def __init__(
        self,
        session: Session,
        base: str,
        credentials: ClientCredentials,
        *,
        timeout_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        self.requests = 0
        self._session = session
        self._base = base
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._token: AccessToken | None = None

    def fetch(self, path: str, query: Mapping[str, str | int]) -> dict[str, Any]:
        """Ask for a JSON object below the SCIM base; raise SourceUnavailable where none comes.

        A token that died is renewed once per request: a fresh one that is refused too will not be mended by a third.
        """
        renewed = False
        waits = 0
        while True:
            if self._token is None:
                self._token = self._credentials.fetch_token(self._session)
            self.requests += 1
            try:
                return self._session.fetch_json(
                    self._base + path,
                    timeout_s=self._timeout_s,
                    max_bytes=PAGE_BYTES_MAX,
                    query=query,
                    bearer=self._token,
                ).body
            except BadStatus as error:
                if error.status == 401 and not renewed:
                    renewed, self._token = True, None
                elif error.status in _BUSY and waits < WAITS and _is_patient(error.retry_after_s):
                    waits += 1
                    self._sleep(error.retry_after_s or 0.0)
                else:
                    raise _explained(error, self._credentials) from error

    def fetch_stats(self, issuer: Issuer) -> int | None:
        """Ask for IAM's own count of people (`/stats`, since IAM 1.10, open to all); None where there is none."""
        self.requests += 1
        try:
            answer = self._session.fetch_json(issuer.url.rstrip("/") + "/stats", timeout_s=self._timeout_s)
        except SourceUnavailable:
            return None  # older, or closed by a proxy: the SCIM counts alone make the proof then
        counted = answer.body.get("numberOfUsers")
        return counted if isinstance(counted, int) and not isinstance(counted, bool) else None


def _is_patient(wait_s: float | None) -> bool:
    return wait_s is not None and wait_s <= WAIT_MAX_S


def _explained(error: BadStatus, credentials: ClientCredentials) -> SourceUnavailable:
    hints = {
        401: "a fresh token was refused too: check that this IAM issues tokens for its own SCIM interface",
        403: f"an admin of the IAM can give the client {credentials.client_id} the scope {credentials.scope}",
    }
    return SourceUnavailable(error.message, hint=hints.get(error.status, error.hint))
