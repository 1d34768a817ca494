"""The login daemon's sockets with a service that says what it is told: frames, peers, floods, waits."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from iam_bridge.errors import SourceUnavailable
from pam_module.errands import QUEUE_MAX, Conversation, Errand
from pam_module.records import LogLines
from pam_module.server import LoginServer, ServerLimits
from pam_module.wire import MAX_FRAME, Phase, Reply, Request, Status, encode_request, parse_reply

QUICK = ServerLimits(connections=64, frame_s=0.4, patience_s=0.5, stop_s=0.3)
FRAME = encode_request(Request(Phase.AUTH, 1, "alice", secret=b"x" * 1200))


@dataclass
class Served:
    path: str
    server: LoginServer
    lines: list[bytes] = field(default_factory=list)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(10)
        client.connect(self.path)
        return client

    def ask(self, frame: bytes = FRAME) -> Reply:
        with self.connect() as client:
            client.sendall(frame)
            return read_reply(client)

    def log(self) -> str:
        return b"".join(self.lines).decode()


def read_reply(client: socket.socket) -> Reply:
    data = b""
    while more := client.recv(65536):
        data += more
    return parse_reply(data[4:])


def answer(request: Request) -> Conversation:
    return Reply(Status.PERMIT, 1000, request.user)
    yield


@contextmanager
def serving(
    folder: Path,
    begin: Callable[[Request], Conversation] = answer,
    *,
    peers: frozenset[int] = frozenset({os.geteuid()}),
    limits: ServerLimits = QUICK,
) -> Iterator[Served]:
    path = str(folder / "login.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(path)
    listener.listen(4096)
    lines: list[bytes] = []
    server = LoginServer(listener, begin, peers=peers, log=LogLines(lines.append), limits=limits)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Served(path, server, lines)
    finally:
        server.call(server.stop)
        thread.join(10)
        assert not thread.is_alive()
        assert server.connections == 0


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def test_one_request_one_reply_one_connection(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        assert served.ask() == Reply(Status.PERMIT, 1000, "alice")


def test_a_frame_may_come_byte_by_byte(tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.connect() as client:
        for byte in encode_request(Request(Phase.WHO, 1, "bob")):
            client.send(bytes([byte]))
        assert read_reply(client).user == "bob"


BAD_FRAMES = [
    ("a length word alone, of nothing", struct.pack("!I", 0), "ends too early"),
    ("a body cut within a field", struct.pack("!I", 20) + FRAME[4:24], "ends too early"),
    ("a length beyond the most", struct.pack("!I", MAX_FRAME + 1), "was announced"),
    ("a length of four gigabytes", b"\xff" * 4, "was announced"),
    ("another version", FRAME[:4] + b"\x02" + FRAME[5:], "version"),
    ("an unknown phase", FRAME[:5] + b"\x63" + FRAME[6:], "phase"),
    ("two frames", FRAME + FRAME, "more than one frame"),
    ("a frame and a byte more", FRAME + b"x", "more than one frame"),
    ("a web request", b"GET / HTTP/1.1\r\n\r\n", "was announced"),
]


@pytest.mark.parametrize(("frame", "why"), [row[1:] for row in BAD_FRAMES], ids=[row[0] for row in BAD_FRAMES])
def test_what_is_no_frame_gets_no_answer_and_stops_nobody(tmp_path: Path, frame: bytes, why: str) -> None:
    with serving(tmp_path) as served:
        with served.connect() as client:
            client.sendall(frame)
            assert client.recv(100) == b""
        until(lambda: "event=frame verdict=refused" in served.log())
        assert why.replace(" ", "\\x20") in served.log()
        assert served.ask().status is Status.PERMIT


def write_slowly(client: socket.socket, data: bytes) -> None:
    for byte in data:
        client.send(bytes([byte]))
        time.sleep(0.05)


def test_a_slow_writer_is_closed_at_the_deadline_of_its_frame(tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.connect() as client:
        began = time.monotonic()
        with pytest.raises(BrokenPipeError):
            write_slowly(client, FRAME)  # each byte early enough, all of them too late
        assert time.monotonic() - began < 2
        assert "verdict=closed" in served.log()


def test_half_frames_of_many_do_not_keep_one_whole_frame_waiting(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        halves = [served.connect() for _ in range(40)]
        for client in halves:
            client.sendall(FRAME[:100])
        began = time.monotonic()
        assert served.ask().status is Status.PERMIT
        assert time.monotonic() - began < 0.3
        for client in halves:
            client.close()
        until(lambda: served.server.connections == 0)


def test_a_thousand_connections_at_once_are_all_answered(tmp_path: Path) -> None:
    limits = ServerLimits(connections=64, frame_s=20)
    with serving(tmp_path, limits=limits) as served:
        clients = [served.connect() for _ in range(1000)]
        for client in clients:
            client.sendall(FRAME)
        assert {read_reply(client).status for client in clients} == {Status.PERMIT}
        for client in clients:
            client.close()


def test_beyond_the_cap_others_wait_in_the_backlog_until_the_silent_are_closed(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        silent = [served.connect() for _ in range(QUICK.connections)]
        until(lambda: served.server.connections == QUICK.connections)
        began, spent = time.monotonic(), time.process_time()
        assert served.ask().status is Status.PERMIT
        assert 0.1 < time.monotonic() - began < 2
        assert time.process_time() - spent < 0.1, "it did not wait, it asked again and again"
        for client in silent:
            assert client.recv(1) == b""
            client.close()


def test_a_peer_that_is_not_named_is_closed_before_a_byte_is_read(tmp_path: Path) -> None:
    asked: list[Request] = []

    def begin(request: Request) -> Conversation:
        asked.append(request)
        return answer(request)

    with serving(tmp_path, begin, peers=frozenset({54321})) as served:
        for _ in range(50):
            with served.connect() as client:
                try:
                    client.sendall(FRAME)
                    assert client.recv(100) == b""
                except (BrokenPipeError, ConnectionResetError):
                    pass
        assert not asked
        assert served.log().count("event=peer verdict=refused") == 1
        assert f"uid={os.geteuid()}" in served.log()


def waits(key: str, run: Callable[[], object]) -> Callable[[Request], Conversation]:
    def begin(request: Request) -> Conversation:
        if request.user == "warm":
            return Reply(Status.PERMIT, 1, "warm")
        try:
            value = yield Errand(("keys", key), ("keys", key), run)
        except SourceUnavailable as error:
            return Reply(Status.DENY, text=f"{type(error).__name__}: {error.message}")
        return Reply(Status.PERMIT, 2, str(value))

    return begin


WARM = encode_request(Request(Phase.AUTH, 1, "warm"))


def test_fifty_that_miss_the_same_thing_make_one_errand(tmp_path: Path) -> None:
    calls: list[int] = []

    def run() -> str:
        calls.append(1)
        time.sleep(0.2)
        return "fetched"

    with serving(tmp_path, waits("a", run)) as served:
        clients = [served.connect() for _ in range(50)]
        for client in clients:
            client.sendall(FRAME)
        replies = [read_reply(client) for client in clients]
        for client in clients:
            client.close()
    assert {reply.user for reply in replies} == {"fetched"}
    assert len(calls) == 1


def test_an_errand_that_hangs_delays_nobody_else_and_ends_at_the_patience(tmp_path: Path) -> None:
    release = threading.Event()
    with serving(tmp_path, waits("a", release.wait)) as served:
        with served.connect() as client:
            client.sendall(FRAME)
            until(lambda: served.server.connections == 1)
            times = []
            for _ in range(100):
                began = time.monotonic()
                assert served.ask(WARM).user == "warm"
                times.append(time.monotonic() - began)
            began = time.monotonic()
            reply = read_reply(client)
            assert time.monotonic() - began < 1
        assert reply.status is Status.DENY
        assert "TooLate: no answer within 0.5 s" in reply.text
        assert sorted(times)[98] < 0.1
        release.set()


def test_what_an_errand_raises_is_raised_in_whoever_waits(tmp_path: Path) -> None:
    def run() -> object:
        raise SourceUnavailable("the issuer said nothing")

    with serving(tmp_path, waits("a", run)) as served:
        assert served.ask().text == "SourceUnavailable: the issuer said nothing"


def test_a_client_that_goes_away_while_it_waits_is_forgotten(tmp_path: Path) -> None:
    release = threading.Event()
    with serving(tmp_path, waits("a", release.wait)) as served:
        client = served.connect()
        client.sendall(FRAME)
        until(lambda: served.server.connections == 1)
        client.close()
        until(lambda: served.server.connections == 0, 0.3)
        release.set()
        assert served.ask(WARM).status is Status.PERMIT


def test_a_second_wait_does_not_get_a_second_patience(tmp_path: Path) -> None:
    def begin(request: Request) -> Conversation:
        yield Errand(("keys", "a"), ("keys", "a"), lambda: time.sleep(0.35))
        try:
            yield Errand(("keys", "b"), ("keys", "b"), lambda: time.sleep(0.35))
        except SourceUnavailable:
            return Reply(Status.DENY)
        return Reply(Status.PERMIT, 1, request.user)

    with serving(tmp_path, begin) as served:
        assert served.ask().status is Status.DENY


def test_a_lane_takes_no_more_than_its_queue_and_says_so_at_once(tmp_path: Path) -> None:
    release = threading.Event()
    number = 0

    def begin(request: Request) -> Conversation:
        nonlocal number
        number += 1
        try:
            yield Errand(("introspection", "a"), ("introspection", str(number)), release.wait)
        except SourceUnavailable as error:
            return Reply(Status.DENY, text=error.message)
        return Reply(Status.PERMIT, 1, request.user)

    limits = ServerLimits(connections=1024, patience_s=20)
    with serving(tmp_path, begin, limits=limits) as served:
        clients = [served.connect() for _ in range(QUEUE_MAX + 1)]
        for client in clients:
            client.sendall(FRAME)
        until(lambda: served.server.connections == len(clients))
        assert "wait for a already" in served.ask().text
        release.set()
        assert {read_reply(client).status for client in clients} == {Status.PERMIT}
        for client in clients:
            client.close()


def test_where_no_thread_is_to_be_had_whoever_waits_is_told_and_the_lane_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving(tmp_path, waits("a", lambda: "fetched")) as served:
        with monkeypatch.context() as short:
            short.setattr(threading.Thread, "start", refuse)
            assert "no thread is to be had" in served.ask().text
            assert served.ask(WARM).status is Status.PERMIT
        assert served.ask().user == "fetched"


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * (MAX_FRAME + 1)], ids=["surrogate", "NUL", "too long"])
def test_a_reply_that_fits_no_frame_costs_its_own_connection_alone(tmp_path: Path, text: str) -> None:
    def begin(request: Request) -> Conversation:
        return Reply(Status.PERMIT, 1, "warm") if request.user == "warm" else Reply(Status.DENY, text=text)
        yield

    with serving(tmp_path, begin) as served:
        with served.connect() as client:
            client.sendall(FRAME)
            assert client.recv(100) == b""
        assert served.ask(WARM).status is Status.PERMIT
        assert "event=reply" in served.log()


def test_stopping_finishes_what_is_in_hand_and_waits_no_longer_than_it_says(tmp_path: Path) -> None:
    release = threading.Event()
    with serving(tmp_path, waits("a", lambda: release.wait(0.1) or "late")) as served:
        client = served.connect()
        client.sendall(FRAME)
        until(lambda: served.server.connections == 1)
        served.server.call(served.server.stop)
        assert read_reply(client).user == "late"
        client.close()
        with pytest.raises(ConnectionRefusedError):
            served.connect()
    with serving_again(tmp_path, waits("b", lambda: release.wait(5))) as served:
        client = served.connect()
        client.sendall(FRAME)
        until(lambda: served.server.connections == 1)
        began = time.monotonic()
        served.server.call(served.server.stop)
        assert client.recv(100) == b""
        assert time.monotonic() - began < QUICK.stop_s + 0.3
        client.close()
        release.set()


@contextmanager
def serving_again(folder: Path, begin: Callable[[Request], Conversation]) -> Iterator[Served]:
    second = folder / "second"
    second.mkdir()
    with serving(second, begin) as served:
        yield served


def test_a_thousand_half_frames_and_hang_ups_leave_no_descriptor_behind(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.ask()
        before = len(os.listdir("/proc/self/fd"))
        for length in range(1000):
            with served.connect() as client:
                client.sendall(FRAME[: length + 1])
        until(lambda: served.server.connections == 0)
        assert len(os.listdir("/proc/self/fd")) == before
