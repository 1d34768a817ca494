"""The frames between the PAM module and the login daemon."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.errors import BridgeError
from pam_module.wire import (
    MAX_FRAME,
    NO_UID,
    FrameReader,
    Phase,
    Reply,
    Request,
    Status,
    WireError,
    encode_reply,
    encode_request,
    parse_reply,
    parse_request,
    read_verdicts,
)

SECRET = b"eyJhbGciOiJSUzI1NiJ9.Y2FuYXJ5.c2VjcmV0"
REQUEST = Request(Phase.AUTH, 4242, "alice", "sshd", "ssh", "192.0.2.7", "a1B2c3", SECRET)
REPLY = Reply(Status.PERMIT, 20001, "alice", "Welcome.", "a1B2c3")

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
numbers = st.integers(0, NO_UID)
handles = st.from_regex(r"[0-9A-Za-z]{0,64}", fullmatch=True)
ascii_texts = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=50)
requests = st.builds(
    Request,
    st.sampled_from(Phase),
    numbers,
    texts,
    texts,
    texts,
    texts,
    ascii_texts,
    st.binary(max_size=2000),
    st.none() | st.integers(0, NO_UID - 1),
)
replies = st.builds(Reply, st.sampled_from(Status), numbers, texts, texts, handles)


def body(frame: bytes) -> bytes:
    (length,) = struct.unpack_from("!I", frame)
    assert length == len(frame) - 4
    return frame[4:]


def fields(*values: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(value)) + value for value in values)


@given(requests)
def test_a_request_comes_back_as_it_was(request: Request) -> None:
    assert parse_request(body(encode_request(request))) == request


@given(replies)
def test_a_reply_comes_back_as_it_was(reply: Reply) -> None:
    assert parse_reply(body(encode_reply(reply))) == reply


def test_the_layout_of_a_request() -> None:
    head = b"\x01\x02" + struct.pack("!II", 4242, 0xFFFFFFFF)
    assert body(encode_request(REQUEST)) == head + fields(b"alice", b"sshd", b"ssh", b"192.0.2.7", b"a1B2c3", SECRET)


def test_the_layout_of_a_reply() -> None:
    head = b"\x01\x01" + struct.pack("!I", 20001)
    assert body(encode_reply(REPLY)) == head + fields(b"alice", b"Welcome.", b"a1B2c3")


def test_a_reply_that_names_nobody_does_not_name_root() -> None:
    assert Reply(Status.DENY).uid == NO_UID


def test_neither_secret_nor_handle_shows() -> None:
    shown = f"{REQUEST!r} {REQUEST} {REPLY!r} {REPLY}"
    assert "alice" in shown
    assert "a1B2c3" not in shown
    assert "eyJ" not in shown


REQUEST_HEAD = b"\x01\x02" + bytes(4) + b"\xff\xff\xff\xff"
BAD_REQUESTS = {
    "nothing": b"",
    "half a head": REQUEST_HEAD[:5],
    "a head alone": REQUEST_HEAD,
    "five fields": REQUEST_HEAD + fields(b"", b"", b"", b"", b""),
    "seven fields": REQUEST_HEAD + fields(b"", b"", b"", b"", b"", b"", b""),
    "a byte after the last field": REQUEST_HEAD + fields(b"", b"", b"", b"", b"", b"") + b"\0",
    "a last field without its last byte": REQUEST_HEAD + fields(b"", b"", b"", b"", b"", b"xyz")[:-1],
    "a first field that is longer than the frame": REQUEST_HEAD + b"\0\0\1\0" + fields(b"", b"", b"", b"", b""),
    "a field of four gigabytes": REQUEST_HEAD + b"\xff" * 4 + bytes(40),
    "version zero": b"\0" + REQUEST_HEAD[1:] + fields(b"", b"", b"", b"", b"", b""),
    "version two": b"\2" + REQUEST_HEAD[1:] + fields(b"", b"", b"", b"", b"", b""),
    "phase zero": b"\1\0" + bytes(4) + fields(b"", b"", b"", b"", b"", b""),
    "phase six": b"\1\6" + bytes(8) + fields(b"", b"", b"", b"", b"", b""),
    "a user that is not UTF-8": REQUEST_HEAD + fields(b"al\xffice", b"", b"", b"", b"", b""),
    "a host that is not UTF-8": REQUEST_HEAD + fields(b"", b"", b"", b"\xc0\x80", b"", b""),
    "a handle that is not ASCII": REQUEST_HEAD + fields(b"", b"", b"", b"", b"\xc3\xa9", b""),
    "a user with a NUL byte": REQUEST_HEAD + fields(b"alice\0root", b"", b"", b"", b"", b""),
    "a service with a NUL byte": REQUEST_HEAD + fields(b"", b"\0", b"", b"", b"", b""),
    "a tty with a NUL byte": REQUEST_HEAD + fields(b"", b"", b"\0", b"", b"", b""),
    "a host with a NUL byte": REQUEST_HEAD + fields(b"", b"", b"", b"\0", b"", b""),
    "a handle with a NUL byte": REQUEST_HEAD + fields(b"", b"", b"", b"", b"\0", b""),
    "a text of HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "more than a frame may have": REQUEST_HEAD + fields(b"", b"", b"", b"", b"", bytes(MAX_FRAME)),
}
REPLY_HEAD = b"\x01\x01" + bytes(4)
BAD_REPLIES = {
    "nothing": b"",
    "a head alone": REPLY_HEAD,
    "two fields": REPLY_HEAD + fields(b"", b""),
    "four fields": REPLY_HEAD + fields(b"", b"", b"", b""),
    "version two": b"\2" + REPLY_HEAD[1:] + fields(b"", b"", b""),
    "status zero": b"\1\0" + bytes(4) + fields(b"", b"", b""),
    "status eight": b"\1\x08" + bytes(4) + fields(b"", b"", b""),
    "a text that is not UTF-8": REPLY_HEAD + fields(b"", b"\xff", b""),
    "a user with a NUL byte": REPLY_HEAD + fields(b"\0", b"", b""),
    "a text with a NUL byte": REPLY_HEAD + fields(b"", b"\0", b""),
    "a handle with a space": REPLY_HEAD + fields(b"", b"", b"a b"),
    "a handle that is too long": REPLY_HEAD + fields(b"", b"", b"a" * 65),
}


def test_the_heads_of_the_bad_frames_are_good() -> None:
    assert parse_request(REQUEST_HEAD + fields(b"", b"", b"", b"", b"", b"")) == Request(Phase.AUTH, 0, "")
    assert parse_reply(REPLY_HEAD + fields(b"", b"", b"")) == Reply(Status.PERMIT, 0)


@pytest.mark.parametrize("frame", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError, match=r"^(the frame|a frame) .+[^.]$"):
        parse_request(frame)


@pytest.mark.parametrize("frame", BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_a_bad_reply_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        parse_reply(frame)


@given(requests, st.integers(0, 1 << 20), st.integers(0, 255))
def test_what_is_parsed_as_a_request_has_one_spelling(request: Request, at: int, byte: int) -> None:
    frame = bytearray(body(encode_request(request)))
    frame[at % len(frame)] = byte
    try:
        value = parse_request(bytes(frame))
    except WireError:
        return
    assert body(encode_request(value)) == frame


@given(replies, st.integers(0, 1 << 20), st.integers(0, 255))
def test_what_is_parsed_as_a_reply_has_one_spelling(reply: Reply, at: int, byte: int) -> None:
    frame = bytearray(body(encode_reply(reply)))
    frame[at % len(frame)] = byte
    try:
        value = parse_reply(bytes(frame))
    except WireError:
        return
    assert body(encode_reply(value)) == frame


def test_a_refused_frame_is_not_quoted() -> None:
    frame = REQUEST_HEAD + fields(b"", b"", b"", b"", b"handle\xff", SECRET)
    with pytest.raises(WireError) as caught:
        parse_request(frame)
    assert caught.value.__cause__ is None
    assert "handle" not in str(caught.value)
    assert isinstance(caught.value, BridgeError)


def test_a_mixed_installation_is_named() -> None:
    with pytest.raises(WireError, match=r"version 2 .* version 1; install .* from the same release"):
        parse_request(b"\2" + REQUEST_HEAD[1:])


@pytest.mark.parametrize(
    "request_",
    [
        Request(Phase.AUTH, -1, "alice"),
        Request(Phase.AUTH, NO_UID + 1, "alice"),
        Request(Phase.AUTH, 1, "ali\0ce"),
        Request(Phase.AUTH, 1, "alice", rhost="\udc80"),
        Request(Phase.AUTH, 1, "alice", secret=bytes(MAX_FRAME)),
    ],
    ids=["a negative pid", "a pid above 32 bits", "a NUL byte", "a lone surrogate", "more than a frame may have"],
)
def test_a_request_that_fits_no_frame_is_refused(request_: Request) -> None:
    with pytest.raises(WireError):
        encode_request(request_)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(Status.DENY, -1),
        Reply(Status.DENY, NO_UID + 1),
        Reply(Status.DENY, text="a\0b"),
        Reply(Status.DENY, handle="a b"),
        Reply(Status.DENY, handle="a" * 65),
        Reply(Status.DENY, handle="abc\n"),
        Reply(Status.DENY, text="x" * MAX_FRAME),
    ],
    ids=["negative uid", "uid above 32 bits", "NUL", "handle with a space", "long handle", "newline", "too large"],
)
def test_a_reply_that_fits_no_frame_is_refused(reply: Reply) -> None:
    with pytest.raises(WireError):
        encode_reply(reply)


def test_a_frame_may_be_exactly_as_large_as_the_limit() -> None:
    empty = len(body(encode_request(Request(Phase.AUTH, 1, "alice"))))
    largest = Request(Phase.AUTH, 1, "alice", secret=bytes(MAX_FRAME - empty))
    frame = encode_request(largest)
    assert len(frame) == 4 + MAX_FRAME
    assert [parse_request(found) for found in FrameReader().feed(frame)] == [largest]


@given(st.lists(requests, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_a_stream_is_cut_into_its_frames_wherever_it_is_broken(sent: list[Request], steps: list[int]) -> None:
    stream = b"".join(map(encode_request, sent))
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        step = steps[at % len(steps)]
        found += reader.feed(stream[at : at + step])
        at += step
    assert [parse_request(frame) for frame in found] == sent
    assert reader.pending == 0


def test_a_cut_stream_leaves_something_pending() -> None:
    reader = FrameReader()
    assert reader.feed(encode_request(REQUEST)[:-1]) == []
    assert reader.pending > 0
    assert reader.feed(encode_request(REQUEST)[-1:]) == [body(encode_request(REQUEST))]
    assert reader.pending == 0


@pytest.mark.parametrize("length", [MAX_FRAME + 1, 1 << 31, 0xFFFFFFFF, int.from_bytes(b"GET ")])
def test_too_large_a_frame_is_refused_at_its_length_word(length: int) -> None:
    reader = FrameReader()
    assert reader.feed(struct.pack("!I", length)[:3]) == []
    with pytest.raises(WireError, match=f"a frame of {length} bytes was announced"):
        reader.feed(struct.pack("!I", length)[3:])
    assert reader.pending == 0


def test_the_table_of_verdicts_and_the_enums_agree() -> None:
    assert list(read_verdicts()) == list(Status)
    assert all(list(words) == list(Phase) for words in read_verdicts().values())


def test_importing_the_wire_is_light() -> None:
    """The daemon starts through it: nothing of importlib.resources, and no third party."""
    program = "import sys; before = set(sys.modules); import pam_module.wire; print(*set(sys.modules) - before)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= set(sys.stdlib_module_names) | {"iam_bridge", "pam_module"}
    assert "importlib.resources" not in done.stdout.split()
