r"""What the login daemon writes down: one log line per verdict, and receipts.

A log line is `key=value` pairs with one space between. A value holds no space, quote, `=` or control character: what is
none of a few harmless characters is written \xNN or \u{NNNN}. So no user name and no remote host, however chosen,
can forge a field or a line that fail2ban would believe. No secret is ever given to this module.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.ledger.times import stamp
from iam_bridge.model.token import VerifiedToken
from iam_bridge.model.verdict import Deny, Permit
from pam_module.handles import Opened
from pam_module.wire import Phase, Request

Record = dict[str, str | int | float | bool | None]

VALUE_MAX = 200
"""Characters of one value that a log line shows."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:/@+,\[\]{}()%~^*-]")
SELDOM_S = 1.0


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{{{code:x}}}"


def log_value(value: object) -> str:
    """Write a value so that it can neither end its field nor look like another one; nothing at all is `-`."""
    if type(value) is int:
        return str(value)
    text = str(value)
    if not text:
        return "-"
    if text == "-":
        return "\\x2d"
    safe = _UNSAFE.sub(_escape, text[:VALUE_MAX])
    return safe[:VALUE_MAX] + "..." if len(text) > VALUE_MAX or len(safe) > VALUE_MAX else safe


def log_line(fields: dict[str, object]) -> bytes:
    """Write one line; keys are ours."""
    return (" ".join([f"{key}={log_value(value)}" for key, value in fields.items()]) + "\n").encode("ascii")


def hash_jti(jti: str) -> str:
    """Name a token's `jti` without showing it: whoever has the IAM's own log can still match the two."""
    return hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()[:16] if jti else ""


class LogLines:
    """Write log lines; what a peer could provoke without end is written `seldom`, with the count of what was not."""

    def __init__(self, write: Callable[[bytes], object], ticks: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._ticks = ticks
        self._quiet_until: dict[str, float] = {}
        self._skipped: dict[str, int] = {}
        self._lost = 0

    def write(self, **fields: object) -> None:
        """Write one line. A log that cannot be written is no reason to answer nobody: receipts are what binds."""
        if self._lost:
            fields["lost_lines"] = self._lost
        try:
            self._write(log_line(fields))
            self._lost = 0
        except OSError:
            self._lost += 1

    def seldom(self, kind: str, **fields: object) -> None:
        """Write one line of its kind a second at most, and with the next one how many were left out."""
        now = self._ticks()
        if now < self._quiet_until.get(kind, now):
            self._skipped[kind] = self._skipped.get(kind, 0) + 1
            return
        self._quiet_until[kind] = now + SELDOM_S
        skipped = self._skipped.pop(kind, 0)
        self.write(**fields, **({"skipped": skipped} if skipped else {}))


@dataclass(slots=True)
class Note:
    """What becomes known while one request is answered, and may be written down."""

    request: Request
    began: float
    host_uid: int | None = None
    maybe_foreign: bool = False
    fingerprint: str = ""
    subject: str = ""
    issuer: str = ""
    jti_hash: str = ""
    remark: str = ""

    def see_token(self, token: VerifiedToken) -> None:
        """Note whose token it is, now that it is verified."""
        self.subject, self.issuer = token.subject.sub, token.subject.issuer.url
        self.jti_hash = hash_jti(token.jti)

    def see_opened(self, opened: Opened | None) -> None:
        """Note which token opened this session; none did where the person came by key or certificate."""
        if opened is None:
            self.remark = "no-token"
        else:
            self.fingerprint, self.subject = opened.fingerprint, opened.subject
            self.issuer, self.jti_hash = opened.issuer, opened.jti_hash

    def opened(self) -> Opened:
        """Give what the session phase may know of the token."""
        return Opened(self.request.user, self.fingerprint, self.subject, self.issuer, self.jti_hash)

    def line(self, verdict: Permit | Deny, ticks: float) -> dict[str, object]:
        """Make the fields of the log line; the verdict and the remote host come first, where a pattern finds them."""
        request, words = self.request, _words(verdict)
        fields: dict[str, object] = {"event": "login", "phase": PHASE_WORDS[request.phase]}
        fields |= {"verdict": words.pop("verdict"), "reason": words.pop("reason", "")}
        fields |= {"rhost": request.rhost, "user": request.user, "uid": _uid(verdict, self.host_uid)}
        fields |= {"service": request.service, "tty": request.tty, "pid": request.pid, "fp": self.fingerprint}
        fields |= {"sub": self.subject, "issuer": self.issuer, **words, "remark": self.remark}
        fields["took_us"] = self._took_us(ticks)
        return {key: value for key, value in fields.items() if value not in ("", None) or key == "rhost"}

    def receipt(self, verdict: Permit | Deny, now: datetime, ticks: float) -> Record:
        """Make the receipt: who, by which token, from where, what was decided and by which rule."""
        request = self.request
        return {
            "at": stamp(now),
            "kind": "login",
            "phase": PHASE_WORDS[request.phase],
            **_words(verdict),
            "user": _cut(request.user),
            "uid": _uid(verdict, self.host_uid),
            "sub": self.subject,
            "issuer": self.issuer,
            "fp": self.fingerprint,
            "jti": self.jti_hash,
            "rhost": _cut(request.rhost),
            "tty": _cut(request.tty),
            "service": _cut(request.service),
            "pid": request.pid,
            "remark": self.remark,
            "took_us": self._took_us(ticks),
        }

    def _took_us(self, ticks: float) -> int:
        return int((ticks - self.began) * 1_000_000)


PHASE_WORDS = {phase: phase.name.lower() for phase in Phase}


def _words(verdict: Permit | Deny) -> dict[str, str]:
    if isinstance(verdict, Permit):
        words = {"verdict": "permit", "rule": verdict.rule}
        if verdict.remarks:
            words["remarks"] = ",".join(remark.value for remark in verdict.remarks)
        return words
    return {"verdict": "deny", "reason": verdict.reason.value, "detail": verdict.detail}


def _uid(verdict: Permit | Deny, host_uid: int | None) -> int | None:
    return verdict.uid if isinstance(verdict, Permit) else host_uid


def _cut(text: str) -> str:
    """Keep what a name can sensibly have; a frame may bring 64 KB of it."""
    return text if len(text) <= VALUE_MAX else text[:VALUE_MAX] + "..."
