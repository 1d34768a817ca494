"""What the view says of members and accounts, compared with the clock and the name service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.cli.doctor.host import Host
from iam_bridge.errors import ViewError
from iam_bridge.ledger.banlist import BanList
from iam_bridge.ledger.view import View
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import Settings
from iam_bridge.policy.doctor import Check, bad, judge_members
from iam_bridge.policy.doctor_host import judge_accounts

SAMPLE = 25
"""Accounts that are looked up; a directory behind NSS may take milliseconds for each."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read: accounts as (name, uid, adopted), member lists by issuer, and problems as checks."""

    accounts: Sequence[tuple[str, int, bool]]
    taken_at: dict[Issuer, datetime | None]
    problems: tuple[Check, ...]

    @property
    def adopted(self) -> tuple[int, ...]:
        """Give the uids of adopted people."""
        return tuple(uid for _, uid, adopted in self.accounts if adopted)


def read_view(settings: Settings) -> Seen:
    """Read the view and try the ban list; what stands against either is a check."""
    problems = []
    try:
        bans = BanList(settings.paths.bans)
        bans.reload_if_changed()
    except ViewError as error:
        problems.append(bad("ban list", error.message, f"nobody of ours is let in: {error.hint}"))
    view = View(settings.paths.view)
    try:
        view.reload_if_changed()
        return Seen(view.names(), view.taken_at(), tuple(problems))
    except ViewError as error:
        problems.insert(0, bad("view", error.message, f"nobody of ours is let in: {error.hint}"))
        return Seen((), {}, tuple(problems))
    finally:
        view.close()


def check_view(host: Host, settings: Settings, seen: Seen, now: datetime) -> list[Check]:
    """Judge the age of the member lists, and whether the host knows our accounts as the view does."""
    if any(check.what == "view" for check in seen.problems):
        return list(seen.problems)
    rules = settings.login.rules
    checks = list(seen.problems)
    for source in settings.sources:
        taken = seen.taken_at.get(source.issuer)
        age = None if taken is None else (now - taken).total_seconds()
        checks.append(judge_members(source.issuer.url, age, rules.members_warn_s, rules.members_deny_s))
    pairs = [(name, uid, host.uid_of(name)) for name, uid, _ in _sample(seen.accounts)]
    checks.append(judge_accounts(pairs, len(seen.accounts)))
    return checks


def _sample(accounts: Sequence[tuple[str, int, bool]]) -> list[tuple[str, int, bool]]:
    """Take adopted people first, whose rows others may have changed, and then evenly from the rest."""
    adopted = [row for row in accounts if row[2]][:SAMPLE]
    rest = [row for row in accounts if not row[2]]
    step = max(1, -(-len(rest) // SAMPLE))
    return adopted + rest[::step]
