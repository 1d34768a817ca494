"""What people type on the command line, as values: who, and when.

Read strictly: a date that could be misread, or a name that is none, is refused with how to write it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from iam_bridge.errors import InvalidValue, LedgerError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.account import Account, UserName
from iam_bridge.model.identity import Subject, has_control
from iam_bridge.model.state import LedgerState
from iam_bridge.settings_read import parse_duration

REASON_MAX = 200
SHOWN_MAX = 80
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})\Z")
_HOW_TO_DATE = "write 2026-05-03 (to the end of that day, UTC) or 2026-05-03T12:00Z"
_HOW_TO_NAME = "write an account name, uid:N or SUB@https://issuer/"


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody as an admin names them: exactly one of the three."""

    subject: Subject | None = None
    name: str | None = None
    uid: int | None = None

    def __str__(self) -> str:
        return self.name or (f"uid:{self.uid}" if self.uid is not None else str(self.subject))


def parse_who(text: str) -> Who:
    """Read NAME, uid:N or SUB@https://issuer/; raise InvalidValue for anything else."""
    if text.startswith("uid:"):
        digits = text.removeprefix("uid:")
        if not re.match(r"[0-9]{1,10}\Z", digits) or int(digits) >= 2**32 - 1:
            raise InvalidValue(f"{text[:SHOWN_MAX]!r} is no uid", hint="write it as uid:20017")
        return Who(uid=int(digits))
    if "@" in text:
        return Who(subject=Subject.parse_text(text))
    try:
        return Who(name=UserName.parse(text).text)
    except InvalidValue as error:
        raise InvalidValue(f"{text[:SHOWN_MAX]!r} names nobody", hint=_HOW_TO_NAME) from error


def parse_moment(text: str) -> datetime:
    """Read a day (its end, UTC) or a time with its offset; raise InvalidValue for anything that could be misread."""
    try:
        if _DAY.match(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
        if _MOMENT.match(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidValue(f"{text[:SHOWN_MAX]!r} is no date of the calendar", hint=_HOW_TO_DATE) from error
    raise InvalidValue(f"{text[:SHOWN_MAX]!r} is no date", hint=_HOW_TO_DATE)


def parse_end(text: str, now: datetime) -> datetime:
    """Read when something ends: a date, or a duration from now such as 2h or 7d; raise InvalidValue."""
    try:
        end = parse_moment(text) if "-" in text else now + timedelta(seconds=parse_duration(text))
    except OverflowError as error:
        raise InvalidValue(f"{text[:SHOWN_MAX]!r} is no time that a calendar holds") from error
    except InvalidValue as error:
        raise InvalidValue(error.message, hint=f"a duration such as 2h or 7d, or: {_HOW_TO_DATE}") from error
    if end <= now:
        raise InvalidValue(f"{text[:SHOWN_MAX]!r} is over already", hint="give a later time, or none")
    return end


def parse_past(text: str | None, now: datetime) -> datetime:
    """Read a moment of the past, now where none is given; the end of a day that still runs is now."""
    if text is None:
        return now
    at = parse_moment(text)
    if at > now and not (_DAY.match(text) and at - now <= timedelta(days=1)):
        raise InvalidValue(f"{text[:SHOWN_MAX]!r} lies ahead", hint="the ledger knows the past only")
    return min(at, now)


def parse_reason(text: str) -> str:
    """Read the reason that a person may get to read: one line, 200 characters at most."""
    if has_control(text) or len(text) > REASON_MAX:
        raise InvalidValue(f"the reason is longer than {REASON_MAX} characters or holds control characters")
    return text.strip()


def find_account(state: LedgerState, who: Who) -> Account | None:
    """Give the account of somebody, None where they have none (yet)."""
    if who.subject is not None:
        return state.accounts.get(who.subject)
    return next(
        (a for a in state.accounts.values() if a.uid == who.uid or a.name.text == who.name),
        None,
    )


def need_account(ledger: Ledger, state: LedgerState, text: str) -> Account:
    """Give the account that an argument names; raise LedgerError, with what is known of them, where there is none."""
    who = parse_who(text)
    account = find_account(state, who)
    if account is not None:
        return account
    hint = "iam-bridge map list shows all accounts"
    if who.subject is not None and ledger.member(who.subject) is not None:
        hint = "the IAM knows them, and they have no account: iam-bridge map audit says why"
    raise LedgerError(f"the ledger has no account of {who}", hint=hint)
