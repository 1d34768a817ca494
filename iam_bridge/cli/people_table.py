"""The table of `map adopt`: CSV bytes → rows, or all that is wrong with it, with line numbers.

The table gives accounts to people, so it is trusted as little as the settings: a plain file that nobody else can write.
"""

from __future__ import annotations

import csv
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.errors import InvalidValue
from iam_bridge.model.account import UserName
from iam_bridge.model.identity import Issuer, Subject, has_control

BYTES_MAX = 8 << 20
LINE_MAX = 2000
PROOF_MAX = 200
REQUIRED = ("name", "issuer", "sub")
COLUMNS = (*REQUIRED, "proof")
HINT = "the first line names the columns: name,issuer,sub or name,issuer,sub,proof"


@dataclass(frozen=True, slots=True)
class Claim:
    """One row: this account is that person's; `line` is where it stands."""

    line: int
    name: UserName
    subject: Subject
    proof: str


def read_table(path: Path) -> bytes:
    """Read the file whole; raise InvalidValue for one that is not to be believed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise InvalidValue(f"{path} is no plain file")
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                raise InvalidValue(f"{path} could have been written by somebody else", hint=f"chmod go-w {path}")
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > BYTES_MAX:
        raise InvalidValue(f"{path} is larger than {BYTES_MAX} bytes")
    return raw


def parse_table(raw: bytes) -> tuple[list[Claim], list[tuple[int, str]]]:
    """Read all rows; give those that are well-formed, and (line, problem) for the others.

    Raises InvalidValue where there is no table at all: no text, no head.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = raw[: error.start].count(b"\n") + 1
        raise InvalidValue(f"line {where}: this is no UTF-8 text", hint="save the table as CSV in UTF-8") from error
    lines = text.splitlines()
    head = _parse_head(lines[0] if lines else "")
    claims: list[Claim] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            claims.append(_parse_row(number, _fields(line), head))
        except InvalidValue as error:
            problems.append((number, error.message))
    if not claims and not problems:
        raise InvalidValue("the table has no rows", hint=HINT)
    return claims, problems


def _fields(line: str) -> list[str]:
    """Split one line; a field that spans lines, or holds a control character, is nothing that a name can be."""
    if len(line) > LINE_MAX or has_control(line):
        raise InvalidValue(f"the line is longer than {LINE_MAX} characters, or holds control characters")
    try:
        (row,) = csv.reader([line], strict=True)
    except (csv.Error, ValueError) as error:
        raise InvalidValue("the line is no CSV: see its quotes") from error
    return [field.strip() for field in row]


def _parse_head(line: str) -> list[str]:
    head = _fields(line) if line else []
    known = [column for column in head if column in COLUMNS]
    if len(set(known)) != len(head) or not set(REQUIRED) <= set(head):
        raise InvalidValue("line 1: these are not the columns of the table", hint=HINT)
    return head


def _parse_row(number: int, fields: list[str], head: list[str]) -> Claim:
    if len(fields) != len(head):
        raise InvalidValue(f"{len(fields)} fields, and the head has {len(head)}")
    row = dict(zip(head, fields, strict=True))
    proof = row.get("proof", "")
    if len(proof) > PROOF_MAX:
        raise InvalidValue(f"the proof is longer than {PROOF_MAX} characters")
    subject = Subject.parse(Issuer.parse(row["issuer"]), row["sub"])
    return Claim(number, UserName.parse(row["name"]), subject, proof)
