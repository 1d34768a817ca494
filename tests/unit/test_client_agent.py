"""oidc-agent's protocol, against a socket that answers as told."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iam_bridge.errors import BridgeError, SourceUnavailable
from iam_bridge.model.identity import Issuer
from pam_module.client.oidc_agent import fetch_token
from pam_module.client.settings import HostSettings
from pam_module.client.tokens import Asked, find_token
from tests.unit.client_tokens import make_token

ISSUER = Issuer("https://iam.example.org/")


@contextmanager
def agent(path: Path, pieces: list[bytes], *, hold: bool = False) -> Iterator[list[bytes]]:
    """Listen once, keep the request, send the pieces, and hang up (or hold the line)."""
    requests: list[bytes] = []
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(65536))
                with contextlib.suppress(BrokenPipeError):  # who does not believe us hangs up
                    for piece in pieces:
                        connection.sendall(piece)
                        over.wait(0.02)
                if hold:
                    over.wait(10)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield requests
        finally:
            over.set()
            thread.join(5)


def fetch(path: Path, **changed: object) -> str:
    asked = {
        "account": "demo",
        "issuer": None,
        "audience": "https://a",
        "min_valid_s": 60,
        "uid": os.getuid(),
    } | changed
    return fetch_token(str(path), timeout_s=0.5, **asked).reveal()  # type: ignore[arg-type]


def success(token: str) -> bytes:
    return json.dumps({"status": "success", "access_token": token, "issuer": str(ISSUER), "expires_at": 1}).encode()


def test_the_request_is_for_one_account_with_the_audience_of_the_host(tmp_path: Path) -> None:
    with agent(tmp_path / "s", [success("t0ken")]) as requests:
        assert fetch(tmp_path / "s") == "t0ken"
    assert json.loads(requests[0]) == {
        "request": "access_token",
        "account": "demo",
        "audience": "https://a",
        "min_valid_period": 60,
        "application_hint": "iam-ssh",
    }


def test_without_an_account_the_issuer_is_named_and_never_both(tmp_path: Path) -> None:
    with agent(tmp_path / "s", [success("t0ken")]) as requests:
        fetch(tmp_path / "s", account=None, issuer=ISSUER, audience=None)
    request = json.loads(requests[0])
    assert request["issuer"] == str(ISSUER)
    assert not {"account", "audience"} & set(request)


def test_an_answer_in_pieces_from_an_agent_that_keeps_the_line_is_read(tmp_path: Path) -> None:
    whole = success("x" * 16000)
    with agent(tmp_path / "s", [whole[:1], whole[1:9000], whole[9000:]], hold=True):
        assert fetch(tmp_path / "s") == "x" * 16000


UNREADABLE = {
    "nothing": [],
    "no JSON": [b"Zm9v:YmFy"],
    "half an object": [b'{"status":"succ'],
    "a list": [b"[1]"],
    "too much": [b" " * 200_000, b" " * 200_000],
    "nested too deep": [b"[" * 100_000],
}


@pytest.mark.parametrize("pieces", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_answer_that_cannot_be_read_is_told(tmp_path: Path, pieces: list[bytes]) -> None:
    with agent(tmp_path / "s", pieces), pytest.raises(SourceUnavailable, match="cannot be read"):
        fetch(tmp_path / "s")


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "success"},
        {"status": "success", "access_token": ""},
        {"status": "no"},
        {"access_token": "t"},
        {"status": "success", "access_token": 7},
    ],
)
def test_an_answer_without_a_token_is_a_refusal(tmp_path: Path, answer: dict[str, object]) -> None:
    with (
        agent(tmp_path / "s", [json.dumps(answer).encode()]),
        pytest.raises(BridgeError, match="gives no token for account"),
    ):
        fetch(tmp_path / "s")


def test_the_agents_own_words_are_shown_without_escape_codes(tmp_path: Path) -> None:
    words = "account not loaded\x1b[2J\n" + "x" * 999
    answer = json.dumps({"status": "failure", "error": words}).encode()
    with agent(tmp_path / "s", [answer]), pytest.raises(BridgeError) as caught:
        fetch(tmp_path / "s")
    assert "account not loaded?[2J?" in str(caught.value)
    assert str(caught.value).endswith("load it with: oidc-add demo")
    assert len(str(caught.value)) < 400


def test_an_agent_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with agent(tmp_path / "s", [], hold=True), pytest.raises(SourceUnavailable, match="did not answer"):
        fetch(tmp_path / "s")


@pytest.mark.parametrize("path", ["/nonexistent/agent", "/etc/passwd", "x" * 300, "a\0b"])
def test_a_socket_that_is_none_is_told(path: str) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be asked"):
        fetch(Path(path))


def test_an_agent_of_another_user_is_not_believed_even_where_its_socket_opens(tmp_path: Path) -> None:
    if os.getuid() != 0:  # nobody else can be had, so we are the somebody else
        with agent(tmp_path / "s", [success("t")]), pytest.raises(BridgeError, match="belongs to another user"):
            fetch(tmp_path / "s", uid=os.getuid() + 1)
        return
    with tempfile.TemporaryDirectory(prefix="iam-bridge-agent-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        serve = (
            "import os, socket; os.setuid(47123); s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(1);"
            "print(flush=True); s.accept()[0].recv(1)"
        )
        command = [sys.executable, "-c", serve]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(BridgeError, match="belongs to another user"):
                fetch(folder / "s")


def test_the_agent_is_asked_last_and_its_token_is_looked_at_too(tmp_path: Path) -> None:
    environ = {"OIDC_SOCK": str(tmp_path / "s"), "XDG_RUNTIME_DIR": str(tmp_path)}
    asked = Asked("h", HostSettings("https://a", None, "demo"), environ, os.getuid(), 1.0)
    token = make_token(aud="https://a")
    with agent(tmp_path / "s", [success(token)]):
        assert find_token(asked).reveal() == token
    (tmp_path / "s").unlink()
    with (
        agent(tmp_path / "s", [success(make_token(aud="b"))]),
        pytest.raises(BridgeError, match="oidc-agent is not for h"),
    ):
        find_token(asked)


def test_an_agent_with_no_word_on_the_account_is_not_asked(tmp_path: Path) -> None:
    asked = Asked("h", HostSettings(), {"OIDC_SOCK": str(tmp_path / "s")}, os.getuid(), 1.0)
    with pytest.raises(BridgeError, match="nothing says which of its accounts is for h"):
        find_token(asked)
