"""The issuers: this host's clock against theirs, and the age of their keys as they are kept here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from iam_bridge.errors import SourceUnavailable
from iam_bridge.iam.discovery import MAX_METADATA_BYTES, metadata_url
from iam_bridge.iam.http import Session
from iam_bridge.iam.keys import KeyCache
from iam_bridge.model.rules import IssuerRules, Settings
from iam_bridge.policy.doctor import Check, judge_clock, judge_keys
from iam_bridge.ports import Clock


def check_clocks(settings: Settings, clock: Clock) -> list[Check]:
    """Ask every issuer for its metadata, and compare the Date of its answer with the clock."""
    return [_check_clock(rules, clock) for rules in settings.issuers.values()]


def _check_clock(rules: IssuerRules, clock: Clock) -> Check:
    before = clock()
    try:
        with Session(ca_file=rules.ca_file) as session:
            url = metadata_url(rules.issuer)
            answer = session.fetch_json(url, timeout_s=rules.timeout_s, max_bytes=MAX_METADATA_BYTES)
    except SourceUnavailable as error:
        return judge_clock(rules.issuer.url, None, error.message)
    here = before + (clock() - before) / 2
    there = _date_of(answer.headers)
    if there is None:
        return judge_clock(rules.issuer.url, None, "its answer has no Date")
    return judge_clock(rules.issuer.url, (here - there).total_seconds() - 0.5)  # a Date is cut to its second


def _date_of(headers: Mapping[str, str]) -> datetime | None:
    try:
        there = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return there if there.tzinfo is not None else there.replace(tzinfo=UTC)


def check_keys(settings: Settings, clock: Clock) -> list[Check]:
    """Judge the keys that are kept for the login daemon."""
    now = clock()
    checks = []
    for status in KeyCache(settings.issuers, settings.login.key_cache, clock).status(now):
        age = None if status.fetched_at is None else (now - status.fetched_at).total_seconds()
        rules = settings.issuers[status.issuer]
        checks.append(judge_keys(status.issuer.url, age, rules.refresh_s, usable=status.usable, failure=status.failure))
    return checks
