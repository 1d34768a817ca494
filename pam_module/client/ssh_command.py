"""The command line of ssh: what is asked for, what ssh makes of it, and what we put in front.

ssh takes the first value of an option, so that what stands first cannot be taken back by a later option or a file
(ssh_config(5)). What the configuration says is asked of ssh itself, by `ssh -G`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iam_bridge.errors import BridgeError, InvalidValue

ANSWER_TIMEOUT_S = 20.0
_WITH_VALUE = frozenset("BDEFIJLOPQRSWbceilmopw")  # ssh(1), SYNOPSIS
_NO_LOGIN = frozenset("GOQV")  # options that print or command something and open no connection of their own
_VERSION = re.compile(r"OpenSSH_(?:for_Windows_)?([0-9]+)\.([0-9]+)")

FIRST = (
    "-oStrictHostKeyChecking=yes",
    "-oNoHostAuthenticationForLocalhost=no",  # another user may listen on localhost
    "-oBatchMode=no",
    "-oKbdInteractiveAuthentication=yes",
    "-oNumberOfPasswordPrompts=1",  # the same token would only be refused again
)
PREFERRED = "-oPreferredAuthentications=keyboard-interactive,publickey"


@dataclass(frozen=True, slots=True)
class SshCall:
    """What was written on the command line.

    `options` stand before the destination; `rest` is the destination, further options and the command; `set_by_hand`
    has the first value of each `-o`, by its name in small letters.
    """

    options: tuple[str, ...]
    rest: tuple[str, ...]
    destination: str
    command: tuple[str, ...]
    set_by_hand: Mapping[str, str]
    opens_login: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where ssh would go. `shown` is the host as it stands in front of prompts."""

    shown: str
    hostname: str
    port: int
    user: str
    key_checking: str
    skips_localhost: bool
    by_way: bool
    known_hosts: tuple[str, ...]
    asks_command: bool


def _note_option(words: dict[str, str], text: str) -> None:
    name, _, value = re.sub(r"[\s=]+", "=", text.strip(), count=1).partition("=")
    words.setdefault(name.lower(), value.strip(' "').lower())


def _cluster(word: str) -> tuple[str, str | None]:
    """Split `-4vp2222`: the letters, and the value behind the last one where it takes one and has it in this word."""
    for at, letter in enumerate(word[1:], start=1):
        if letter in _WITH_VALUE:
            return word[1 : at + 1], word[at + 1 :] or None
    return word[1:], None


def _read_options(arguments: Sequence[str], at: int, words: dict[str, str], letters_seen: set[str]) -> int:
    """Read options from there on; give the place of the first word that is none."""
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] not in ("-", "--"):
        letters, value = _cluster(arguments[at])
        at += 1
        if letters and letters[-1] in _WITH_VALUE and value is None:
            value = "".join(arguments[at : at + 1])
            at += 1
        letters_seen.update(letters)
        if letters.endswith("o"):
            _note_option(words, value or "")
    return min(at, len(arguments))


def parse_ssh_arguments(arguments: list[str]) -> SshCall:
    """Read a command line of ssh as ssh does: options, a destination, perhaps more options, a command."""
    words: dict[str, str] = {}
    seen: set[str] = set()
    split = _read_options(arguments, 0, words, seen)
    ended = arguments[split : split + 1] == ["--"]  # no option stands behind it
    place = split + ended
    command = place + 1 if ended else _read_options(arguments, place + 1, words, seen)
    if not ended and arguments[command : command + 1] == ["--"]:
        command += 1
    return SshCall(
        options=tuple(arguments[:split]),
        rest=tuple(arguments[split:]),
        destination="".join(arguments[place : place + 1]),
        command=tuple(arguments[command:]),
        set_by_hand=words,
        opens_login=not _NO_LOGIN & seen,
    )


def check_host_key_options(words: Mapping[str, str]) -> None:
    """Refuse options that would hand the token to a host whose key nobody knows; raises InvalidValue."""
    value = words.get("stricthostkeychecking", "yes")
    if value not in ("yes", "true", "ask"):
        raise InvalidValue(
            f"StrictHostKeyChecking={value} would give your token to whoever answers",
            hint="leave it out; iam-ssh connects to hosts whose key is known",
        )


def read_version(ssh: str = "ssh") -> tuple[int, int]:
    """Give the version of OpenSSH's client; one that cannot be read counts as new."""
    try:
        done = subprocess.run(
            [ssh, "-V"], capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BridgeError(f"{ssh} cannot be run: {error}", hint="install the OpenSSH client") from error
    match = _VERSION.search(done.stderr.decode("utf-8", "replace"))
    return (int(match[1]), int(match[2])) if match else (99, 0)


def parse_target(text: str) -> Target:
    """Read what `ssh -G` printed; raise BridgeError where it names no host."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key.lower(), value)
    hostname, port = values.get("hostname", ""), values.get("port", "22")
    if not hostname or not port.isdecimal():
        raise BridgeError("ssh does not say which host it would go to", hint="look at: ssh -G HOST")

    def is_set(key: str) -> bool:
        return values.get(key, "none") != "none"

    files = f"{values.get('userknownhostsfile', '')} {values.get('globalknownhostsfile', '')}".split()
    return Target(
        shown=(values["hostkeyalias"] if is_set("hostkeyalias") else hostname).lower(),
        hostname=hostname,
        port=int(port),
        user=values.get("user", ""),
        key_checking=values.get("stricthostkeychecking", ""),
        skips_localhost=values.get("nohostauthenticationforlocalhost") == "yes",
        by_way=is_set("proxyjump") or is_set("proxycommand"),
        known_hosts=tuple(name for name in files if name != "none"),
        asks_command=is_set("knownhostscommand"),
    )


def read_target(arguments: Sequence[str], ssh: str = "ssh") -> Target:
    """Ask ssh what it would do with these arguments; raise BridgeError with its own words where it cannot say."""
    try:
        done = subprocess.run(
            [ssh, "-oLogLevel=ERROR", "-G", *arguments],
            capture_output=True,
            check=False,
            timeout=ANSWER_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BridgeError(f"{ssh} cannot be run: {error}", hint="install the OpenSSH client") from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise InvalidValue(f"ssh cannot use these arguments: {words or 'it gives no reason'}")
    return parse_target(done.stdout.decode("utf-8", "replace"))


def is_key_known(target: Target, ssh_keygen: str = "ssh-keygen") -> bool:
    """Tell whether any known_hosts file holds a key for the host; True also where that cannot be told."""
    if target.asks_command:
        return True
    if target.shown != target.hostname.lower() or target.port == 22:
        name = target.shown
    else:
        name = f"[{target.shown}]:{target.port}"
    for path in target.known_hosts:
        try:
            done = subprocess.run(
                [ssh_keygen, "-F", name, "-f", path],
                capture_output=True,
                check=False,
                timeout=ANSWER_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            return True
        if done.returncode == 0:
            return True
    return False
