"""A PAM application for tests: the real libpam by ctypes, a stack from a scratch folder, a scripted conversation.

`python -m tests.pam.libpam` reads a scenario as JSON from stdin and prints what happened, for tests that need a
process of their own (LD_PRELOAD of nss_wrapper or of the syslog capture).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self


class Pam(IntEnum):
    """The return values that occur here; test_verdicts.py holds them against <security/_pam_types.h>."""

    SUCCESS = 0
    SERVICE_ERR = 3
    SYSTEM_ERR = 4
    PERM_DENIED = 6
    AUTH_ERR = 7
    AUTHINFO_UNAVAIL = 9
    USER_UNKNOWN = 10
    MAXTRIES = 11
    ACCT_EXPIRED = 13
    SESSION_ERR = 14
    CRED_ERR = 17
    CONV_ERR = 19
    IGNORE = 25


class Style(IntEnum):
    """What a message asks for (pam_conv(3))."""

    PROMPT_ECHO_OFF = 1
    PROMPT_ECHO_ON = 2
    ERROR_MSG = 3
    TEXT_INFO = 4


SERVICE, USER, TTY, RHOST = 1, 2, 3, 4
SILENT = 0x8000
ESTABLISH_CRED = 0x0002

Answer = Callable[[str, int], bytes | None]
"""(prompt, its number from 1) → what the person types; None fails the conversation."""


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Converse = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class _Conv(ctypes.Structure):
    _fields_ = (("converse", _Converse), ("data", ctypes.c_void_p))


_pam = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0")
_libc = ctypes.CDLL(None)
_libc.calloc.restype = ctypes.c_void_p
_libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
_libc.strdup.restype = ctypes.c_void_p
_libc.free.argtypes = (ctypes.c_void_p,)
_pam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_void_p)


@dataclass
class Conversation:
    """Answer prompts and keep what was shown."""

    answer: Answer
    prompts: list[str] = field(default_factory=list)
    messages: list[tuple[Style, str]] = field(default_factory=list)
    failure: BaseException | None = None

    def converse(self, style: Style, text: str) -> bytes | None:
        if style in {Style.ERROR_MSG, Style.TEXT_INFO}:
            self.messages.append((style, text))
            return b""
        self.prompts.append(text)
        assert style is Style.PROMPT_ECHO_OFF, "a token must not be echoed"
        return self.answer(text, len(self.prompts))


def script(answers: Iterable[bytes]) -> Answer:
    """Give these answers one after the other, and fail the conversation after the last."""
    rest = iter(answers)
    return lambda _prompt, _number: next(rest, None)


def whole(token: bytes) -> Answer:
    """Answer every prompt with the whole token, as paramiko does, and sshd for the method password."""
    return lambda _prompt, _number: token


def cut(token: bytes) -> Answer:
    """Answer with one piece of 1023 bytes after the other, as a person does who pastes into OpenSSH's client."""
    return lambda _prompt, number: token[(number - 1) * 1023 : number * 1023]


def marked(token: bytes) -> Answer:
    """Answer with 1000 bytes and a mark while more follows, as iam-askpass does."""

    def answer(_prompt: str, number: int) -> bytes:
        part = token[(number - 1) * 1000 : number * 1000]
        return part + b"+" if number * 1000 < len(token) else part

    return answer


class Transaction:
    """One pam_start_confdir … pam_end."""

    def __init__(
        self,
        confdir: Path,
        service: str,
        user: str,
        answer: Answer | None = None,
        *,
        tty: str = "ssh",
        rhost: str = "192.0.2.7",
    ) -> None:
        self.conversation = Conversation(answer or script(()))
        self._conv = _Conv(_Converse(self._converse), None)
        self._handle = ctypes.c_void_p()
        self._status = 0
        started = _pam.pam_start_confdir(
            service.encode(),
            user.encode(),
            ctypes.byref(self._conv),
            str(confdir).encode(),
            ctypes.byref(self._handle),
        )
        assert started == Pam.SUCCESS, f"pam_start_confdir says {started}"
        self.set_item(TTY, tty)
        self.set_item(RHOST, rhost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _pam.pam_end(self._handle, self._status)

    def authenticate(self, flags: int = 0) -> int:
        return self._call(_pam.pam_authenticate, flags)

    def acct_mgmt(self, flags: int = 0) -> int:
        return self._call(_pam.pam_acct_mgmt, flags)

    def setcred(self, flags: int = ESTABLISH_CRED) -> int:
        return self._call(_pam.pam_setcred, flags)

    def open_session(self, flags: int = 0) -> int:
        return self._call(_pam.pam_open_session, flags)

    def close_session(self, flags: int = 0) -> int:
        return self._call(_pam.pam_close_session, flags)

    def set_item(self, item: int, text: str) -> None:
        assert _pam.pam_set_item(self._handle, item, text.encode()) == Pam.SUCCESS

    def item(self, item: int) -> str:
        text = ctypes.c_char_p()
        assert _pam.pam_get_item(self._handle, item, ctypes.byref(text)) == Pam.SUCCESS
        return (text.value or b"").decode()

    def putenv(self, setting: str) -> None:
        assert _pam.pam_putenv(self._handle, setting.encode()) == Pam.SUCCESS

    @property
    def environment(self) -> dict[str, str]:
        """The PAM environment, which sshd hands to the person's shell."""
        listed = _pam.pam_getenvlist(self._handle)
        found: dict[str, str] = {}
        index = 0
        while listed[index]:
            name, _, value = ctypes.string_at(listed[index]).decode().partition("=")
            found[name] = value
            _libc.free(listed[index])
            index += 1
        _libc.free(ctypes.cast(listed, ctypes.c_void_p))
        return found

    @property
    def prompts(self) -> list[str]:
        return self.conversation.prompts

    @property
    def messages(self) -> list[tuple[Style, str]]:
        return self.conversation.messages

    def _call(self, function: Callable[..., int], flags: int) -> int:
        self._status = function(self._handle, flags)
        if self.conversation.failure:
            raise self.conversation.failure
        return self._status

    def _converse(self, count: int, messages: object, responses: object, _data: object) -> int:
        made = _libc.calloc(count, ctypes.sizeof(_Response))
        array = ctypes.cast(made, ctypes.POINTER(_Response))
        try:
            for index in range(count):
                message = messages[index].contents  # type: ignore[index] # a ctypes pointer has no type of its own
                answer = self.conversation.converse(Style(message.style), message.text.decode("ascii"))
                if answer is None:
                    return Pam.CONV_ERR
                array[index].text = _libc.strdup(answer)
        except BaseException as failure:  # noqa: BLE001 nothing may pass through the C frames above; raised in _call
            self.conversation.failure = failure
            return Pam.CONV_ERR
        responses[0] = made  # type: ignore[index] # as above
        return Pam.SUCCESS


def main() -> None:
    """Run the scenario on stdin: confdir, service, user, answers, steps; print results, prompts, messages."""
    scenario = json.load(sys.stdin)
    answer = script(text.encode() for text in scenario["answers"])
    with Transaction(Path(scenario["confdir"]), scenario["service"], scenario["user"], answer) as pam:
        results = [getattr(pam, step)() for step in scenario["steps"]]
        json.dump({"results": results, "prompts": pam.prompts, "messages": pam.messages}, sys.stdout)


if __name__ == "__main__":
    main()
