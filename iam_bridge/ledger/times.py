"""Times as text: RFC 3339 in UTC with six digits and `Z`, so that text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime

from iam_bridge.errors import InvalidValue

STAMP_LENGTH = len("2026-05-03T12:00:00.000000Z")


def stamp(when: datetime) -> str:
    """Write a time; raise InvalidValue for one without a zone, since nobody could say later what it meant."""
    if when.tzinfo is not UTC:
        if when.tzinfo is None:
            raise InvalidValue("a time without its zone cannot be recorded", hint="give it in UTC")
        when = when.astimezone(UTC)
    return when.isoformat(timespec="microseconds")[:-6] + "Z"


def moment(text: object) -> datetime:
    """Read what `stamp` wrote; raise InvalidValue for anything else."""
    if not isinstance(text, str) or len(text) != STAMP_LENGTH or text[-1] != "Z" or text[10] != "T":
        raise InvalidValue(f"{str(text)[:40]!r} is no recorded time")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidValue(f"{text!r} is no recorded time") from error


def moment_or_none(text: object) -> datetime | None:
    """Read a time that may be absent."""
    return None if text is None else moment(text)
