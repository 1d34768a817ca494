"""The view's format, known to its writer and its reader alone.

`view.db` is an SQLite file that is never changed once it has its name. Its `user_version` holds the CRC-32 of the file
(with that field as zeros), so that damage anywhere is seen when the file is opened and not as an account that is
missing: a missing account would be somebody else's business. CRC finds damage, not malice; against that stand owner
and mode.

`view.fresh`, beside it, says when each issuer's members were last pulled whole: one small file instead of a new view
every five minutes. It counts only for the ledger and the generation that it names.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

APPLICATION_ID = 0x49414D56  # "IAMV"
FORMAT = "1"
FRESH_MAX = 1 << 20

SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE issuers (issuer_id INTEGER PRIMARY KEY, url TEXT NOT NULL, taken_at TEXT)",
    """CREATE TABLE accounts (
        name TEXT PRIMARY KEY,
        issuer_id INTEGER NOT NULL,
        sub TEXT NOT NULL,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        home TEXT NOT NULL,
        shell TEXT NOT NULL,
        unix_groups TEXT NOT NULL,
        locks TEXT NOT NULL,
        gecos TEXT NOT NULL,
        adopted INTEGER NOT NULL,
        iam_groups TEXT NOT NULL,
        iam_active INTEGER NOT NULL) WITHOUT ROWID""",
)
INDEX = "CREATE UNIQUE INDEX accounts_by_subject ON accounts (issuer_id, sub)"

# sqlite.org/fileformat2.html 1.3: big-endian fields of the 100-byte header.
USER_VERSION = slice(60, 64)
PAGE_SIZE = slice(16, 18)
PAGE_COUNT = slice(28, 32)
HEADER = 100
CHUNK = 1 << 20


def crc_of(read: Callable[[int], bytes]) -> tuple[int, int, bytes]:
    """Give the CRC-32 of a view with its own field as zeros, its length and its header; `read` gives the next bytes."""
    header = read(HEADER)
    whole = bytearray(header)
    whole[USER_VERSION] = bytes(4) if len(header) == HEADER else b""
    crc, length = zlib.crc32(whole), len(header)
    while chunk := read(CHUNK):
        crc = zlib.crc32(chunk, crc)
        length += len(chunk)
    return crc, length, header


def fresh_path(view: Path) -> Path:
    """Give the path of the file that says how fresh a view is."""
    return view.with_suffix(".fresh")
