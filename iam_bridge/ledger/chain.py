"""Receipts in a chain: each carries the hash of the one before, so that none can be changed or taken out unseen.

One format for the ledger's table and for files of JSON lines: the hash is SHA-256 over the canonical JSON (sorted keys,
no spaces, ASCII) of all fields but itself. A line is exactly that JSON with `"hash"` put last, so a file is verified
byte for byte. A chain proves nothing against who may rewrite it whole: its head must be anchored elsewhere (syslog).

Durability: a line is handed to the kernel before the act that it records is answered, so it survives our death; only
`sync` makes it survive a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from iam_bridge.errors import LedgerError, RunLocked
from iam_bridge.ledger.files import sync_folder, why_untrusted
from iam_bridge.ledger.finding import Finding
from iam_bridge.ledger.times import stamp

GENESIS = "0" * 64
LINE_MAX = 65_536
RESERVED = frozenset({"seq", "prev", "hash"})
_HASH_TAIL = len(',"hash":""}\n') + 64

canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def hash_of(fields: Mapping[str, object]) -> str:
    """Give the hash of a receipt from all its fields but `hash`; `prev` is one of them."""
    return sha256(canonical(fields).encode()).hexdigest()


def read_line(line: bytes) -> dict[str, Any]:
    """Read one whole line (with its newline); raise ValueError unless its hash is its own."""
    head, tail = line[:-_HASH_TAIL], line[-_HASH_TAIL:]
    digest = sha256(head + b"}").hexdigest()
    if tail != f',"hash":"{digest}"}}\n'.encode():
        raise ValueError("the hash does not fit the line")
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("seq"), int) or not isinstance(record["prev"], str):
        raise ValueError("the line is no receipt")  # noqa: TRY004 callers know one way for a line to be bad
    return record


def _digest_in(line: bytes) -> str:
    return line[-64 - len('"}\n') : -len('"}\n')].decode()


class ChainWriter:
    """Append receipts to a file of JSON lines: one writer per file, one write(2) per receipt.

    `head` and `seq` are those of the last line; they belong in the log now and then, as the anchor.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.head = GENESIS
        self.seq = 0
        self._fd = fd
        self._size = 0

    @classmethod
    def open(cls, path: Path, *, now: datetime, mode: int = 0o600) -> ChainWriter:
        """Open or make the file and go on where its chain ends.

        What a crash left torn after the last whole line goes to `PATH.torn`, and a receipt of kind `torn` says so. A
        file without one whole line goes to `PATH.damaged`, and a new chain starts with a receipt that says so.
        Raises RunLocked when another process writes to it, LedgerError when it cannot be used.
        """
        at = stamp(now)
        try:
            writer = cls(path, _open_locked(path, mode))
        except OSError as error:
            raise LedgerError(f"{path} cannot be used for receipts: {error.strerror}") from error
        try:
            if remark := writer._find_end(mode):
                writer.append({"at": at, "kind": "torn", "detail": remark})
        except OSError as error:
            writer.close()
            raise LedgerError(f"{path} cannot be used for receipts: {error.strerror}") from error
        except LedgerError:
            writer.close()
            raise
        return writer

    def append(self, record: Mapping[str, str | int | float | bool | None]) -> None:
        """Write one receipt; `seq`, `prev` and `hash` are added. Raises LedgerError, and the file is then as before."""
        if not RESERVED.isdisjoint(record):
            raise LedgerError("a receipt brings seq, prev or hash of its own")
        seq = self.seq + 1
        try:
            body = canonical({**record, "seq": seq, "prev": self.head})[:-1].encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise LedgerError(f"a receipt cannot be written as JSON: {error}") from error
        digest = sha256(body + b"}").hexdigest()
        line = body + f',"hash":"{digest}"}}\n'.encode()
        if len(line) > LINE_MAX:
            raise LedgerError(f"a receipt of {len(line)} bytes is too long", hint=f"{LINE_MAX} at most")
        self._write(line)
        self.seq, self.head = seq, digest

    def follow(self, *, now: datetime, mode: int = 0o600) -> bool:
        """Go on in a new file where somebody moved this one away, as logrotate does; tell whether that was so.

        The first receipt of the new file names the last one of the old. Raises LedgerError, and the old file stays.
        """
        own = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError):
            standing = os.stat(self.path, follow_symlinks=False)
            if (standing.st_dev, standing.st_ino) == (own.st_dev, own.st_ino):
                return False
        fresh = ChainWriter.open(self.path, now=now, mode=mode)
        try:
            fresh.append({"at": stamp(now), "kind": "continues", "detail": f"after receipt {self.seq}, {self.head}"})
        except LedgerError:
            fresh.close()
            raise
        self.close()
        self.head, self.seq, self._fd, self._size = fresh.head, fresh.seq, fresh._fd, fresh._size
        return True

    def sync(self) -> None:
        """Make all lines so far survive a power cut (fsync); raise LedgerError when that fails."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be synced: {error.strerror}") from error

    def close(self) -> None:
        """Sync and close; the next writer may come."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _write(self, line: bytes) -> None:
        why = "only a part of the line was written (disk full?)"
        try:
            if os.write(self._fd, line) == len(line):
                self._size += len(line)
                return
        except OSError as error:
            why = error.strerror or "error"
        # Half a line would break the chain for the next one, so the file goes back to what it was.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._size)
        raise LedgerError(f"{self.path} takes no receipt: {why}", hint="see df and the mount options")

    def _find_end(self, mode: int) -> str:
        """Set head and seq from the last whole line; give a sentence when something had to be moved aside."""
        size = os.fstat(self._fd).st_size
        if size == 0:
            return ""
        start = max(0, size - 4 * LINE_MAX)
        tail = os.pread(self._fd, size - start, start)
        end = len(tail)
        while (newline := tail.rfind(b"\n", 0, end)) >= 0:
            begin = tail.rfind(b"\n", 0, newline) + 1
            with contextlib.suppress(ValueError, KeyError, RecursionError):
                line = tail[begin : newline + 1]
                self.seq, self.head, self._size = read_line(line)["seq"], _digest_in(line), start + newline + 1
                return self._move_torn(tail[newline + 1 :]) if newline + 1 < len(tail) else ""
            end = newline
        return self._move_all(mode, size)

    def _move_torn(self, torn: bytes) -> str:
        aside = f"{self.path}.torn"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, torn + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.ftruncate(self._fd, self._size)
        return f"{len(torn)} bytes after the last whole line were moved to {aside}, SHA-256 {sha256(torn).hexdigest()}"

    def _move_all(self, mode: int, size: int) -> str:
        aside = _free_name(f"{self.path}.damaged")
        os.rename(self.path, aside)
        sync_folder(self.path.parent)
        os.close(self._fd)
        self._fd = _open_locked(self.path, mode)
        return f"{size} bytes without a whole receipt at their end were moved to {aside}; a new chain starts here"


def _free_name(wanted: str) -> str:
    names = (wanted, *(f"{wanted}.{n}" for n in range(1, 1000)))
    return next((name for name in names if not os.path.lexists(name)), wanted)


def _open_locked(path: Path, mode: int) -> int:
    """Open for appending, with the lock of the one writer."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        why = why_untrusted(os.fstat(fd), str(path), owners=frozenset({os.geteuid()}), folder=False)
        if why:
            raise LedgerError(why, hint="receipts are written by one account alone")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        hint = "each process that records has its own file"
        raise RunLocked(f"{path} is being written by another process", hint=hint) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LINE_MAX + 1):
            yield line


def verify_lines(path: Path) -> tuple[Finding, ...]:
    """Check a file of receipts from its first line to its last; give all that does not hold."""
    restore = "compare with the heads in syslog and with a backup"
    found: list[Finding] = []
    head, seq = GENESIS, 0
    try:
        for number, line in enumerate(_lines(path), 1):
            where = f"{path} line {number}"
            try:
                record = read_line(line)
            except (ValueError, KeyError, RecursionError) as error:
                torn = not line.endswith(b"\n")
                hint = "the next start of its writer moves it aside" if torn else restore
                found.append(Finding("receipt-torn" if torn else "receipt-damaged", f"{where}: {error}", hint))
                head = ""
                continue
            if head and (record["prev"] != head or record["seq"] != seq + 1):
                found.append(Finding("chain-broken", f"{where} does not follow the line before it", restore))
            head, seq = _digest_in(line), record["seq"]
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}"
        found.append(Finding("receipts-unreadable", what, "see its mode and owner"))
    return tuple(found)
