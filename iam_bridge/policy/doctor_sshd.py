"""sshd's settings as sshd_config(5) reads them: the first value of a keyword wins, whichever file it stands in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iam_bridge.policy.doctor import Check, bad, good, warning

DEFAULTS = {
    "usepam": "no",
    "kbdinteractiveauthentication": "yes",
    "passwordauthentication": "yes",
    "authenticationmethods": "any",
    "pamservicename": "sshd",
    "logingracetime": "120",
}
_SPELLED = {
    "usepam": "UsePAM",
    "kbdinteractiveauthentication": "KbdInteractiveAuthentication",
    "passwordauthentication": "PasswordAuthentication",
}
_ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
}
_WATCHED = frozenset(DEFAULTS)
_WORD = re.compile(r'"([^"]*)"|([^\s"]+)')
_TIME = re.compile(r"([0-9]{1,6})([smhdw]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
GRACE_LEAST_S = 30
DROP_IN = "sshd_config.d/10-iam-bridge.conf"


@dataclass(frozen=True, slots=True)
class SshdLine:
    """One setting where it stands; `is_conditional` for what a Match block holds."""

    keyword: str
    value: str
    origin: str
    is_conditional: bool = False


def parse_sshd(text: str, file: str) -> list[SshdLine]:
    """Read one file; Include lines come as settings of that name, to be resolved by whoever can read files."""
    read: list[SshdLine] = []
    matching = False
    for number, raw in enumerate(text.splitlines(), start=1):
        if raw.lstrip().startswith("#"):
            continue
        words = [quoted or plain for quoted, plain in _WORD.findall(raw.replace("=", " ", 1))]
        if not words:
            continue
        keyword = words[0].lower()
        if keyword == "match":
            # `Match all` ends the conditions of the block before it.
            matching = [word.lower() for word in words[1:]] != ["all"]
        else:
            value = " ".join(words[1:])
            read.append(SshdLine(_ALIASES.get(keyword, keyword), value, f"{file}:{number}", matching))
    return read


def first_values(lines: Sequence[SshdLine]) -> dict[str, SshdLine]:
    """Give the line that decides each keyword for everybody: the first one outside Match blocks."""
    first: dict[str, SshdLine] = {}
    for line in lines:
        if not line.is_conditional:
            first.setdefault(line.keyword, line)
    return first


def value_of(keyword: str, first: Mapping[str, SshdLine], effective: Mapping[str, str]) -> str:
    """Give what sshd itself says, else what the files say, else its default."""
    if keyword in effective:
        return effective[keyword]
    return first[keyword].value if keyword in first else DEFAULTS[keyword]


def judge_sshd(lines: Sequence[SshdLine], effective: Mapping[str, str], *, has_drop_in: bool) -> list[Check]:
    """Judge the settings; `effective` is what `sshd -T` said, empty where it could not be run."""
    first = first_values(lines)
    checks = [
        _judge_switch("usepam", "yes", first, effective),
        _judge_switch("kbdinteractiveauthentication", "yes", first, effective),
        _judge_passwords(first, effective),
        _judge_methods(value_of("authenticationmethods", first, effective)),
        _judge_grace(value_of("logingracetime", first, effective)),
    ]
    if has_drop_in and not any(f"{DROP_IN}:" in line.origin for line in lines):
        fix = "put `Include /etc/ssh/sshd_config.d/*.conf` at the top of sshd_config"
        checks.append(bad("sshd drop-in", f"{DROP_IN} is there and is not read", fix))
    checks += _judge_conditions(lines)
    checks += _judge_agreement(first, effective)
    return checks


def _where(keyword: str, first: Mapping[str, SshdLine]) -> str:
    return f"first in {first[keyword].origin}" if keyword in first else "by default"


def _judge_switch(keyword: str, right: str, first: Mapping[str, SshdLine], effective: Mapping[str, str]) -> Check:
    name, value = _SPELLED[keyword], value_of(keyword, first, effective)
    what, found = f"sshd {name}", f"{value} ({_where(keyword, first)})"
    if value.lower() == right:
        return good(what, found)
    fix = f"the first value wins: say `{name} {right}` in /etc/ssh/{DROP_IN}, or earlier where that is set before it"
    return bad(what, f"{found}: no token can be asked for", fix)


def _judge_passwords(first: Mapping[str, SshdLine], effective: Mapping[str, str]) -> Check:
    keyword = "passwordauthentication"
    value = value_of(keyword, first, effective)
    what, found = f"sshd {_SPELLED[keyword]}", f"{value} ({_where(keyword, first)})"
    if value.lower() == "no":
        return good(what, found)
    fix = f"this method cuts tokens at 1024 bytes and brings nothing here: say `no` in /etc/ssh/{DROP_IN}"
    return warning(what, found, fix)


def _judge_methods(value: str) -> Check:
    what = "sshd AuthenticationMethods"
    ways = value.lower().split()
    if ways in ([], ["any"]) or any("keyboard-interactive" in way for way in ways):
        return good(what, value or "any")
    return bad(what, f"{value}: no token can be asked for", "add keyboard-interactive:pam to it")


def _judge_grace(value: str) -> Check:
    what = "sshd LoginGraceTime"
    seconds = sum(int(number) * _UNIT_S[unit] for number, unit in _TIME.findall(value.lower()))
    if 0 < seconds < GRACE_LEAST_S:
        return warning(what, f"{seconds} s", "people who paste a token need longer: 120 is sshd's own default")
    return good(what, f"{seconds} s" if seconds else "no limit")


def _judge_conditions(lines: Sequence[SshdLine]) -> list[Check]:
    found = [line for line in lines if line.is_conditional and line.keyword in _WATCHED - {"logingracetime"}]
    fix = "what it says for some logins is not judged here: sshd -T -C user=NAME,host=HOST,addr=ADDRESS shows it"
    return [warning("sshd Match", f"{line.origin} sets {line.keyword} {line.value}", fix) for line in found]


def _judge_agreement(first: Mapping[str, SshdLine], effective: Mapping[str, str]) -> list[Check]:
    """Tell where sshd says something else than its files do, as far as we read them right."""
    checks = []
    for keyword in ("usepam", "kbdinteractiveauthentication", "passwordauthentication"):
        said = effective.get(keyword)
        read = value_of(keyword, first, {})
        if said is not None and said.lower() != read.lower():
            found = f"sshd -T says {keyword} {said}, the files read {read} ({_where(keyword, first)})"
            checks.append(
                warning("sshd files", found, "an option on sshd's command line, or a file that doctor did not see")
            )
    return checks
