"""What doctor thinks of the name service, of the numbers that others may give, and of the accounts that we run as."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from iam_bridge.model.account import IdRange
from iam_bridge.policy.doctor import Check, Mark, bad, good, warning

SHOWN = 5
"""Names that one check lists."""

_SOURCE = re.compile(r"\[[^\]]*\]|[^\s\[\]]+")
_STOPS = re.compile(r"!?notfound\s*=\s*return", re.IGNORECASE)


def judge_nsswitch(text: str, layout: str) -> list[Check]:
    """Judge nsswitch.conf(5) for accounts in `layout`: where our people are looked up, and after whom."""
    order = _read_nsswitch(text)
    source = "extrausers" if layout == "extrausers" else "files"
    return [_judge_order(f"nsswitch {base}", order.get(base), source) for base in ("passwd", "group", "shadow")]


def _read_nsswitch(text: str) -> dict[str, list[str]]:
    order: dict[str, list[str]] = {}
    for line in text.splitlines():
        base, colon, rest = line.partition("#")[0].partition(":")
        if colon and base.strip():
            order[base.strip()] = _SOURCE.findall(rest)
    return order


def _judge_order(what: str, order: list[str] | None, source: str) -> Check:
    if order is None:
        order = ["files"]  # glibc's own default for these three
    found = " ".join(order)
    names = [word for word in order if not word.startswith("[")]
    local = next((word for word in ("files", "compat") if word in names), "")
    if not local:
        return bad(what, found, "local accounts are not looked up: let the line begin with files")
    if source == "files":
        return good(what, found)
    if source not in names:
        return bad(what, found, f"our people are not looked up: write `files {source}` (package libnss-{source})")
    ours = order.index(source)
    if order.index(local) > ours:
        return warning(what, found, f"put {local} before {source}, so that no name of ours can shadow a local one")
    if any(_STOPS.search(word) for word in order[order.index(local) : ours] if not word.startswith("[!")):
        return bad(what, found, f"the search stops before {source}: take the [...=return] in front of it out")
    return good(what, found)


def judge_ranges(login_defs: str, uids: IdRange, gids: IdRange) -> list[Check]:
    """Judge whether login.defs(5) lets other programs give numbers of ours; what is no number is passed over."""
    given = dict(re.findall(r"^\s*([A-Z_]+)\s+([0-9]{1,10})\b", login_defs, re.MULTILINE))
    checks = []
    for word, ours in (("UID", uids), ("GID", gids)):
        checks.append(
            _judge_range(given, (f"{word}_MIN", f"{word}_MAX"), ours, giver="useradd and adduser", verdict=Mark.WARN)
        )
        checks.append(
            _judge_range(
                given, (f"SYS_{word}_MIN", f"SYS_{word}_MAX"), ours, giver="package installs", verdict=Mark.BAD
            )
        )
        checks.append(
            _judge_range(given, (f"SUB_{word}_MIN", f"SUB_{word}_MAX"), ours, giver="containers", verdict=Mark.BAD)
        )
    return [check for check in checks if check is not None]


def _judge_range(
    given: Mapping[str, str], ends: tuple[str, str], ours: IdRange, *, giver: str, verdict: Mark
) -> Check | None:
    low, high = ends
    if low not in given or high not in given:
        return None
    theirs = IdRange(int(given[low]), int(given[high]))
    what, found = f"login.defs {low}", f"{theirs.low}-{theirs.high}, ours {ours.low}-{ours.high}"
    if not theirs.overlaps(ours):
        return good(what, found)
    fix = f"{giver} may give numbers of ours: set {high} below {ours.low} in login.defs, or move accounts.ids"
    return Check(what, found, verdict, fix)


def judge_accounts(pairs: Sequence[tuple[str, int, int | None]], total: int) -> Check:
    """Judge (name, our uid, the host's uid or None) of a sample of our accounts."""
    what = "accounts in NSS"
    if not pairs:
        return good(what, "no accounts of ours yet")
    other = [f"{name} is {theirs} and not {ours}" for name, ours, theirs in pairs if theirs not in (None, ours)]
    unknown = [name for name, _, theirs in pairs if theirs is None]
    if other:
        fix = "somebody else gives these names: iam-bridge map audit"
        return bad(what, f"other uids: {_some(other)}", fix)
    if unknown:
        fix = "sshd replaces the answers of unknown names: check nsswitch.conf and accounts.folder, or provision run"
        return bad(what, f"unknown here: {_some(unknown)}", fix)
    return good(what, f"{len(pairs)} of {total} looked up, all as in the view")


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def judge_user(what: str, name: str, uid: int | None) -> Check:
    """Judge an account that a service or a pull runs as."""
    if uid is None:
        return bad(what, f"{name}: no such account", "make it (packaging/sysusers.d/iam-bridge.conf)")
    if uid == 0:
        return bad(what, f"{name} is root", "name an account of its own, without a shell")
    return good(what, f"{name} ({uid})")


def judge_breakglass(group: str, members: Sequence[str] | None) -> Check:
    """Judge the group that may come in by key while the daemon is down; `members` is None where there is no group."""
    what = "break-glass group"
    if not group:
        fix = "while the daemon is down nobody logs in, root neither: add breakglass=GROUP to the account line"
        return warning(what, "none", fix)
    if members is None:
        return bad(
            what, f"{group}: no such group in /etc/group", f"groupadd {group}, and put local administrators in it"
        )
    if not members:
        return bad(what, f"{group} has no listed members", f"put local administrators in it: gpasswd -a NAME {group}")
    return good(what, f"{group}: {_some(list(members))}")
