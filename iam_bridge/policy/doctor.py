"""What doctor thinks of what it found on a host: facts in, checks out, each with what to do in words.

`bad` is what refuses people who should come in, or opens what should be closed; `warn` is what will, or may be meant.
Texts that the checks quote come from files of the host; whoever prints them cleans them.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import Enum

SKEW_BAD_S = 30
"""As much as nbf and iat may be ahead (policy.claims.LEEWAY_S): beyond it good tokens are refused."""
SKEW_WARN_S = 5
SPACE_BAD = 64 << 20
SPACE_WARN = 512 << 20
INODES_BAD = 100
ANSWER_SLOW_S = 0.5


class Mark(Enum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the report: what was looked at, what was found, how that is, and how to mend it."""

    what: str
    found: str
    verdict: Mark
    fix: str = ""


def good(what: str, found: str) -> Check:
    """Make a check that is as it should be."""
    return Check(what, found, Mark.OK)


def warning(what: str, found: str, fix: str) -> Check:
    """Make a check that an admin should look at."""
    return Check(what, found, Mark.WARN, fix)


def bad(what: str, found: str, fix: str) -> Check:
    """Make a check that must be mended."""
    return Check(what, found, Mark.BAD, fix)


# ---- files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What stat(2) said of a path; `error` instead where it could not be looked at."""

    mode: int = 0
    uid: int = 0
    error: str = ""
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a path should be: its kind, who may own it, which permission bits nobody should have, and why."""

    is_folder: bool
    owners: frozenset[int]
    forbidden: int
    why: str
    missing: Mark = Mark.BAD
    make: str = ""
    """How to make it where it is missing."""


def judge_path(what: str, path: str, found: Found, wanted: Wanted) -> Check:
    """Judge owner and mode of a file or folder."""
    if found.is_missing:
        return Check(what, f"{path} does not exist", wanted.missing, wanted.make)
    if found.error:
        return warning(what, f"{path}: {found.error}", "run doctor as root to have it looked at")
    mode = stat.S_IMODE(found.mode)
    shown = f"{path} {mode:04o} uid {found.uid}"
    kind_fits = stat.S_ISDIR(found.mode) if wanted.is_folder else not stat.S_ISDIR(found.mode)
    if not kind_fits:
        kind = "folder" if wanted.is_folder else "file"
        return bad(what, f"{path} is no {kind}", f"put a {kind} there; {wanted.why}")
    if found.uid not in wanted.owners:
        right = " or ".join(str(uid) for uid in sorted(wanted.owners))
        return bad(what, shown, f"chown {right.partition(' ')[0]} {path}; {wanted.why}")
    if mode & wanted.forbidden:
        return bad(what, shown, f"chmod {mode & ~wanted.forbidden:04o} {path}; {wanted.why}")
    return good(what, shown)


def judge_space(what: str, path: str, free: int, inodes: int | None) -> Check:
    """Judge the room for receipts, without which nothing is permitted; `inodes` is None where there is no limit."""
    found = f"{free >> 20} MiB free for {path}"
    fix = "without room for receipts nobody is let in: make room"
    if free < SPACE_BAD or (inodes is not None and inodes < INODES_BAD):
        return bad(what, found if free < SPACE_BAD else f"{inodes} inodes free for {path}", fix)
    if free < SPACE_WARN:
        return warning(what, found, fix)
    return good(what, found)


# ---- time, keys, members, daemon ---------------------------------------------------------------------------------


def judge_clock(issuer: str, skew_s: float | None, why: str = "") -> Check:
    """Judge this host's clock against the issuer's Date header; `skew_s` is ours minus theirs, None with a reason."""
    what = f"clock, {issuer}"
    if skew_s is None:
        fix = "logins go on with kept keys until `usable`; look at network, firewall, ca_file and the issuer"
        return bad(what, f"not compared: {why}", fix)
    found = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the issuer"
    if abs(skew_s) > SKEW_BAD_S:
        return bad(what, found, "good tokens are refused: let chrony or systemd-timesyncd set the clock")
    if abs(skew_s) > SKEW_WARN_S:
        return warning(what, found, "let chrony or systemd-timesyncd set the clock")
    return good(what, "as the issuer's" if abs(skew_s) < 1.5 else found)


def judge_keys(issuer: str, age_s: float | None, refresh_s: int, *, usable: bool, failure: str = "") -> Check:
    """Judge the kept keys of an issuer by their age; None where there are none."""
    what = f"keys, {issuer}"
    if age_s is None:
        fix = "the next login needs the network: iam-bridge keys refresh"
        return warning(what, f"none kept{f' ({failure})' if failure else ''}", fix)
    found = f"{_age(age_s)} old"
    if not usable:
        return bad(
            what, f"{found}, too old to be used", "logins fail while the issuer is silent: iam-bridge keys refresh"
        )
    if age_s > 2 * refresh_s:
        return warning(what, found, "the daemon could not refresh them: iam-bridge keys refresh says why")
    return good(what, found)


def judge_members(issuer: str, age_s: float | None, warn_s: int, deny_s: int) -> Check:
    """Judge how old the last complete list of members is that the view speaks of; None where there was none."""
    what, fix = f"members, {issuer}", "iam-bridge provision status says why; then: iam-bridge provision run"
    if age_s is None:
        return bad(what, "no complete list yet, so nobody is let in", fix)
    found = f"{_age(age_s)} old"
    if age_s < -warn_s:
        return bad(what, f"{_age(-age_s)} in the future", "set the clock, then: iam-bridge provision run")
    if age_s >= deny_s:
        return bad(what, f"{found}, so nobody is let in", fix)
    if age_s >= warn_s:
        return warning(what, found, fix)
    return good(what, found)


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What came of asking the daemon about root: who answered, how fast, or what went wrong.

    `says_foreign` is None where it was not asked, because it answers other uids than ours.
    """

    problem: str = ""
    is_forbidden: bool = False
    peer_uid: int = 0
    wanted_uid: int | None = None
    says_foreign: bool | None = None
    took_s: float = 0.0


def judge_daemon(socket: str, facts: DaemonFacts) -> Check:
    """Judge the login daemon by the answer on its socket."""
    what = "login daemon"
    if facts.is_forbidden:
        return warning(what, f"{socket} answers root alone", "run doctor as root to have it asked")
    if facts.problem:
        fix = "nobody of ours is let in: systemctl status iam-bridge-logind, or iam-bridge-logind --check"
        return bad(what, f"{socket}: {facts.problem}", fix)
    if facts.peer_uid != facts.wanted_uid:
        fix = (
            "the PAM module will not believe it: start it under login.user, and give the module daemon= if that differs"
        )
        return bad(what, f"{socket} is served by uid {facts.peer_uid}, not by {facts.wanted_uid}", fix)
    if facts.says_foreign is None:
        return warning(
            what, f"uid {facts.peer_uid} serves {socket}", "it answers login.peers alone: run doctor as root"
        )
    if not facts.says_foreign:
        fix = "it may have no view, or another ledger's: iam-bridge-logind --check"
        return bad(what, "it cannot say that root is none of ours", fix)
    found = f"uid {facts.peer_uid} answered in {facts.took_s * 1000:.1f} ms"
    if facts.took_s > ANSWER_SLOW_S:
        return warning(what, found, "that is slow: look at the load and at the disk of login.receipts")
    return good(what, found)


def _age(seconds: float) -> str:
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {word}"
    return f"{int(seconds)} s"
