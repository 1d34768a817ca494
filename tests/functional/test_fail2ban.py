"""The shipped fail2ban filter, on lines that the daemon really writes."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from tests.functional.logind_process import Site, until
from tests.vectors.bad_tokens import b64url

FILTER = Path(__file__).parents[2] / "config/fail2ban/filter.d/iam-bridge.conf"
HOST = r"(?P<host>[0-9A-Fa-f.:]+)"  # what fail2ban puts in the place of <HOST>, near enough


def failregex() -> re.Pattern[str]:
    parser = configparser.RawConfigParser()
    parser.read(FILTER)
    return re.compile(parser["Definition"]["failregex"].replace("<HOST>", HOST))


def last_line(site: Site, phase: str = "phase=auth") -> str:
    until(lambda: phase in site.log)
    return [line for line in site.log.splitlines() if phase in line][-1]


@pytest.mark.parametrize(
    ("sentence", "secret", "counts"),
    [
        ("a password", "correct horse battery staple", True),
        ("a forged signature", "", True),
        ("an expired token", "expired", False),
        ("a token for another service", "elsewhere", False),
        ("a good token", "good", False),
    ],
)
def test_what_looks_like_guessing_counts(running: Site, sentence: str, secret: str, counts: bool) -> None:
    made = {
        "": lambda: running.token("ada", key="foreign-rsa"),
        "expired": lambda: running.token("ada", lifetime_s=-60),
        "elsewhere": lambda: running.token("ada", audience="https://x.example.org"),
        "good": lambda: running.token("ada"),
    }
    running.auth("ada", made[secret]() if secret in made else secret)
    found = failregex().search(last_line(running))
    assert bool(found) is counts, last_line(running)
    if found:
        assert found["host"] == "198.51.100.7"


def test_a_hostile_name_cannot_put_another_address_into_the_line(running: Site) -> None:
    token = f"{b64url(b'{}')}.x.y"
    running.auth("x rhost=192.0.2.66 y", token)
    found = failregex().search(last_line(running))
    assert found
    assert found["host"] == "198.51.100.7"
