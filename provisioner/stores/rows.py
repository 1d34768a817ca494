"""Rows of passwd, group, shadow, gshadow, subuid and subgid: found by name, added, changed in one field.

A line that nobody asked to change comes out as it went in, byte for byte, whatever it holds: text is decoded with
`surrogateescape`, which gives every byte back. What we write ourselves is checked here once more, last before the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from iam_bridge.errors import StoreError

COLONS = {"passwd": 6, "group": 3, "shadow": 8, "gshadow": 3, "subuid": 2, "subgid": 2}
"""How many colons a row has: passwd(5), group(5), shadow(5), gshadow(5), subuid(5)."""

_NOT_A_ROW = frozenset("#+-: \t")


@dataclass(frozen=True, slots=True)
class Table:
    """One file as read; `rows` gives the line number of the first row of a name, the one that libc answers with.

    `broken` are the names of lines that start like a row and are none (libc may still read some of them). `nis_at` is
    the number of the first line of the compat kind (`+` or `-`, nsswitch.conf(5)), -1 where there is none.
    """

    kind: str
    raw: bytes
    lines: Sequence[str]
    rows: Mapping[str, int]
    broken: frozenset[str]
    nis_at: int

    def find_row(self, name: str) -> list[str] | None:
        """Give the fields of the first row of a name."""
        number = self.rows.get(name)
        return None if number is None else self.lines[number].split(":")

    def each_row(self) -> Iterator[list[str]]:
        """Give the fields of the first row of every name, in the order of the file."""
        lines = self.lines
        return (lines[number].split(":") for number in self.rows.values())


def parse_table(kind: str, raw: bytes) -> Table:
    """Read a file; there is no line that it cannot take."""
    colons = COLONS[kind]
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    rows: dict[str, int] = {}
    broken: set[str] = set()
    nis_at = -1
    for number, line in enumerate(lines):
        if line.count(":") == colons and line[0] not in _NOT_A_ROW:
            rows.setdefault(line[: line.index(":")], number)
            continue
        text = line.lstrip()
        if text[:1] in {"+", "-"}:
            nis_at = number if nis_at < 0 else nis_at
        elif text and text[0] != "#":
            broken.add(text.partition(":")[0].strip())
    return Table(kind, raw, lines, rows, frozenset(broken), nis_at)


def parse_number(text: str) -> int | None:
    """Read a uid, a gid or a count as libc does: decimal digits of at most 32 bits; None for anything else."""
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    number = int(text)
    return number if number < 2**32 else None


def is_number(text: str, number: int) -> bool:
    """Tell whether a field gives this number, however many zeros it begins with."""
    return text == str(number) or parse_number(text) == number


def check_field(text: str) -> str:
    """Give the text back; raise StoreError where it would break out of its field (design, invariant 10)."""
    if ":" in text or not text.isprintable():
        raise StoreError(f"the text {text!r} cannot stand in an account file", hint="no colon or control byte may")
    return text


@dataclass(slots=True)
class Draft:
    """What shall change in one table; nothing is written by it."""

    table: Table
    _replaced: dict[int, str] = field(default_factory=dict)
    _added: list[str] = field(default_factory=list)

    def add_row(self, *fields: str) -> None:
        """Add a row; raise StoreError for a field that cannot stand in one."""
        line = ":".join(fields)
        if line.count(":") != COLONS[self.table.kind] or not line.isprintable():
            for text in fields:
                check_field(text)
            raise StoreError(f"a row of {self.table.kind} has {len(fields)} fields", hint="report this fault")
        self._added.append(line)

    def set_field(self, name: str, index: int, text: str) -> None:
        """Change one field of the first row of a name; all its other bytes stay."""
        number = self.table.rows[name]
        fields = self._replaced.get(number, self.table.lines[number]).split(":")
        fields[index] = check_field(text)
        self._replaced[number] = ":".join(fields)

    def render(self) -> bytes:
        """Give the whole file as it shall be; the very bytes that were read where nothing changes.

        New rows go before compat lines, which answer for every name that no earlier line has, else to the end.
        """
        if not self._replaced and not self._added:
            return self.table.raw
        lines = list(self.table.lines)
        for number, line in self._replaced.items():
            lines[number] = line
        if self._added:
            if lines[-1]:  # no newline at the end of the file
                lines.append("")
            place = self.table.nis_at if self.table.nis_at >= 0 else len(lines) - 1
            lines[place:place] = self._added
        return "\n".join(lines).encode("utf-8", "surrogateescape")
