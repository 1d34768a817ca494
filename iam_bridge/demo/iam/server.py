"""Serve an embedded IAM over real TLS on loopback, in a background thread that stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from iam_bridge.demo.iam.app import FaultyApp, make_endpoints
from iam_bridge.demo.iam.state import EmbeddedIam
from iam_bridge.demo.iam.tls import write_certificates

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0


class CountingSocket(socket.socket):
    """A listening socket that counts the connections it accepted, before any TLS or HTTP."""

    accepted = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one connection."""
        connection, address = super().accept()
        self.accepted += 1
        return connection, address


@dataclass(frozen=True, slots=True)
class ServedIam:
    """Where an embedded IAM listens, and what a client needs for it."""

    iam: EmbeddedIam
    issuer: str
    port: int
    ca_file: Path
    admin_token: str
    listener: CountingSocket

    @property
    def base_url(self) -> str:
        """Give the issuer without its final slash, to put paths behind."""
        return self.issuer.rstrip("/")

    @property
    def connections(self) -> int:
        """Count the TCP connections accepted since the start; a refused issuer must leave this 0."""
        return self.listener.accepted


@contextlib.contextmanager
def running_iam(
    iam: EmbeddedIam,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ca_file: Path | None = None,
) -> Iterator[ServedIam]:
    """Serve `iam` until the block ends; port 0 takes a free one.

    Sets `iam.issuer` to `https://HOST:PORT/` (host 127.0.0.1 or localhost).  Certificates are written to
    `folder` (see `write_certificates`), the authority also to `ca_file`.

    Raises:
        OSError: the port is taken or the folder cannot be written.
        RuntimeError: the server did not start or stop in time.
    """
    files = write_certificates(folder)
    if ca_file is not None:
        shutil.copyfile(files.ca_file, ca_file)
    listener = CountingSocket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
        bound: int = listener.getsockname()[1]
        iam.issuer = f"https://{host}:{bound}/"
        admin_token = secrets.token_urlsafe(24)
        app = FaultyApp(make_endpoints(iam, admin_token), iam)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a cut body and a stopped hang are wanted here; app.py logs real failures
            access_log=False,
            server_header=False,
            ssl_certfile=files.certificate_file,
            ssl_keyfile=str(files.key_file),
            timeout_graceful_shutdown=1,
        )
        thread = _ServerThread(uvicorn.Server(config), app, listener)
        thread.start()
        try:
            thread.wait_started()
            yield ServedIam(iam, iam.issuer, bound, ca_file or files.ca_file, admin_token, listener)
        finally:
            thread.stop()
    finally:
        listener.close()


class _ServerThread(threading.Thread):
    def __init__(self, server: uvicorn.Server, app: FaultyApp, listener: socket.socket) -> None:
        super().__init__(name="embedded-iam", daemon=True)
        self._server = server
        self._app = app
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        # The runner cancels what is left over (a hanging answer, say) and closes the loop.
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve(sockets=[self._listener]))

    def wait_started(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the embedded IAM did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        if self.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hang_up)
        self.join(STOP_TIMEOUT_S)
        if self.is_alive():
            raise RuntimeError("the embedded IAM did not stop")

    def _hang_up(self) -> None:
        """Release what hangs and drop every connection: a TLS farewell would wait for idle clients."""
        self._app.released.set()
        self._server.should_exit = True
        self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
