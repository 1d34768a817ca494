"""How bytes travel: `requests` with a deadline for the whole exchange, and nothing taken from the environment.

The timeouts of `requests` bound each read; a server that sends a byte a second passes them for ever. Here every
operation on the socket looks at one deadline, so that slow names, slow handshakes, slow headers and slow bodies all end
at the same moment.
"""

from __future__ import annotations

import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from iam_bridge.errors import SourceUnavailable
from iam_bridge.iam.http import BadAnswer

# urllib3 logs headers that it cannot parse word by word, and addresses with their queries; we say what went wrong.
logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)

_CHUNK = 64 * 1024
_deadline: ContextVar[float] = ContextVar("deadline")

Address = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, undecoded; header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Transport:
    """One `requests` session, for one thread at a time."""

    def __init__(self, ca_file: Path | None, where: str) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.adapters.clear()  # plain http has no adapter, hence no way out
        self._session.mount("https://", _Adapter(_tls_context(ca_file, where)))

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def exchange(
        self,
        method: str,
        url: str,
        *,
        where: str,
        timeout_s: float,
        max_bytes: int,
        headers: Mapping[str, str],
        query: Mapping[str, str | int] | None,
        form: Mapping[str, str] | None,
    ) -> Reply:
        """Send one request and read the whole reply; raise SourceUnavailable, which names `where`, for any failure."""
        mark = _deadline.set(time.monotonic() + timeout_s)
        try:
            with self._session.request(
                method, url, params=query, data=form, headers=dict(headers),
                stream=True, allow_redirects=False, timeout=timeout_s,
            ) as response:  # fmt: skip
                body = _read_body(response, where=where, max_bytes=max_bytes)
                names = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status_code, body, names)
        except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
            raise _unavailable(error, where=where, timeout_s=timeout_s) from None  # its text quotes URLs and bytes
        finally:
            _deadline.reset(mark)


def _read_body(response: requests.Response, *, where: str, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        # A kilobyte of gzip can hold a gigabyte; we asked for none of it.
        raise BadAnswer(f"{where} sent a compressed answer, which was not asked for")
    body = bytearray()
    while chunk := response.raw.read(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > max_bytes:
            raise BadAnswer(f"{where} sent more than {max_bytes} bytes")
    return bytes(body)


def _tls_context(ca_file: Path | None, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SourceUnavailable(
            f"{where} is not asked: the CA file {ca_file} cannot be used", hint="ca_file names a readable PEM file"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _DeadlineSocket
    return context


def _left_s() -> float:
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _DeadlineSocket(ssl.SSLSocket):
    """A TLS socket whose every read and write ends at the deadline of the exchange."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(_left_s())
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self.settimeout(_left_s())
        return super().send(data, flags)


class _Connection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        """Connect within the deadline; the library would give each address the whole time-out, and names even more."""
        addresses = _look_up(self._dns_host, self.port or 443)
        for place, (family, address) in enumerate(addresses):
            last = place == len(addresses) - 1
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(_left_s() / (len(addresses) - place))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(_left_s())  # for the handshake, which OpenSSL's caller bounds as a whole
            except OSError:
                sock.close()
                if last:
                    raise
                continue
            return sock
        raise socket.gaierror("the name has no address")


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Connections of ours, with CAs from our context alone."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=4, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def close(self) -> None:
        """Close every connection now; the library leaves that to the garbage collector."""
        pools = self.poolmanager.pools
        for key in list(pools.keys()):
            pools[key].close()
        super().close()

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave our context alone: it demands certificates and knows its CAs; the library would add its own list."""


def _look_up(host: str, port: int) -> list[tuple[int, Address]]:
    """Give (family, address) pairs. getaddrinfo cannot be told when to stop, hence a thread that may be left behind."""
    answers: queue.SimpleQueue[list[tuple[int, Address]] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([(family, address) for family, _, _, _, address in found])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=_left_s())
    except queue.Empty:
        raise TimeoutError("the name look-up did not end") from None
    if isinstance(answer, (OSError, UnicodeError)):
        raise answer
    return answer


def _unavailable(error: BaseException, *, where: str, timeout_s: float) -> SourceUnavailable:
    """Say in one sentence what went wrong, in words of ours: a library's own text quotes what must not be shown."""
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = "check ca_file and this host's clock"
            return SourceUnavailable(f"{where} shows a certificate that is not trusted here", hint=hint)
    for cause in causes:
        if isinstance(cause, (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)):
            return SourceUnavailable(f"{where} did not answer within {timeout_s:g} s")
        if isinstance(cause, socket.gaierror):
            return SourceUnavailable(f"{where} cannot be asked: its name does not resolve", hint="check DNS")
        if isinstance(cause, ConnectionRefusedError):
            return SourceUnavailable(f"{where} cannot be asked: nothing listens there")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return SourceUnavailable(f"{where} cannot be asked: no TLS connection came about")
    return SourceUnavailable(f"{where} broke the connection or answered what is no HTTP")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        item = todo.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        todo += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
