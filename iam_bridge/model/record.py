"""One person's record as text from outside becomes a Member, or is refused with what is wrong with it.

Every way in uses this: SCIM, the people file, and what the unprivileged pull says to root. No rule for account names
is applied here (a misfit is policy's business); what is refused is what could not be stored, compared or shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from iam_bridge.errors import InvalidValue
from iam_bridge.model.identity import Issuer, Member, Subject

TEXT_MAX = 1024  # IAM's columns: user name 128, attribute value 256
SHOWN_MAX = 80


def show(value: object, most: int = SHOWN_MAX) -> str:
    """Make hostile text fit for one line of a report: printable ASCII alone, cut at `most` characters."""
    text = value if isinstance(value, str) else type(value).__name__
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:most])
    return kept + "..." if len(text) > most else kept


def parse_text(value: object, what: str) -> str:
    """Read text of 1 to 1024 characters that UTF-8 can hold; raise InvalidValue for anything else.

    A lone surrogate (JSON can spell one) would break whatever writes it later: ledger, report, log.
    """
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"{what} is missing or no text")
    if len(value) > TEXT_MAX:
        raise InvalidValue(f"{what} is longer than {TEXT_MAX} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidValue(f"{what} is no Unicode text") from error
    return value


def parse_created(value: object) -> datetime:
    """Read an ISO 8601 time with its offset, as Java writes it, and give it in UTC."""
    if not isinstance(value, str) or len(value) > 40:
        raise InvalidValue("the creation time is missing or no text")
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise InvalidValue("the creation time has no offset from UTC")
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue("the creation time is no time") from error


def parse_attributes(pairs: Iterable[tuple[object, object]], trusted: frozenset[str]) -> dict[str, str]:
    """Keep the attributes that the settings trust; raise InvalidValue where one comes twice or is no text."""
    kept: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise InvalidValue("the name of an attribute is no text")
        if name not in trusted:
            continue
        if name in kept:
            raise InvalidValue(f"the attribute {name} comes twice")
        kept[name] = parse_text(value, f"the attribute {name}")
    return kept


def parse_member(
    issuer: Issuer,
    *,
    sub: object,
    username: object,
    active: object,
    created: object,
    groups: frozenset[str],
    attributes: Mapping[str, str],
) -> Member:
    """Build a Member from fields of which none is trusted yet; raise InvalidValue that names the first bad one."""
    if not isinstance(active, bool):
        raise InvalidValue("`active` is neither true nor false")
    return Member(
        Subject.parse(issuer, sub),
        parse_text(username, "the user name"),
        active,
        parse_created(created),
        groups,
        attributes,
    )
