"""The one door to an identity provider: JSON over https, bounded in time and size.

What is never done: plain http, redirects, cookies, environment proxies and netrc, compressed answers, certificates that
are not checked, an answer larger or later than allowed. Whatever goes wrong is a SourceUnavailable that names
scheme, host and path, never a query, a header, a body or a server's own words.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from iam_bridge import __version__
from iam_bridge.errors import InvalidValue, SourceUnavailable
from iam_bridge.iam.strict_json import parse_json_object

if TYPE_CHECKING:
    from iam_bridge.iam.transport import Transport
    from iam_bridge.model.token import AccessToken

MAX_BYTES = 4 * 1024 * 1024
MAX_URL = 2000
_RETRY_AFTER_MAX_S = 3600.0

# RFC 6749 5.2, RFC 6750 3.1, RFC 8693 2.2.2, and what INDIGO IAM answers beside them: the only words of a server that
# an error of ours repeats, because they are words of a standard and tell an admin what to mend.
OAUTH_ERRORS = frozenset({
    "access_denied", "insufficient_scope", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope",
    "invalid_target", "invalid_token", "unauthorized", "unauthorized_client", "unsupported_grant_type",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object that a server gave; header names are in lower case."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def retry_after_s(self) -> float | None:
        """Give the seconds that the server asks us to wait, None where it asks nothing."""
        return parse_retry_after(self.headers)


class BadAnswer(SourceUnavailable):
    """The server was reached and its answer cannot be used."""


class BadStatus(BadAnswer):
    """A status that the caller does not accept; `oauth_error` is a registered error code or empty."""

    def __init__(
        self, message: str, *, status: int, oauth_error: str = "", retry_after_s: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.oauth_error = oauth_error
        self.retry_after_s = retry_after_s


class Session:
    """Connections to servers, kept alive between calls; for one thread at a time.

    `ca_file` holds the CAs to believe instead of the system's. There is no proxy: a host that may talk to its issuer
    only through one needs a route, because a proxy named by the environment is a proxy that nobody chose.
    """

    def __init__(self, *, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        self._transport: Transport | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self, where: str) -> None:
        """Load what the first request needs (modules, CAs), for a process that gives its rights away in between.

        `where` names the server in the SourceUnavailable that a CA file without use raises.
        """
        self._open(where)

    def close(self) -> None:
        """Close every connection; the session may be used again."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def fetch_json(
        self,
        url: str,
        *,
        timeout_s: float,
        max_bytes: int = MAX_BYTES,
        method: str = "GET",
        query: Mapping[str, str | int] | None = None,
        form: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        bearer: AccessToken | None = None,
        accept: Collection[int] = (200,),
    ) -> Answer:
        """Ask for a JSON object and give it whole, within `timeout_s` seconds from name look-up to last byte.

        `basic` is (client id, secret), sent as they are: INDIGO IAM does not undo the form encoding that RFC 6749
        2.3.1 asks for. `accept` lists the statuses that are answers. Raises BadStatus for another status, BadAnswer for
        an answer that cannot be used, and SourceUnavailable for everything else that stands against one.
        """
        where = _check_url(url)
        headers = {"Accept": "application/json, application/*+json", "Accept-Encoding": "identity"}
        headers["User-Agent"] = f"iam-bridge/{__version__}"
        if basic is not None:
            headers["Authorization"] = "Basic " + b64encode(":".join(basic).encode()).decode()
        if bearer is not None:
            headers["Authorization"] = "Bearer " + _header_safe(bearer.reveal(), where)
        reply = self._open(where).exchange(
            method, url, where=where, timeout_s=timeout_s, max_bytes=max_bytes,
            headers=headers, query=query, form=form,
        )  # fmt: skip
        if reply.status not in accept:
            raise _bad_status(where, reply.status, reply.body, reply.headers)
        return Answer(reply.status, _parse_body(where, reply.status, reply.body), reply.headers)

    def _open(self, where: str) -> Transport:
        if self._transport is None:
            # requests costs 0.15 s to import, and a login that is answered from cached keys never comes here.
            from iam_bridge.iam.transport import Transport

            self._transport = Transport(self._ca_file, where)
        return self._transport


def fetch_json(url: str, *, timeout_s: float, ca_file: Path | None = None, **options: Any) -> Answer:
    """Ask once, over a connection of its own; `options` are those of Session.fetch_json."""
    with Session(ca_file=ca_file) as session:
        return session.fetch_json(url, timeout_s=timeout_s, **options)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After as seconds, 0 to 3600 (RFC 9110 10.2.3); a date counts from the server's own Date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _RETRY_AFTER_MAX_S)
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(wait.total_seconds(), 0.0), _RETRY_AFTER_MAX_S)


def _check_url(url: str) -> str:
    """Give scheme, host and path of an https URL, fit for a message."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  reading it raises where the port is no number
    except ValueError:
        raise SourceUnavailable("an address given by the identity provider is no URL") from None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not plain or len(url) > MAX_URL or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise SourceUnavailable("an address given by the identity provider is no plain https URL")
    if parts.scheme != "https":
        raise SourceUnavailable(f"{parts.scheme}://{parts.netloc}{parts.path} is not asked", hint="only https is used")
    return f"https://{parts.netloc}{parts.path}"


def _header_safe(secret: str, where: str) -> str:
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SourceUnavailable(f"{where} is not asked: the token holds characters that no header may carry")
    return secret


def _parse_body(where: str, status: int, body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise BadAnswer(f"{where} answered {status} with an empty body")
    try:
        return parse_json_object(body)
    except InvalidValue as error:
        raise BadAnswer(f"{where} answered {status} with what cannot be read: {error.message}") from None


def _bad_status(where: str, status: int, body: bytes, headers: Mapping[str, str]) -> BadStatus:
    if 300 <= status < 400:
        message = f"{where} answered with a redirect ({status}), which is never followed"
        return BadStatus(message, status=status, hint="name the final address")
    word = _oauth_error(body)
    message = f"{where} answered {status}" + (f" ({word})" if word else "")
    hint = "the client or its secret is not accepted there" if word == "invalid_client" else ""
    return BadStatus(message, status=status, oauth_error=word, retry_after_s=parse_retry_after(headers), hint=hint)


def _oauth_error(body: bytes) -> str:
    try:
        word = parse_json_object(body).get("error")
    except InvalidValue:
        return ""
    return word if isinstance(word, str) and word in OAUTH_ERRORS else ""
