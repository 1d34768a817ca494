"""The https door: what it asks, what it accepts, and how every failure reads."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.demo.iam import EmbeddedIam, FaultKind, ServedIam, indigo_fixture, running_iam
from iam_bridge.errors import SourceUnavailable
from iam_bridge.iam.discovery import Metadata, fetch_metadata, parse_metadata
from iam_bridge.iam.http import Answer, BadAnswer, BadStatus, Session, fetch_json, parse_retry_after
from iam_bridge.model.identity import Issuer
from iam_bridge.model.token import AccessToken
from tests.unit.raw_tls import Script, drips, raw_server, read_request, reply, says

SECRET = "s3cr3t-never-shown"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedIam]:
    with running_iam(EmbeddedIam(indigo_fixture()), tmp_path_factory.mktemp("iam")) as iam:
        yield iam


@pytest.fixture(autouse=True)
def no_faults(served: ServedIam) -> Iterator[None]:
    yield
    served.iam.clear_faults()


def ask(served: ServedIam, path: str = "/stats", **options: Any) -> Answer:
    given: dict[str, Any] = {"timeout_s": 5.0, "ca_file": served.ca_file, "bearer": AccessToken(SECRET)} | options
    return fetch_json(served.base_url + path + f"?token={SECRET}", **given)


def failure(served: ServedIam, **options: Any) -> SourceUnavailable:
    with pytest.raises(SourceUnavailable) as caught:
        ask(served, **options)
    shown = str(caught.value) + repr(caught.value.args)
    assert SECRET not in shown
    assert served.base_url + "/stats" in shown
    assert caught.value.__cause__ is None  # what the library said would be printed with a trace
    return caught.value


def raw_failure(folder: Path, script: Script, *, handshake: bool = True, **options: Any) -> tuple[str, float]:
    with raw_server(folder, script, handshake=handshake) as server:
        given: dict[str, Any] = {"timeout_s": 5.0, "ca_file": server.ca_file} | options
        start = time.monotonic()
        with pytest.raises(SourceUnavailable) as caught:
            fetch_json(server.url, **given)
        return str(caught.value), time.monotonic() - start


def test_an_answer_has_status_body_and_headers(served: ServedIam) -> None:
    answer = ask(served)
    assert answer.status == 200
    assert answer.body["numberOfUsers"] == 255
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.retry_after_s is None


def test_connections_are_kept_alive(served: ServedIam) -> None:
    before = served.connections
    with Session(ca_file=served.ca_file) as session:
        for _ in range(5):
            session.fetch_json(served.base_url + "/stats", timeout_s=5)
    assert served.connections == before + 1


def test_a_closed_session_connects_anew(served: ServedIam) -> None:
    session = Session(ca_file=served.ca_file)
    session.fetch_json(served.base_url + "/stats", timeout_s=5)
    session.close()
    assert session.fetch_json(served.base_url + "/stats", timeout_s=5).status == 200
    session.close()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FaultKind.EMPTY_BODY, "answered 200 with an empty body"),
        (FaultKind.GARBAGE, "cannot be read: the text is no JSON"),
        (FaultKind.DEEP_JSON, "nested"),
        (FaultKind.CUT_BODY, "broke the connection"),
        (FaultKind.HUGE_BODY, "sent more than 4194304 bytes"),
        (FaultKind.REDIRECT, "answered with a redirect (302), which is never followed"),
        (FaultKind.SERVER_ERROR, "answered 500"),
        (FaultKind.HANG, "did not answer within 0.6 s"),
        (FaultKind.SLOW, "did not answer within 0.6 s"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_fault_is_one_clear_sentence(served: ServedIam, kind: FaultKind, words: str) -> None:
    served.iam.fault(kind, path="/stats")
    timeout_s = 0.6 if kind in {FaultKind.HANG, FaultKind.SLOW} else 5.0
    start = time.monotonic()
    error = failure(served, timeout_s=timeout_s)
    assert words in error.message
    assert time.monotonic() - start < timeout_s + 0.5


def test_a_redirect_is_not_followed_even_within_the_host(served: ServedIam) -> None:
    served.iam.reset_counters()
    served.iam.fault(FaultKind.REDIRECT, path="/stats", value=served.base_url + "/jwk")
    assert isinstance(failure(served), BadStatus)
    assert served.iam.count("/jwk") == 0


def test_a_rate_limit_says_how_long_to_wait(served: ServedIam) -> None:
    served.iam.fault(FaultKind.RATE_LIMIT, path="/stats", value=7)
    error = failure(served)
    assert isinstance(error, BadStatus)
    assert (error.status, error.retry_after_s) == (429, 7.0)


def test_only_registered_words_of_a_server_are_repeated(served: ServedIam) -> None:
    with pytest.raises(BadStatus) as caught:
        fetch_json(
            served.base_url + "/token", timeout_s=5, ca_file=served.ca_file, method="POST",
            form={"grant_type": "client_credentials"}, basic=("sync-client", "wrong"),
        )  # fmt: skip
    assert (caught.value.status, caught.value.oauth_error) == (401, "invalid_client")
    assert "secret is not accepted" in str(caught.value)


def test_words_that_no_standard_knows_are_not_repeated(tmp_path: Path) -> None:
    message, _ = raw_failure(tmp_path, says(reply(b'{"error": "<script>"}', status="400 Bad Request")))
    assert "script" not in message
    assert message.endswith("/ answered 400")


def test_a_request_carries_what_it_should_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login from-netrc password from-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9/")
    seen: list[bytes] = []

    def script(tls: ssl.SSLSocket, _over: threading.Event) -> None:
        while True:
            seen.append(read_request(tls))
            tls.sendall(reply(b"{}", "Set-Cookie: JSESSIONID=1; Path=/"))

    with raw_server(tmp_path, script) as server, Session(ca_file=server.ca_file) as session:
        session.fetch_json(server.url + "a?b=c", timeout_s=5, query={"count": 100, "q": "x&y"})
        session.fetch_json(server.url, timeout_s=5, method="POST", form={"token": "a b"}, basic=("me", "pass word"))
        session.fetch_json(server.url, timeout_s=5, bearer=AccessToken("abc"))
        assert server.connections == 1
    get, post, bearer = seen
    assert get.startswith(b"GET /a?b=c&count=100&q=x%26y HTTP/1.1\r\n")
    assert b"authorization" not in get.lower()
    assert b"accept-encoding: identity\r\n" in get.lower()
    assert b"Authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in post
    assert post.endswith(b"\r\n\r\ntoken=a+b")
    assert b"Authorization: Bearer abc\r\n" in bearer
    assert not [raw for raw in seen if b"cookie" in raw.lower()]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/", "ftp://127.0.0.1/", "file:///etc/passwd", "https://u:p@127.0.0.1/", "https:///x", "x",
     "https://127.0.0.1:x/", "https://127.0.0.1/#f", "https://127.0.0.1/\n", "https://exa mple/", "https://é.example/",
     "https://h/" + "x" * 2000],
)  # fmt: skip
def test_an_address_that_is_no_plain_https_url_is_not_asked(url: str) -> None:
    with pytest.raises(SourceUnavailable, match=r"address|is not asked"):
        fetch_json(url, timeout_s=1)


def test_a_token_that_would_break_a_header_is_not_sent(served: ServedIam) -> None:
    before = served.connections
    with pytest.raises(SourceUnavailable, match="characters that no header may carry"):
        ask(served, bearer=AccessToken("a\r\nX-Evil: 1"))
    assert served.connections == before


def test_a_certificate_of_nobody_is_not_believed(served: ServedIam) -> None:
    error = failure(served, ca_file=None)
    assert "certificate that is not trusted" in error.message
    assert "ca_file" in error.hint


def test_a_certificate_of_another_host_is_not_believed(served: ServedIam) -> None:
    with pytest.raises(SourceUnavailable, match="certificate that is not trusted"):
        fetch_json(f"https://127.0.0.2:{_forward(served.port)}/stats", timeout_s=5, ca_file=served.ca_file)


def _forward(port: int) -> int:
    """Pipe one connection on 127.0.0.2 through to `port`."""
    listener = socket.create_server(("127.0.0.2", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        sink.close()

    def accept() -> None:
        with listener:
            left, _ = listener.accept()
        right = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=pump, args=(left, right), daemon=True).start()
        pump(right, left)

    threading.Thread(target=accept, daemon=True).start()
    port_there: int = listener.getsockname()[1]
    return port_there


@pytest.mark.parametrize("content", [None, "no certificate at all"])
def test_a_ca_file_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(SourceUnavailable, match=f"the CA file {ca_file} cannot be used"):
        fetch_json("https://127.0.0.1:9/", timeout_s=1, ca_file=ca_file)


def test_nobody_listening_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceUnavailable, match=f"https://127.0.0.1:{port}/x cannot be asked: nothing listens there"):
        fetch_json(f"https://127.0.0.1:{port}/x?secret=1", timeout_s=5)


def test_a_name_that_does_not_resolve_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(SourceUnavailable, match="its name does not resolve"):
        fetch_json("https://iam.example.org/", timeout_s=5)


def test_a_name_server_that_is_silent_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    awake = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: awake.wait(20) and [])
    start = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"did not answer within 0\.3 s"):
        fetch_json("https://iam.example.org/", timeout_s=0.3)
    assert time.monotonic() - start < 0.8
    awake.set()


DEADLINES = {
    "headers that drip": (drips(reply(b"{}", "X-Long: " + "x" * 2000)), True),
    "a body that drips": (drips(reply(b'{"a": "' + b"x" * 2000 + b'"}'), 0.02), True),
    "a chunked body that drips": (
        drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 500, 0.02), True),
    "a handshake that never ends": (says(b""), False),
}  # fmt: skip


@pytest.mark.parametrize("sentence", DEADLINES)
def test_the_deadline_holds_for_the_whole_exchange(tmp_path: Path, sentence: str) -> None:
    script, handshake = DEADLINES[sentence]
    message, took = raw_failure(tmp_path, script, handshake=handshake, timeout_s=0.6)
    assert "did not answer within 0.6 s" in message
    assert 0.4 < took < 1.2


RAW = {
    "a compressed answer": (reply(gzip.compress(b"{}"), "Content-Encoding: gzip"), "compressed"),
    "a list": (reply(b"[]"), "no object"),
    "a name twice": (reply(b'{"a": 1, "a": 2}'), "twice"),
    "an announced size above the cap": (reply(b"{" + b" " * 300 + b"}"), "more than 200 bytes"),
    "no HTTP": (b"220 smtp.example.org ESMTP\r\n\r\n", "no HTTP"),
    "nothing": (b"", "did not answer within"),
    "a body shorter than announced": (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}", "did not answer within"),
    "500 headers": (reply(b"{}", *["X-A: b"] * 500), "no HTTP"),
    "a status that is no number": (b"HTTP/1.1 OK\r\n\r\n", "no HTTP"),
}


@pytest.mark.parametrize("sentence", RAW)
def test_an_answer_of_the_wrong_form_is_refused(tmp_path: Path, sentence: str) -> None:
    answer, words = RAW[sentence]
    message, _ = raw_failure(tmp_path, says(answer), max_bytes=200, timeout_s=1.0)
    assert words in message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "9" * 400}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:57 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 20.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": "Sun, 06 Nov 1994 08:49:57 GMT"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, None),
    ],
    ids=str,
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


# ---- discovery -------------------------------------------------------------------------------------------------------

ISSUER = Issuer.parse("https://iam.example.org/")
DOCUMENT = {
    "issuer": "https://iam.example.org", "jwks_uri": "https://iam.example.org/jwk",
    "token_endpoint": "https://iam.example.org:443/token", "introspection_endpoint": "https://iam.example.org/introspect",
    "userinfo_endpoint": "https://iam.example.org/userinfo", "scim_endpoint": "https://iam.example.org/scim",
}  # fmt: skip


def test_metadata_of_the_embedded_iam(served: ServedIam) -> None:
    issuer = Issuer.parse(served.issuer)
    with Session(ca_file=served.ca_file) as session:
        base = served.base_url
        assert fetch_metadata(session, issuer, timeout_s=5) == Metadata(
            issuer, base + "/jwk", base + "/token", base + "/introspect", base + "/userinfo", base + "/scim"
        )


def test_metadata_of_another_issuer_are_refused(served: ServedIam) -> None:
    served.iam.fault(FaultKind.WRONG_ISSUER)
    with Session(ca_file=served.ca_file) as session, pytest.raises(BadAnswer, match="speaks for another issuer"):
        fetch_metadata(session, Issuer.parse(served.issuer), timeout_s=5)


@pytest.mark.parametrize(
    "value",
    ["https://evil.example.org/token", "http://iam.example.org/token", "https://iam.example.org:8443/token",
     "https://iam.example.org@evil.example.org/", "https://iam.example.org:x/token", "https://iam.example.org/a b",
     "//iam.example.org/token", 7, None, ["https://iam.example.org/token"]],
    ids=str,
)  # fmt: skip
def test_an_endpoint_elsewhere_counts_as_not_named(value: object) -> None:
    assert parse_metadata(DOCUMENT | {"token_endpoint": value}, ISSUER).token_endpoint is None
    with pytest.raises(BadAnswer, match="no jwks_uri"):
        parse_metadata(DOCUMENT | {"jwks_uri": value}, ISSUER)


@pytest.mark.parametrize(
    "issuer", [None, 7, "", "https://iam.example.org//", "https://IAM.example.org/", ["https://iam.example.org/"]]
)
def test_an_issuer_that_is_not_ours_is_refused(issuer: object) -> None:
    with pytest.raises(BadAnswer, match="another issuer"):
        parse_metadata(DOCUMENT | {"issuer": issuer}, ISSUER)


def test_no_library_logs_the_words_of_a_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    odd = reply(b"{}", "no header at all: secret-of-a-server", "another line without a colon secret-of-a-server")
    with (
        raw_server(tmp_path, says(odd)) as server,
        Session(ca_file=server.ca_file) as session,
        contextlib.suppress(SourceUnavailable),
    ):
        session.fetch_json(server.url, timeout_s=5)
    assert server.connections == 1
    assert "secret-of-a-server" not in caplog.text
