"""The pull of members in a process of its own, without rights where the run has them all.

Only a snapshot, or an error as (code, sentence), crosses the pipe. The reader believes neither: sizes, depth, time and
every field are checked again, the child is killed when it is late, and a child that dies or falls silent counts as a
source that gave no answer. Call this before secrets of the run are opened: the child starts as a copy of its parent.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol, Self

from iam_bridge.collector import no_collection
from iam_bridge.errors import BridgeError, InvalidValue, SettingsError, SourceUnavailable
from iam_bridge.iam.members import source_of
from iam_bridge.iam.unprivileged import User, become, find_user, isolate, limit
from iam_bridge.model.identity import MemberSnapshot
from iam_bridge.model.record import show
from iam_bridge.model.rules import SourceRules
from iam_bridge.model.snapshot_text import LINE_MAX, parse_lines, write_lines
from iam_bridge.ports import Clock, MemberSource

SENTENCE_MAX = 2000
_READ = 1 << 18
_LAST_BREATH_S = 2.0


@dataclass(frozen=True, slots=True)
class PullLimits:
    """What one pull may cost. 256 MiB of text are 100 000 people with 2.6 KB each; a usual record has 150 bytes."""

    deadline_s: float = 1800.0
    snapshot_bytes: int = 256 << 20
    memory_bytes: int = 4 << 30
    cpu_s: int = 600


class OpenSource(Protocol):
    """Makes a source; what it needs from disk is read here, with the rights of the caller."""

    def __call__(self, rules: SourceRules, *, clock: Clock) -> MemberSource: ...


def pull_members(
    rules: SourceRules,
    *,
    clock: Clock,
    limits: PullLimits | None = None,
    open_source: OpenSource = source_of,
) -> MemberSnapshot:
    """Pull the members of one issuer, as `rules.user` where this process is root.

    Raises SettingsError where the settings or a people file cannot be believed, SourceUnavailable where there is no
    usable answer.
    """
    bounds = limits or PullLimits()
    user = find_user(rules.user) if os.geteuid() == 0 else None
    source = open_source(rules, clock=clock)
    taken_at = clock()
    with _Child(user, source, bounds) as child:
        try:
            lines = _check_first(child.lines(), rules)
            with no_collection():
                snapshot = parse_lines(lines, issuer=rules.issuer, trusted=rules.trusted_attributes, taken_at=taken_at)
        except InvalidValue as error:
            if child.fell_silent and (problem := child.cause_of_death()):
                raise _silent(rules, problem) from error
            raise SourceUnavailable(
                f"the pull from {rules.issuer} gave what is no snapshot: {error.message}"
            ) from error
        if problem := child.cause_of_death():
            raise _silent(rules, problem)
    _check_mapped(snapshot, rules)
    return snapshot


def _silent(rules: SourceRules, problem: str) -> SourceUnavailable:
    return SourceUnavailable(f"the pull from {rules.issuer} {problem}")


def _check_mapped(snapshot: MemberSnapshot, rules: SourceRules) -> None:
    """Refuse a snapshot that calls itself complete against the settings: root does not take the child's word."""
    if snapshot.complete and any(rule.iam not in snapshot.groups for rule in rules.groups):
        raise SourceUnavailable(f"the pull from {rules.issuer} calls complete what lacks a group of the settings")


def _check_first(lines: Iterator[bytes], rules: SourceRules) -> Iterator[bytes]:
    """Pass lines on; raise the error that the first one may be instead of a snapshot."""
    first = next(lines, None)
    if first is None:
        raise InvalidValue("it said nothing")
    if first.startswith(b'["error"'):
        raise _parse_error(first, rules)
    yield first
    yield from lines


def _parse_error(line: bytes, rules: SourceRules) -> BridgeError:
    try:
        _, code, sentence = json.loads(line)
    except (ValueError, RecursionError):
        code = sentence = None
    if not isinstance(code, str) or not isinstance(sentence, str) or not sentence:
        return _silent(rules, "failed without a sentence")
    text = show(sentence, SENTENCE_MAX)
    return SettingsError(text) if code == SettingsError.code else SourceUnavailable(text)


class _Child:
    """The forked process, from its start to its end; leaving the block kills and reaps it in any case."""

    def __init__(self, user: User | None, source: MemberSource, bounds: PullLimits) -> None:
        self._bounds = bounds
        self._deadline = time.monotonic() + bounds.deadline_s
        self._status: int | None = None
        self.fell_silent = False
        parent = os.getpid()
        self._fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError as error:
            os.close(self._fd)
            os.close(write_fd)
            raise SourceUnavailable(f"the pull of members cannot be started: {error.strerror}") from error
        if self._pid == 0:
            _work(user, source, bounds, parent, write_fd)
        os.close(write_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)  # still ours: nobody else reaps it
            self._status = os.waitpid(self._pid, 0)[1]

    def _left_s(self) -> float:
        return max(self._deadline - time.monotonic(), 0.0)

    def lines(self) -> Iterator[bytes]:
        """Give what the child writes, line by line; raise SourceUnavailable when it is late or writes too much."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        received = 0
        rest = b""
        while True:
            if not poll.poll(self._left_s() * 1000):
                raise SourceUnavailable(f"the pull of members was stopped after {self._bounds.deadline_s:g} s")
            chunk = os.read(self._fd, _READ)
            if not chunk:
                self.fell_silent = True
                break
            received += len(chunk)
            if received > self._bounds.snapshot_bytes:
                raise SourceUnavailable(f"the pull of members was stopped after {self._bounds.snapshot_bytes} bytes")
            whole = (rest + chunk).split(b"\n")
            rest = whole.pop()
            for line in whole:
                yield line + b"\n"
            if len(rest) > LINE_MAX:
                raise InvalidValue("a line of it has no end")
        if rest:
            yield rest

    def cause_of_death(self) -> str:
        """Wait for the end that follows the last byte; say what was wrong with it, empty where nothing was."""
        patience = time.monotonic() + min(_LAST_BREATH_S, self._left_s())
        while self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = status
            elif time.monotonic() > patience:
                return "did not end after its last word"
            else:
                time.sleep(0.002)
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with status {code}" if code else ""


def _work(user: User | None, source: MemberSource, bounds: PullLimits, parent: int, write_fd: int) -> NoReturn:
    """Be the child: give up rights, pull, write, end. Nothing returns from here into the code of the parent."""
    status = 1
    try:
        isolate(write_fd)
        limit(memory_bytes=bounds.memory_bytes, cpu_s=bounds.cpu_s)
        become(user, parent)
        gc.disable()  # what this process makes lives until it ends
        # Whole before the first byte goes out: an error must not come in the middle of a snapshot.
        _write_all(write_fd, b"".join(write_lines(source.fetch_members())))
        status = 0
    except BaseException as error:  # noqa: BLE001  the edge of a process: whatever it is, it ends here
        status = _tell_error(write_fd, error)
    finally:
        os._exit(status)


def _write_all(write_fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(write_fd, rest) :]


def _tell_error(write_fd: int, error: BaseException) -> int:
    """Write (code, sentence) and give the exit status; a foreign exception shows its type alone."""
    if isinstance(error, BridgeError):
        said = ["error", error.code, show(str(error), SENTENCE_MAX)]
    else:
        said = ["error", SourceUnavailable.code, f"the pull of members failed inside: {type(error).__name__}"]
    try:
        _write_all(write_fd, json.dumps(said).encode() + b"\n")
    except OSError:
        return 1
    return 0
