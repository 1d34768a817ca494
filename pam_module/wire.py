"""The frames that the PAM module and the login daemon exchange, as bytes and as values.

Invariants: a value that was parsed encodes to the same bytes; a frame larger than MAX_FRAME is refused at its length
word, before anything is kept; neither the secret nor the handle shows in a repr or in an error. What a request means
is left to the daemon. Numbers are big-endian; the layout is told in docs/reference/pam_iam.md.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from iam_bridge.errors import BridgeError

VERSION = 1
MAX_FRAME = 65536
"""Bytes after the length word, of a request and of a reply."""
NO_UID = 0xFFFFFFFF
"""What a reply says where it names nobody: (uid_t) -1, which chown(2) too takes for "no uid"."""
MAX_HANDLE = 64

_LENGTH = struct.Struct("!I")
_REQUEST_HEAD = struct.Struct("!BBII")
_REPLY_HEAD = struct.Struct("!BBI")
_HANDLE = re.compile(rf"[0-9A-Za-z]{{0,{MAX_HANDLE}}}")


class WireError(BridgeError):
    """A frame that cannot be read, or a value that fits no frame."""

    code = "wire"


class Phase(IntEnum):
    """What PAM asks for; the order is that of the columns of verdicts.tsv."""

    WHO = 1
    AUTH = 2
    ACCOUNT = 3
    OPEN_SESSION = 4
    CLOSE_SESSION = 5


class Status(IntEnum):
    """The daemon's word on a request; what PAM makes of it stands in verdicts.tsv. Zero is no status."""

    PERMIT = 1
    PROMPT = 2
    FOREIGN = 3
    DENY = 4
    EXPIRED = 5
    UNAVAILABLE = 6
    ERROR = 7


# A dict answers in a fifth of the time that the enum's own constructor takes, and this is on every login.
_PHASES = {int(phase): phase for phase in Phase}
_STATUSES = {int(status): status for status in Status}


@dataclass(frozen=True, slots=True)
class Request:
    """One question of the PAM module; `pid` is that of the process that runs PAM, empty text means unset.

    `nss_uid` is what NSS gave there for `user`, None where it knows no such name.
    """

    phase: Phase
    pid: int
    user: str
    service: str = ""
    tty: str = ""
    rhost: str = ""
    handle: str = field(default="", repr=False)
    secret: bytes = field(default=b"", repr=False)
    nss_uid: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the daemon; a permit must name the user and the uid that it is for."""

    status: Status
    uid: int = NO_UID
    user: str = ""
    text: str = ""
    handle: str = field(default="", repr=False)


def encode_request(request: Request) -> bytes:
    """Write a request as a frame, length word included.

    Raises:
        WireError: a text holds a NUL byte, a number is no u32, or the frame would exceed MAX_FRAME.
    """
    fields = [
        _encode_text("user", request.user),
        _encode_text("service", request.service),
        _encode_text("tty", request.tty),
        _encode_text("rhost", request.rhost),
        _encode_text("handle", request.handle),
        request.secret,
    ]
    uid = NO_UID if request.nss_uid is None else request.nss_uid
    return _encode_frame(_REQUEST_HEAD, request.phase, {"pid": request.pid, "uid": uid}, fields)


def parse_request(frame: bytes) -> Request:
    """Read a request from a frame without its length word.

    Raises:
        WireError: another version, an unknown phase, a field that ends outside the frame, bytes left over, or a
            text that is not UTF-8 or holds a NUL byte.
    """
    (phase_code, pid, uid), fields = _parse_frame(frame, _REQUEST_HEAD, 6)
    phase = _PHASES.get(phase_code)
    if phase is None:
        raise WireError(f"the frame asks for phase {phase_code}, which is not known")
    user, service, tty, rhost, handle, secret = fields
    try:
        request = Request(
            phase,
            pid,
            user.decode(),
            service.decode(),
            tty.decode(),
            rhost.decode(),
            handle.decode("ascii"),
            secret,
            None if uid == NO_UID else uid,
        )
    except UnicodeDecodeError:
        # The cause is dropped on purpose: a UnicodeDecodeError carries the bytes, and they may be the handle.
        raise WireError("the frame has a text field that is not UTF-8") from None
    if b"\0" in user or b"\0" in service or b"\0" in tty or b"\0" in rhost or b"\0" in handle:
        raise WireError("the frame has a text field with a NUL byte, which no PAM item can hold")
    return request


def encode_reply(reply: Reply) -> bytes:
    """Write a reply as a frame, length word included.

    Raises:
        WireError: a text holds a NUL byte, the uid is no u32, the handle is not up to MAX_HANDLE letters and
            digits (the module would drop it), or the frame would exceed MAX_FRAME.
    """
    if not _HANDLE.fullmatch(reply.handle):
        raise WireError(f"the handle must be up to {MAX_HANDLE} ASCII letters and digits")
    fields = [_encode_text("user", reply.user), _encode_text("text", reply.text), reply.handle.encode()]
    return _encode_frame(_REPLY_HEAD, reply.status, {"uid": reply.uid}, fields)


def parse_reply(frame: bytes) -> Reply:
    """Read a reply from a frame without its length word.

    Raises:
        WireError: another version, an unknown status, a field that ends outside the frame, bytes left over, a
            text that is not UTF-8 or holds a NUL byte, or a handle that is not letters and digits.
    """
    (code, uid), (user, text, handle) = _parse_frame(frame, _REPLY_HEAD, 3)
    status = _STATUSES.get(code)
    if status is None:
        raise WireError(f"the frame has status {code}, which is not known")
    try:
        reply = Reply(status, uid, user.decode(), text.decode(), handle.decode("ascii"))
    except UnicodeDecodeError:
        raise WireError("the frame has a text field that is not UTF-8") from None
    if b"\0" in user or b"\0" in text:
        raise WireError("the frame has a text field with a NUL byte, which no PAM item can hold")
    if not _HANDLE.fullmatch(reply.handle):
        raise WireError(f"the handle is not up to {MAX_HANDLE} ASCII letters and digits")
    return reply


class FrameReader:
    """Cut a stream of bytes into frames: feed what arrived, get the frames that are complete."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that has begun and is not complete; above 0 at the end of a stream means it was cut."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes and return the frames that they complete, without their length words.

        Raises:
            WireError: a length word announces more than MAX_FRAME bytes. The stream is then beyond repair: close it.
        """
        self._buffer += data
        frames: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                self._buffer.clear()
                raise WireError(f"a frame of {length} bytes was announced; the most is {MAX_FRAME}")
            end = start + _LENGTH.size + length
            if end > len(self._buffer):
                break
            frames.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return frames


def read_verdicts() -> dict[Status, dict[Phase, str | None]]:
    """Read verdicts.tsv: the name of the PAM return value of each status in each phase, None where it has none.

    The C module is compiled from the same file. Raises KeyError for a name that the enums do not have.
    """
    # Not at the top: it is slow to import, and the daemon starts without it.
    from importlib.resources import files

    head, *rows = (files(__package__) / "verdicts.tsv").read_text("ascii").splitlines()
    phases = [Phase[name.upper()] for name in head.split("\t")[2:]]
    table: dict[Status, dict[Phase, str | None]] = {}
    for row in rows:
        code, name, *words = row.split("\t")
        status = Status(int(code))
        if status is not Status[name.upper()]:
            raise KeyError(name)
        table[status] = {phase: None if word == "-" else word for phase, word in zip(phases, words, strict=True)}
    return table


def _encode_text(name: str, text: str) -> bytes:
    if "\0" in text:
        raise WireError(f"the field {name} holds a NUL byte, which no PAM item can hold")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise WireError(f"the field {name} cannot be written as UTF-8") from None


def _encode_frame(head: struct.Struct, kind: int, numbers: dict[str, int], fields: list[bytes]) -> bytes:
    for name, number in numbers.items():
        if not 0 <= number <= NO_UID:
            raise WireError(f"the {name} {number} does not fit into 32 bits")
    body = [head.pack(VERSION, kind, *numbers.values())]
    for value in fields:
        body += (_LENGTH.pack(len(value)), value)
    length = sum(map(len, body))
    if length > MAX_FRAME:
        raise WireError(f"the frame would have {length} bytes; the most is {MAX_FRAME}")
    return _LENGTH.pack(length) + b"".join(body)


def _parse_frame(frame: bytes, head: struct.Struct, count: int) -> tuple[list[int], list[bytes]]:
    if len(frame) > MAX_FRAME:
        raise WireError(f"the frame has {len(frame)} bytes; the most is {MAX_FRAME}")
    try:
        version, *numbers = head.unpack_from(frame)
        if version != VERSION:
            raise WireError(
                f"the frame has version {version} and this side speaks version {VERSION}",
                hint="install the PAM module and the login daemon from the same release",
            )
        fields = []
        at = head.size
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(frame, at)
            at += _LENGTH.size
            fields.append(frame[at : at + length])
            at += length
    except struct.error:
        raise WireError(f"the frame ends too early, after {len(frame)} bytes") from None
    # A slice past the end is short without a word, so the end is what tells.
    if at != len(frame):
        problem = "ends too early" if at > len(frame) else "has bytes after its last field"
        raise WireError(f"the frame {problem}")
    return numbers, fields
