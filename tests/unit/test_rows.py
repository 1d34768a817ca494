"""Rows of account files: what is a row, what is not, and what may be written into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.errors import StoreError
from provisioner.stores.rows import COLONS, Draft, check_field, is_number, parse_number, parse_table

PASSWD = b"root:x:0:0:root:/root:/bin/bash\nlocal:x:1001:1001::/home/local:/bin/sh\n"


@given(kind=st.sampled_from(sorted(COLONS)), raw=st.binary())
def test_a_draft_without_changes_is_the_file_itself(kind: str, raw: bytes) -> None:
    table = parse_table(kind, raw)
    assert Draft(table).render() == raw
    assert "\n".join(table.lines).encode("utf-8", "surrogateescape") == raw


@given(raw=st.binary())
def test_a_changed_row_leaves_every_other_byte(raw: bytes) -> None:
    table = parse_table("shadow", b"\xff\xfe:z\n" + raw.replace(b"\n", b"") + b"\nzoe:*:1:::::9:\xe9\n" + raw)
    if table.find_row("zoe") is None:
        return
    draft = Draft(table)
    draft.set_field("zoe", 7, "1")
    line = table.lines[table.rows["zoe"]]
    changed = line.rsplit(":", 2)[0] + ":1:" + line.rsplit(":", 1)[1]
    assert draft.render() == b"\n".join(
        (changed if number == table.rows["zoe"] else text).encode("utf-8", "surrogateescape")
        for number, text in enumerate(table.lines)
    )


@pytest.mark.parametrize(
    ("line", "row", "broken"),
    [
        pytest.param(b"alice:x:1:1::/:/bin/sh", True, False, id="a row"),
        pytest.param(b"alice:x:1:1::/:/bin/sh\r", True, False, id="a row with a carriage return"),
        pytest.param(b" alice:x:1:1::/:/bin/sh", False, True, id="libc skips leading blanks, we touch no such row"),
        pytest.param(b"alice:x:1:1::/", False, True, id="too few fields"),
        pytest.param(b"alice:x:1:1::/:/bin/sh:", False, True, id="too many fields"),
        pytest.param(b"alice", False, True, id="a name alone"),
        pytest.param(b"#alice:x:1:1::/:/bin/sh", False, False, id="a comment"),
        pytest.param(b"+alice:x:1:1::/:/bin/sh", False, False, id="a compat line"),
        pytest.param(b"-alice", False, False, id="a compat exclusion"),
        pytest.param(b":x:1:1::/:/bin/sh", False, False, id="no name"),
        pytest.param(b"", False, False, id="an empty line"),
    ],
)
def test_what_counts_as_a_row_of_alice(line: bytes, row: bool, broken: bool) -> None:
    table = parse_table("passwd", PASSWD + line + b"\n")
    assert (table.find_row("alice") is not None) is row
    assert ("alice" in table.broken) is broken


def test_the_first_of_two_rows_answers() -> None:
    table = parse_table("passwd", PASSWD + b"local:x:7:7::/:/bin/sh\n")
    row = table.find_row("local")
    assert row is not None
    assert row[2] == "1001"
    assert len(list(table.each_row())) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"", b"a:1:2\n", id="an empty file"),
        pytest.param(b"x:1:1\n", b"x:1:1\na:1:2\n", id="at the end"),
        pytest.param(b"x:1:1", b"x:1:1\na:1:2\n", id="after a line without newline"),
        pytest.param(b"x:1:1\n\n", b"x:1:1\n\na:1:2\n", id="after an empty line"),
        pytest.param(b"x:1:1\n+\n", b"x:1:1\na:1:2\n+\n", id="before compat lines, which answer for everybody"),
        pytest.param(b"+@staff\ny:1:1\n-\n", b"a:1:2\n+@staff\ny:1:1\n-\n", id="before the first of them"),
        pytest.param(b"+", b"a:1:2\n+\n", id="before one without newline"),
    ],
)
def test_where_a_new_row_goes(before: bytes, after: bytes) -> None:
    draft = Draft(parse_table("subuid", before))
    draft.add_row("a", "1", "2")
    assert draft.render() == after


@pytest.mark.parametrize(
    "text",
    ["a:b", "a\nb", "a\rb", "\0", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\udcff"],
    ids=["colon", "newline", "return", "nul", "escape", "delete", "next line", "separator", "override", "no text"],
)
def test_no_field_can_break_out(text: str) -> None:
    draft = Draft(parse_table("passwd", PASSWD))
    with pytest.raises(StoreError, match="cannot stand in an account file"):
        check_field(text)
    with pytest.raises(StoreError, match="cannot stand in an account file"):
        draft.add_row("alice", "x", "1", "1", text, "/", "/bin/sh")
    with pytest.raises(StoreError, match="cannot stand in an account file"):
        draft.set_field("local", 4, text)
    assert draft.render() == PASSWD


def test_a_row_has_the_fields_of_its_file() -> None:
    with pytest.raises(StoreError, match="a row of passwd has 2 fields"):
        Draft(parse_table("passwd", PASSWD)).add_row("alice", "x")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("0", 0, id="zero"),
        pytest.param("001001", 1001, id="leading zeros, as libc reads them"),
        pytest.param("4294967295", 2**32 - 1, id="the largest"),
        pytest.param("4294967296", None, id="33 bits"),
        pytest.param("9" * 5000, None, id="thousands of digits"),
        pytest.param("-1", None, id="a sign"),
        pytest.param("1_000", None, id="what only Python reads"),
        pytest.param("١", None, id="another script's digit"),
        pytest.param("²", None, id="a superscript"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_numbers(text: str, number: int | None) -> None:
    assert parse_number(text) == number
    assert number is None or is_number(text, number)
    assert not is_number(text, 77)
