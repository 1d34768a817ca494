"""Log lines that nobody can forge, and names for secrets that show nothing."""

from __future__ import annotations

import errno
import re

import pytest

from iam_bridge.errors import Reason
from iam_bridge.model.verdict import Deny
from pam_module.handles import MOST, TTL_S, Handles, Opened
from pam_module.records import VALUE_MAX, LogLines, Note, hash_jti, log_line, log_value
from pam_module.wire import Phase, Request

HOSTILE = [
    ("a line of its own", "x\nevent=login verdict=permit rhost=192.0.2.1"),
    ("a field of its own", "x rhost=192.0.2.1"),
    ("quotes", 'x" rhost="192.0.2.1'),
    ("a tab and an escape sequence", "x\trhost=192.0.2.1\x1b[2J"),
    ("Unicode blanks and line ends", "x\u00a0rhost=192.0.2.1\u2028\u2029\u0085rhost=192.0.2.1"),
    ("look-alikes of =", "x rhost\uff1d192.0.2.1"),
    ("a backslash that would undo an escape", "x\\x20rhost\\x3d192.0.2.1"),
]


@pytest.mark.parametrize("text", [text for _, text in HOSTILE], ids=[name for name, _ in HOSTILE])
def test_a_hostile_value_forges_no_field_and_no_line(text: str) -> None:
    line = log_line({"event": "login", "rhost": "198.51.100.7", "user": text}).decode("ascii")
    assert line.count("\n") == 1
    assert line.count(" ") == 2
    assert line.count("=") == 3
    assert re.findall(r"rhost=(\S+)", line) == ["198.51.100.7"]


def test_different_hostile_values_stay_different() -> None:
    written = [log_value(text) for _, text in HOSTILE]
    assert len(set(written)) == len(written)


def test_a_missing_value_and_a_dash_differ() -> None:
    assert log_value("") == "-"
    assert log_value("-") == "\\x2d"


def test_a_lone_surrogate_is_written_like_everything_else() -> None:
    assert log_line({"user": "\udc80"}) == b"user=\\u{dc80}\n"


@pytest.mark.parametrize("text", ["a" * 60_000, "\U0001f600" * 60_000])
def test_a_huge_value_is_cut(text: str) -> None:
    assert len(log_value(text)) == VALUE_MAX + 3


def test_the_remote_host_stands_before_what_a_stranger_chose() -> None:
    note = Note(Request(Phase.AUTH, 7, "alice", rhost="198.51.100.7"), 0.0)
    line = log_line(note.line(Deny(Reason.EXPIRED, "text", "3 s ago"), 0.0005)).decode()
    assert line == (
        "event=login phase=auth verdict=deny reason=expired rhost=198.51.100.7 user=alice pid=7 "
        "detail=3\\x20s\\x20ago took_us=500\n"
    )


def test_what_can_be_provoked_without_end_is_written_once_a_second_with_its_count() -> None:
    lines: list[bytes] = []
    now = 0.0
    log = LogLines(lines.append, lambda: now)
    for _ in range(1000):
        log.seldom("peer", event="peer", uid=1)
    now = 1.5
    log.seldom("peer", event="peer", uid=1)
    assert lines == [b"event=peer uid=1\n", b"event=peer uid=1 skipped=999\n"]


def test_a_log_that_cannot_be_written_is_made_up_for_by_a_count() -> None:
    lines: list[bytes] = []
    full = True

    def write(line: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "full")
        lines.append(line)

    log = LogLines(write)
    log.write(event="a")
    log.write(event="b")
    full = False
    log.write(event="c")
    log.write(event="d")
    assert lines == [b"event=c lost_lines=2\n", b"event=d\n"]


def test_the_hash_of_a_jti_shows_nothing_of_it_and_an_absent_one_is_empty() -> None:
    assert re.fullmatch("[0-9a-f]{16}", hash_jti("6b1c2f"))
    assert hash_jti("6b1c2f") != hash_jti("6b1c20")
    assert hash_jti("") == ""


def test_a_handle_gives_back_once_and_only_to_its_user() -> None:
    handles = Handles(lambda: 0.0)
    opened = Opened("alice", "f" * 16, "sub", "https://iam.example/", "")
    handle = handles.make(opened)
    assert re.fullmatch("[0-9a-f]{32}", handle)
    assert handles.take(handle, "bob") is None
    assert handles.take(handle, "alice") == opened
    assert handles.take(handle, "alice") is None
    assert handles.take("unknown", "alice") is None


def test_a_handle_ends_with_its_time_and_its_place_is_used_again() -> None:
    now = 0.0
    handles = Handles(lambda: now)
    handle = handles.make(Opened("alice", "", "", "", ""))
    now = TTL_S
    assert handles.take(handle, "alice") is None
    handles.make(Opened("alice", "", "", "", ""))
    now = 3 * TTL_S
    handles.make(Opened("bob", "", "", "", ""))
    assert len(handles) == 1


def test_the_table_of_handles_is_bounded_and_the_oldest_goes_first() -> None:
    handles = Handles(lambda: 0.0)
    first, second = (handles.make(Opened("alice", "", "", "", "")) for _ in range(2))
    for _ in range(MOST - 1):
        handles.make(Opened("alice", "", "", "", ""))
    assert len(handles) == MOST
    assert handles.take(first, "alice") is None
    assert handles.take(second, "alice") is not None
