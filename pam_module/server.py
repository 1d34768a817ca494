"""The login daemon's sockets: one thread, one epoll, one request per connection.

Who connects is asked of the kernel before a byte is read; a frame has a deadline as a whole; connections are counted;
the answer is found elsewhere (`Conversation`). What waits for an issuer waits in `errands`, not here. Any peer that
hangs up, is slow, or sends what is no frame costs its own connection and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from iam_bridge.errors import BridgeError
from pam_module.errands import Conversation, Errand, Lanes, Outcome, TooLate
from pam_module.records import LogLines
from pam_module.wire import MAX_FRAME, FrameReader, Reply, Request, WireError, encode_reply, parse_request

_UCRED = struct.Struct("iII")
_READ = MAX_FRAME + 5  # a whole frame with its length word, and one byte to see that there are too many
_ACCEPTS = 64
"""Connections taken in one round, so that those which wait are looked at between floods."""
_PAUSE_S = 0.1
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much the daemon takes on: connections at once, and seconds.

    `frame_s` is for a request to arrive whole, `patience_s` for what it waits for (below the module's five seconds),
    `stop_s` for what is in hand when the daemon stops.
    """

    connections: int = 1024
    frame_s: float = 5.0
    patience_s: float = 4.0
    stop_s: float = 1.0


class _Connection:
    __slots__ = ("conversation", "deadline", "fd", "reader", "sock", "waits_for")

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.deadline = deadline
        self.reader = FrameReader()
        self.conversation: Conversation | None = None
        self.waits_for: tuple[str, str] | None = None


class LoginServer:
    """Answer requests that come in at `listener` by the conversations that `begin` opens.

    `listener` is bound and not blocking; the caller calls `listen`. Peers are uids.
    """

    def __init__(
        self,
        listener: socket.socket,
        begin: Callable[[Request], Conversation],
        *,
        peers: AbstractSet[int],
        log: LogLines,
        limits: ServerLimits = ServerLimits(),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener: socket.socket | None = listener
        self._begin = begin
        self.peers = peers
        self._log = log
        self._limits = limits
        self._ticks = ticks
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.lanes = Lanes(self.wake)
        # In the order of their deadlines, since all have the same time to live: the first is the next to go.
        self._reading: dict[int, _Connection] = {}
        self._waiting: dict[int, _Connection] = {}
        self._patience: list[tuple[float, int, _Connection]] = []  # a heap; those that wait no more are passed over
        self._waits = 0
        self._waiters: dict[tuple[str, str], list[_Connection]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._timer: tuple[float, float, Callable[[], None]] | None = None
        self._accepting = False
        self._resume_at = 0.0
        self._stop_at: float | None = None

    @property
    def connections(self) -> int:
        """Count the connections that are open."""
        return len(self._reading) + len(self._waiting)

    @property
    def wake_fd(self) -> int:
        """Give a descriptor to which a byte may be written to wake the loop (signal.set_wakeup_fd)."""
        return self._wake_write

    def wake(self) -> None:
        """Make the loop go round; from any thread or signal handler."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well as one more byte
            os.write(self._wake_write, b"\0")

    def call(self, action: Callable[[], None]) -> None:
        """Have the loop call `action`; from any thread or signal handler."""
        self._calls.append(action)
        self.wake()

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` in the loop every so many seconds, at first right away."""
        self._timer = (self._ticks(), seconds, action)

    def stop(self) -> None:
        """Take no more connections; `run` returns when what is in hand is answered, or after `stop_s`."""
        if self._stop_at is None:
            self._stop_at = self._ticks() + self._limits.stop_s
            self._accept_more(wanted=False)
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def run(self) -> None:
        """Serve until stopped."""
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._accept_more(wanted=True)
        try:
            while self._stop_at is None or (self.connections and self._ticks() < self._stop_at):
                self._go_round()
        finally:
            self._close_all()

    def _go_round(self) -> None:
        now = self._ticks()
        timeout = max(0.0, self._next_deadline(now) - now)
        for fd, _ in self._epoll.poll(timeout, 256):
            if self._listener is not None and fd == self._listener.fileno():
                self._accept_some()
            elif fd == self._wake_read:
                self._drain_wakes()
            elif (connection := self._reading.get(fd)) is not None:
                self._read(connection)
            elif (connection := self._waiting.get(fd)) is not None:
                self._drop(connection)  # only a hang-up is reported of those: nobody waits for the answer any more
        for outcome in self.lanes.take_outcomes():
            self._settle(outcome)
        self._look_at_clock(self._ticks())
        self._accept_more(wanted=self._stop_at is None)

    def _next_deadline(self, now: float) -> float:
        times = [now + 60.0]
        if self._reading:
            times.append(next(iter(self._reading.values())).deadline)
        if self._patience:
            times.append(self._patience[0][0])
        if self._timer is not None:
            times.append(self._timer[0])
        if self._stop_at is not None:
            times.append(self._stop_at)
        if not self._accepting and self._resume_at > now:
            times.append(self._resume_at)
        return min(times)

    def _look_at_clock(self, now: float) -> None:
        if self._timer is not None and now >= self._timer[0]:
            _, seconds, action = self._timer
            self._timer = (now + seconds, seconds, action)
            action()
        while self._reading and (late := next(iter(self._reading.values()))).deadline <= now:
            self._log.seldom("late-frame", event="frame", verdict="closed", pending=late.reader.pending)
            self._drop(late)
        while self._patience and self._patience[0][0] <= now:
            _, _, late = heapq.heappop(self._patience)
            if late.conversation is not None:
                error = TooLate(f"no answer within {self._limits.patience_s:g} s")
                self._advance(late, self._leave_waiting(late), error=error)

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass
        while self._calls:
            self._calls.popleft()()

    def _accept_more(self, *, wanted: bool) -> None:
        """Watch the listener or not: above the cap, and while descriptors are short, others wait in its backlog."""
        if self._listener is None:
            return
        wanted = wanted and self.connections < self._limits.connections and self._ticks() >= self._resume_at
        if wanted and not self._accepting:
            self._epoll.register(self._listener, select.EPOLLIN)
        elif self._accepting and not wanted:
            self._epoll.unregister(self._listener)
        self._accepting = wanted

    def _accept_some(self) -> None:
        room = min(_ACCEPTS, self._limits.connections - self.connections)
        for _ in range(room):
            assert self._listener is not None
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF:
                    self._resume_at = self._ticks() + _PAUSE_S
                    self._log.seldom("no-room", event="accept", verdict="paused", detail=os.strerror(error.errno))
                    return
                continue  # accept(2): what went wrong with that one connection is no reason to look at no other
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        """Look who it is, then read at once: the request has mostly come by the time that we accept."""
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self.peers:
            sock.close()
            self._log.seldom("peer", event="peer", verdict="refused", uid=uid)
            return
        connection = _Connection(sock, self._ticks() + self._limits.frame_s)
        self._reading[connection.fd] = connection
        self._read(connection, first=True)

    def _read(self, connection: _Connection, *, first: bool = False) -> None:
        try:
            data = connection.sock.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if first:
                self._epoll.register(connection.fd, select.EPOLLIN)
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            frames = connection.reader.feed(data)
            if not frames:
                if first:
                    self._epoll.register(connection.fd, select.EPOLLIN)
                return
            if len(frames) > 1 or connection.reader.pending:
                raise WireError("more than one frame came on a connection")
            request = parse_request(frames[0])
        except WireError as error:
            self._log.seldom("bad-frame", event="frame", verdict="refused", detail=error.message)
            self._drop(connection)
            return
        if not first:
            self._epoll.unregister(connection.fd)
        conversation = self._begin(request)
        self._advance(connection, conversation)

    def _advance(
        self,
        connection: _Connection,
        conversation: Conversation,
        *,
        value: object = None,
        error: Exception | None = None,
    ) -> None:
        try:
            errand = conversation.send(value) if error is None else conversation.throw(error)
        except StopIteration as stop:
            self._reading.pop(connection.fd, None)
            self._reply(connection, stop.value)
            return
        self._wait(connection, conversation, errand)

    def _reply(self, connection: _Connection, reply: Reply) -> None:
        try:
            # A reply is small and the buffer of a fresh socket is empty, so one send takes all of it. A peer that went
            # away meanwhile has its verdict in the log.
            connection.sock.send(encode_reply(reply), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except WireError as error:  # a text that no frame can hold; the module takes silence for no answer
            self._log.seldom("reply", event="reply", verdict="closed", detail=error.message)
        except OSError:
            pass
        connection.sock.close()

    def _wait(self, connection: _Connection, conversation: Conversation, errand: Errand) -> None:
        """Park a connection; all its waits together may last `patience_s`."""
        if self._reading.pop(connection.fd, None) is not None:
            connection.deadline = self._ticks() + self._limits.patience_s
        connection.conversation = conversation
        connection.waits_for = errand.key
        self._waiting[connection.fd] = connection
        self._waits += 1
        heapq.heappush(self._patience, (connection.deadline, self._waits, connection))
        self._waiters.setdefault(errand.key, []).append(connection)
        self._epoll.register(connection.fd, 0)  # EPOLLHUP comes unasked
        self.lanes.start(errand)

    def _leave_waiting(self, connection: _Connection) -> Conversation:
        assert connection.conversation is not None
        assert connection.waits_for is not None
        conversation, key = connection.conversation, connection.waits_for
        connection.conversation = connection.waits_for = None
        del self._waiting[connection.fd]
        self._epoll.unregister(connection.fd)
        waiters = self._waiters[key]
        waiters.remove(connection)
        if not waiters:
            del self._waiters[key]
        return conversation

    def _settle(self, outcome: Outcome) -> None:
        waiters = self._waiters.get(outcome.key, [])
        if outcome.error is not None and not waiters and outcome.key[0] == "disk":  # chores: nobody else hears of it
            detail = outcome.error.message if isinstance(outcome.error, BridgeError) else type(outcome.error).__name__
            self._log.seldom("disk", event="disk", verdict="failed", detail=detail)
        for connection in waiters[:]:
            conversation = self._leave_waiting(connection)
            self._advance(connection, conversation, value=outcome.value, error=outcome.error)

    def _drop(self, connection: _Connection) -> None:
        """Close without an answer; a conversation that waited is given up."""
        if connection.waits_for is not None:
            self._leave_waiting(connection).close()
        self._reading.pop(connection.fd, None)
        connection.sock.close()  # which also takes it out of the epoll

    def _close_all(self) -> None:
        for connection in [*self._reading.values(), *self._waiting.values()]:
            self._drop(connection)
        if self._listener is not None:
            self._listener.close()
        self._epoll.close()  # the pipe stays: a thread that comes back late still writes to it
