"""Anchors: what lies outside the ledger and tells when the ledger was put back from a copy.

A ledger restored from a backup cannot know that it is old, and would give numbers a second time. So every run writes
{ledger id, generation, highest uid and gid, chain head, receipts} to files elsewhere (and to the log). An anchor that
is ahead, foreign or off the chain stops all allocation until `reconcile`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from iam_bridge.errors import LedgerError
from iam_bridge.ledger.chain import GENESIS
from iam_bridge.ledger.db import transaction
from iam_bridge.ledger.files import read_bounded, write_text
from iam_bridge.ledger.receipts import append_receipts, head_of
from iam_bridge.ledger.records import ChangeLine, Reconciled
from iam_bridge.ledger.rows import bump, raise_meta, read_meta, read_meta_int
from iam_bridge.ledger.times import stamp

ANCHOR_MAX = 4096
GAP_MAX = 100_000  # a longer one comes from a second range, or from a hand that edited the anchor
NUMBER_MAX = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a ledger stood; `count` is the number of its receipts and `head` the hash of the last."""

    ledger: str
    generation: int
    highest_uid: int
    highest_gid: int
    head: str
    count: int


def read_own(db: sqlite3.Connection) -> Anchor:
    """Give where the ledger stands."""
    count, head = head_of(db)
    generation, uid, gid = (read_meta_int(db, key) for key in ("generation", "highest_uid", "highest_gid"))
    return Anchor(read_meta(db, "ledger"), generation, uid, gid, head, count)


def to_text(anchor: Anchor) -> str:
    """Write an anchor as one line of JSON."""
    return json.dumps(asdict(anchor), sort_keys=True) + "\n"


def read_anchor(path: Path) -> Anchor | None:
    """Read an anchor, None where there is no file; raise LedgerError for one that cannot be believed."""
    try:
        data, _ = read_bounded(path, ANCHOR_MAX)
        fields = json.loads(data)
        anchor = Anchor(**fields)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"the anchor {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerError(f"the anchor {path} is damaged") from error
    numbers = (anchor.generation, anchor.highest_uid, anchor.highest_gid, anchor.count)
    texts = (anchor.ledger, anchor.head)
    if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or not all(isinstance(t, str) for t in texts):
        raise LedgerError(f"the anchor {path} is damaged")
    return anchor


def _why_stopped(db: sqlite3.Connection, path: Path) -> str:
    try:
        anchor = read_anchor(path)
    except LedgerError as error:
        return error.message
    if anchor is None:
        return ""
    own = read_own(db)
    if anchor.ledger != own.ledger:
        return f"the anchor {path} is of another ledger ({anchor.ledger[:8]}, this is {own.ledger[:8]})"
    if anchor.generation > own.generation or anchor.count > own.count or anchor.highest_uid > own.highest_uid:
        return f"the anchor {path} is ahead of the ledger (generation {anchor.generation}, this is {own.generation})"
    row = db.execute("SELECT hash FROM receipts WHERE seq = ?", (anchor.count,)).fetchone()
    if anchor.highest_gid > own.highest_gid or anchor.head != (row[0] if row else GENESIS):
        return f"the anchor {path} does not lie on the chain of this ledger: it was written with a newer one"
    return ""


def check_anchors(db: sqlite3.Connection, paths: Iterable[Path]) -> str:
    """Say why no number may be given; empty while all anchors agree with the ledger."""
    why = next(filter(None, (_why_stopped(db, path) for path in paths)), "")
    return f"{why}; run: iam-bridge ledger reconcile" if why else ""


def write_anchors(db: sqlite3.Connection, paths: Iterable[Path]) -> str:
    """Write where the ledger stands to each path, and give that text; what is there already is not written again."""
    text = to_text(read_own(db))
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text, mode=0o600)
        except OSError as error:
            raise LedgerError(f"the anchor {path} cannot be written: {error.strerror or error}") from error
    return text


def _believable(paths: Iterable[Path]) -> list[Anchor]:
    found = []
    for path in paths:
        try:
            anchor = read_anchor(path)
        except LedgerError:
            continue  # it stopped allocation; what it said is lost, and it is written anew below
        if anchor is not None:
            found.append(anchor)
    return found


def reconcile(
    db: sqlite3.Connection,
    now: datetime,
    by: str,
    *,
    numbers_seen: Iterable[int],
    names_seen: Iterable[str],
    generation_seen: int,
    paths: Sequence[Path],
) -> Reconciled:
    """Let a restored ledger go on: what its lost history may have given is marked as given to somebody unknown.

    Marked are all numbers between its own highest and the anchors', and whatever was seen in the store, in NSS and
    among home folders. The generation goes past the anchors' and the one seen in the view. Then a receipt, and the
    anchors are written anew. Raises LedgerError.
    """
    at = stamp(now)
    anchors = _believable(paths)
    with transaction(db):
        own = read_own(db)
        gap = _gap(own, [anchor for anchor in anchors if anchor.ledger == own.ledger])
        known = {number for (number,) in db.execute("SELECT number FROM numbers")}
        numbers = sorted({n for n in numbers_seen if 0 < n <= NUMBER_MAX}.union(gap) - known)
        names = sorted(set(names_seen) - {name for (name,) in db.execute("SELECT name FROM names")})
        db.executemany("INSERT INTO numbers VALUES (?, 'unknown', ?)", [(n, at) for n in numbers])
        db.executemany("INSERT INTO names VALUES (?, 'unknown', ?)", [(name, at) for name in names])
        for anchor in anchors:
            if anchor.ledger == own.ledger:
                raise_meta(db, "generation", anchor.generation)
                raise_meta(db, "highest_uid", anchor.highest_uid)
                raise_meta(db, "highest_gid", anchor.highest_gid)
        raise_meta(db, "generation", generation_seen)
        bump(db, "generation")
        raise_meta(db, "bans_generation", read_meta_int(db, "generation"))  # it never was above the generation
        append_receipts(db, [_line(numbers, names, anchors)], at=at, run=0, by=by)
    write_anchors(db, paths)
    return Reconciled(len(numbers), len(names))


def _gap(own: Anchor, anchors: Iterable[Anchor]) -> set[int]:
    """Give the numbers that the lost history may have given; the highest alone keeps lower ones from being given."""
    gap: set[int] = set()
    for anchor in anchors:
        for mine, theirs in ((own.highest_uid, anchor.highest_uid), (own.highest_gid, anchor.highest_gid)):
            if mine < theirs <= NUMBER_MAX:
                gap.update(range(mine + 1, theirs + 1) if mine and theirs - mine <= GAP_MAX else (theirs,))
    return gap


def _line(numbers: Sequence[int], names: Sequence[str], anchors: Iterable[Anchor]) -> ChangeLine:
    heads = " ".join(f"{anchor.ledger[:8]}/{anchor.generation}/{anchor.count}/{anchor.head[:16]}" for anchor in anchors)
    span = f" ({numbers[0]} to {numbers[-1]})" if numbers else ""
    detail = f"{len(numbers)} numbers{span} and {len(names)} names are given to somebody unknown"
    return ChangeLine("reconcile", "", "", 0, detail, "anchors", heads)
