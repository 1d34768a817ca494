"""A stand-in for the login daemon, for faults that the real one does not have."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pam_module.wire import FrameReader, Phase, Reply, Request, Status, encode_reply, parse_request

Behaviour = Callable[[socket.socket, Request, threading.Event], None]
"""(connection, what was asked, set when the test is over) → answers on the connection, or not."""


class StandIn:
    """Listen on a socket, read one request a connection, keep it, and behave."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.path = path
        self.requests: list[Request] = []
        self._behaviour = behaviour
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    @property
    def phases(self) -> list[Phase]:
        return [request.phase for request in self.requests]

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                request = _read_request(connection)
                if request:
                    self.requests.append(request)
                    try:
                        self._behaviour(connection, request, self._over)
                    except OSError:
                        continue  # the module hung up first, as it should on a fault


def _read_request(connection: socket.socket) -> Request | None:
    reader = FrameReader()
    while data := connection.recv(65536):
        for frame in reader.feed(data):
            return parse_request(frame)
    return None


def says(answers: dict[Phase, Reply]) -> Behaviour:
    """Answer each phase as told."""

    def behave(connection: socket.socket, request: Request, _over: threading.Event) -> None:
        connection.sendall(encode_reply(answers[request.phase]))

    return behave


def permits(user: str, uid: int, *, handle: str = "", refuse: dict[Phase, Reply] | None = None) -> Behaviour:
    """Prompt, then permit this user with this uid in every phase but the refused."""
    permit = Reply(Status.PERMIT, uid, user, "", handle)
    answers = dict.fromkeys(Phase, permit) | {Phase.WHO: Reply(Status.PROMPT)} | (refuse or {})
    return says(answers)


def in_phase(phase: Phase, fault: Behaviour, otherwise: Behaviour) -> Behaviour:
    """Have the fault in one phase alone."""

    def behave(connection: socket.socket, request: Request, over: threading.Event) -> None:
        (fault if request.phase is phase else otherwise)(connection, request, over)

    return behave


def sends(data: bytes) -> Behaviour:
    """Send these bytes and hang up."""
    return lambda connection, _request, _over: connection.sendall(data)


def sends_and_hangs(data: bytes) -> Behaviour:
    """Send these bytes and nothing more, without hanging up: what is wrong must be seen from the bytes alone."""

    def behave(connection: socket.socket, _request: Request, over: threading.Event) -> None:
        connection.sendall(data)
        over.wait(20)

    return behave


def hangs() -> Behaviour:
    """Read, and never answer."""

    def behave(_connection: socket.socket, _request: Request, over: threading.Event) -> None:
        over.wait(20)

    return behave


def drips(data: bytes, pause_s: float) -> Behaviour:
    """Send one byte at a time."""

    def behave(connection: socket.socket, _request: Request, over: threading.Event) -> None:
        for index in range(len(data)):
            if over.wait(pause_s):
                return
            connection.sendall(data[index : index + 1])

    return behave


def late(pause_s: float, behaviour: Behaviour) -> Behaviour:
    """Behave after a while."""

    def behave(connection: socket.socket, request: Request, over: threading.Event) -> None:
        time.sleep(pause_s)
        behaviour(connection, request, over)

    return behave
