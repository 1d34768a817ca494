"""A login through the real PAM stack, by python-pam: a PAM application, as sshd is one.

Its conversation gives one text to every prompt. That is the whole token, and the PAM module counts answers that are
all equal once, so a token of any length gets through.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iam_bridge.errors import BridgeError, Exit, InvalidValue

_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PROMPT_END = ": "

# Linux-PAM, <security/_pam_types.h>
SUCCESS = 0
_NAMES = {
    0: "success", 3: "service error", 4: "system error", 6: "permission denied", 7: "authentication failure",
    8: "insufficient credentials", 9: "authentication information unavailable", 10: "user unknown",
    11: "maximum number of tries", 12: "new password required", 13: "account expired", 14: "session error",
    19: "conversation error", 26: "abort", 28: "module unknown",
}  # fmt: skip
_REFUSALS = frozenset({6, 7, 8, 10, 11, 12, 13})
_AUTHINFO_UNAVAIL = 9


@dataclass(frozen=True, slots=True)
class Trial:
    """What the stack answered: a word per phase that was reached, the prompts, the messages, and how to end."""

    permitted: bool
    said: str
    phases: dict[str, str]
    prompts: tuple[str, ...]
    messages: tuple[str, ...]
    exit_status: Exit


def run_trial(user: str, token: bytes, service: str, confdir: Path | None) -> Trial:
    """Drive the stack of `service`, auth and account; raise InvalidValue or BridgeError where it cannot start."""
    if b"\0" in token:
        raise InvalidValue("the token holds a NUL byte, which no answer to PAM can hold")
    if not _SERVICE.match(service):
        raise InvalidValue(f"{service!r} is no name of a PAM service", hint="it is a file in /etc/pam.d, such as sshd")
    if not _has_stack(service, confdir):
        raise InvalidValue(f"there is no PAM service {service!r}", hint=f"looked into {confdir or '/etc/pam.d'}")
    import pam

    application = pam.PamAuthenticator()
    results: dict[str, int] = {}
    _record(application, "pam_authenticate", "auth", results)
    _record(application, "pam_acct_mgmt", "account", results)
    if confdir is not None:
        application.pam_start = _starter_in(confdir)
    # Latin-1 takes every byte a module may say; bytes go in as they are. No setcred: it could change this process.
    application.authenticate(os.fsencode(user), token, service.encode(), encoding="latin-1", resetcreds=False)
    if not results:
        raise BridgeError(f"PAM did not start the service {service}: {application.reason}")
    return _trial_of(application.code, results, [_whole(text) for text in application.messages])


def _trial_of(code: int, results: dict[str, int], texts: list[str]) -> Trial:
    if code == SUCCESS:
        status = Exit.OK
    elif code == _AUTHINFO_UNAVAIL:
        status = Exit.UNAVAILABLE
    else:
        status = Exit.REFUSED if code in _REFUSALS else Exit.FAILED
    phase = list(results)[-1]
    return Trial(
        permitted=code == SUCCESS,
        said=f"{_word(code)} (in the phase {phase})",
        phases={phase: _word(result) for phase, result in results.items()},
        prompts=tuple(text for text in texts if text.endswith(_PROMPT_END)),
        messages=tuple(text for text in texts if not text.endswith(_PROMPT_END)),
        exit_status=status,
    )


def _word(code: int) -> str:
    return _NAMES.get(code, f"PAM error {code}")


def _whole(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _has_stack(service: str, confdir: Path | None) -> bool:
    folders = (confdir,) if confdir is not None else (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))
    return any((folder / service).is_file() for folder in folders)


def _record(application: Any, function: str, phase: str, results: dict[str, int]) -> None:
    """Keep the result of a phase; python-pam tells only the last one."""
    inner: Callable[..., int] = getattr(application, function)

    def recorded(handle: Any, flags: int) -> int:
        results[phase] = inner(handle, flags)
        return results[phase]

    setattr(application, function, recorded)


def _starter_in(confdir: Path) -> Callable[..., int]:
    """Give a pam_start that reads service files from a folder (pam_start_confdir(3), Linux-PAM 1.4 and newer)."""
    library = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0")
    if not hasattr(library, "pam_start_confdir"):
        raise BridgeError("this host's libpam has no pam_start_confdir", hint="leave --confdir out")
    folder = os.fsencode(confdir.absolute())

    def start(service: bytes, user: bytes, conversation: Any, handle: Any) -> int:
        return int(library.pam_start_confdir(service, user, conversation, folder, handle))

    return start
