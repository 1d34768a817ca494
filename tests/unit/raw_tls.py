"""A TLS server on loopback that says exactly what a test wants, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.demo.iam.tls import write_certificates

Script = Callable[[ssl.SSLSocket, threading.Event], None]


@dataclass
class RawServer:
    url: str
    ca_file: Path
    connections: int = 0


@contextlib.contextmanager
def raw_server(folder: Path, script: Script, *, handshake: bool = True) -> Iterator[RawServer]:
    """Run `script` once for each connection; its event is set when the test is over."""
    files = write_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_file, files.key_file)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(f"https://127.0.0.1:{listener.getsockname()[1]}/", files.ca_file)
        threads: list[threading.Thread] = []

        def serve(plain: socket.socket) -> None:
            with plain, contextlib.suppress(OSError):
                if not handshake:
                    over.wait()
                    return
                with context.wrap_socket(plain, server_side=True) as tls:
                    script(tls, over)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    server.connections += 1
                    plain.settimeout(20)
                    threads.append(threading.Thread(target=serve, args=(plain,), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            for thread in threads:
                thread.join(5)


def read_request(tls: ssl.SSLSocket) -> bytes:
    """Read a request's head, and its body where it says how long that is."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        more = tls.recv(4096)
        if not more:
            raise ConnectionResetError("the client left")
        raw += more
    head, _, body = raw.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line.split(b":")[1]):
                body += tls.recv(4096)
    return head + b"\r\n\r\n" + body


def says(answer: bytes) -> Script:
    """Answer every request on a connection with these bytes."""

    def script(tls: ssl.SSLSocket, _over: threading.Event) -> None:
        while True:
            read_request(tls)
            tls.sendall(answer)

    return script


def drips(answer: bytes, pause_s: float = 0.05) -> Script:
    """Answer one byte at a time."""

    def script(tls: ssl.SSLSocket, over: threading.Event) -> None:
        read_request(tls)
        for place in range(len(answer)):
            tls.sendall(answer[place : place + 1])
            if over.wait(pause_s):
                return

    return script


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
