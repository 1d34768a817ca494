"""A PAM stack as libpam reads it (pam.conf(5)), and whether our module in it can do its work.

What counts is what a control word makes of each result: a stack that asks our module and then forgets its "no" has let
banned people in at other sites.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iam_bridge.model.account import IdRange
from iam_bridge.policy.doctor import Check, Mark, bad, good, warning

MODULE = "pam_iam.so"
DEFAULT_SOCKET = "/run/iam-bridge/login.sock"
DEFAULT_DAEMON = "iam-bridge-login"
PHASES = ("auth", "account", "session")
_DENIALS = {
    "auth": ("maxtries", "authinfo_unavail", "service_err", "user_unknown"),
    "account": ("perm_denied", "acct_expired", "authinfo_unavail", "service_err"),
    "session": ("session_err", "service_err"),
}
"""What our module answers when it means no (pam_module/verdicts.tsv); a session outlives a daemon that went down."""
_SHIPPED = {
    "auth": "[success=done ignore=ignore default=die]",
    "account": "[success=ok ignore=ignore default=die]",
    "session": "[success=ok ignore=ignore authinfo_unavail=ignore default=die]",
}
_WORDS: dict[str, dict[str, str]] = {  # pam.conf(5): what the simple words stand for
    "required": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
    "requisite": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
    "sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
    "optional": {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}
_FIELD = re.compile(r"\[(?:\\\]|[^\]])*\]|\S+")
_GOOD_RESULTS = ("success", "new_authtok_reqd")


@dataclass(frozen=True, slots=True)
class PamLine:
    """One rule of a stack; `origin` is FILE:LINE, `is_inner` tells that it stands in a substack."""

    phase: str
    control: str
    module: str
    options: tuple[str, ...]
    origin: str
    is_inner: bool = False

    @property
    def name(self) -> str:
        """Give the module without its folder."""
        return self.module.rpartition("/")[2]

    def action_of(self, result: str) -> str:
        """Give what becomes of a result: ok, done, bad, die, ignore, reset or a number of lines to jump."""
        actions = _WORDS.get(self.control.lower())
        if actions is None:
            actions = dict(pair.split("=", 1) for pair in self.control.strip("[]").split() if "=" in pair)
        return actions.get(result, actions.get("default", "bad"))


@dataclass(frozen=True, slots=True)
class PamInclude:
    """A line that takes in another service file: `phase` is empty for @include, which takes every phase."""

    phase: str
    service: str
    is_substack: bool


def parse_pam(text: str, file: str, *, is_inner: bool = False) -> list[PamLine | PamInclude]:
    """Read a service file; what libpam would not understand is left out, as it leaves it out with a log line."""
    read: list[PamLine | PamInclude] = []
    for number, line in _joined(text):
        fields = _FIELD.findall(line)
        if len(fields) == 2 and fields[0] == "@include":
            read.append(PamInclude("", fields[1], is_substack=False))
        elif len(fields) >= 3:
            phase, control, module = fields[0].lstrip("-").lower(), fields[1], fields[2]
            if control in ("include", "substack"):
                read.append(PamInclude(phase, module, control == "substack"))
            else:
                read.append(PamLine(phase, control, module, tuple(fields[3:]), f"{file}:{number}", is_inner))
    return read


def _joined(text: str) -> Iterable[tuple[int, str]]:
    """Give lines with their numbers, comments gone and lines that end in a backslash joined."""
    start, kept = 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].rstrip()
        start = start or number
        if line.endswith("\\"):
            kept += line[:-1] + " "
            continue
        yield start, kept + line
        start, kept = 0, ""


@dataclass(frozen=True, slots=True)
class ModuleOptions:
    """What our module's options say, read as the module itself reads them; `problems` are those it would not take."""

    socket: str
    daemon: str
    uids: tuple[IdRange, ...]
    breakglass: str
    problems: tuple[str, ...]


_VALUES = {
    "socket": re.compile(r"/.{0,106}\Z", re.DOTALL),
    "daemon": re.compile(r".+\Z", re.DOTALL),
    "timeout": re.compile(r"0*(?:[1-9]|[1-5][0-9]|60)\Z"),
    "breakglass": re.compile(r"[^:,\n]+\Z"),
    "uids": re.compile(r"[0-9]{1,10}-[0-9]{1,10}(?:,[0-9]{1,10}-[0-9]{1,10}){0,15}\Z"),
}


def parse_options(options: Sequence[str]) -> ModuleOptions:
    """Read the options of pam_iam.so."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if option == "debug":
            continue
        fits = bool(equals) and name in _VALUES and _VALUES[name].match(value) is not None
        if not fits or (name == "uids" and ("uids" in values or _ranges(value) is None)):
            problems.append(option)
        else:
            values[name] = value
    return ModuleOptions(
        socket=values.get("socket", DEFAULT_SOCKET),
        daemon=values.get("daemon", DEFAULT_DAEMON),
        uids=_ranges(values["uids"]) or () if "uids" in values else (),
        breakglass=values.get("breakglass", ""),
        problems=tuple(problems),
    )


def _ranges(text: str) -> tuple[IdRange, ...] | None:
    """Read ranges as the module does: 0 is never ours, and a range is not upside down."""
    pairs = [tuple(map(int, pair.split("-"))) for pair in text.split(",")]
    if any(low == 0 or low > high or high >= 2**32 - 1 for low, high in pairs):
        return None
    return tuple(IdRange(low, high) for low, high in pairs)


@dataclass(frozen=True, slots=True)
class Wants:
    """What the settings and the view ask of the module's options."""

    socket: str
    daemon: str
    daemon_uid: int | None
    uids: IdRange
    adopted: tuple[int, ...] = ()


def judge_stack(service: str, lines: Sequence[PamLine], wants: Wants) -> list[Check]:
    """Judge the stack of a service, its includes resolved into `lines`."""
    checks = [_judge_phase(service, phase, [line for line in lines if line.phase == phase]) for phase in PHASES]
    checks += _judge_order(service, lines)
    ours = [line for line in lines if line.name == MODULE]
    if ours:
        checks += [_judge_deny(service, [line for line in lines if line.phase == "auth"]), _judge_options(ours, wants)]
    return checks


def _first_of_ours(lines: Sequence[PamLine]) -> int | None:
    return next((place for place, line in enumerate(lines) if line.name == MODULE), None)


def _judge_phase(service: str, phase: str, lines: Sequence[PamLine]) -> Check:
    what = f"PAM {service} {phase}"
    place = _first_of_ours(lines)
    if place is None:
        why = "by key a banned person comes in" if phase != "auth" else "no token is asked for"
        return bad(what, f"no line with {MODULE}: {why}", "install config/pam.d/sshd-iam-bridge")
    line = lines[place]
    fix = f"write its control as {_SHIPPED[phase]}"
    lost = [word for word in _DENIALS[phase] if line.action_of(word) not in ("die", "bad")]
    if lost:
        return bad(what, f"{line.origin}: {line.control} discards a denial ({', '.join(lost)})", fix)
    if line.action_of("ignore") != "ignore":
        return bad(what, f"{line.origin}: {line.control} refuses foreign accounts, root's too", fix)
    if line.action_of("success") in ("ignore", "reset", "bad", "die"):
        return bad(what, f"{line.origin}: {line.control} makes nothing of a permit", fix)
    if phase == "auth" and line.action_of("success") == "ok":
        return warning(what, f"{line.origin}: {line.control} asks other modules after a permit", fix)
    return good(what, f"{line.origin} {line.control}")


def _judge_order(service: str, lines: Sequence[PamLine]) -> list[Check]:
    """Judge what stands before our line: a success there that ends the phase, or jumps, leaves us out."""
    checks = []
    for phase in PHASES:
        listed = [line for line in lines if line.phase == phase]
        place = _first_of_ours(listed)
        if place is None:
            continue
        early = [line for at, line in enumerate(listed[:place]) if _leaves_out(line, at, place)]
        if early:
            verdict = Mark.WARN if phase == "auth" else Mark.BAD
            found = f"{early[0].origin}: {early[0].name} may end it before {MODULE} is asked"
            checks.append(Check(f"PAM {service} {phase}", found, verdict, f"move the line of {MODULE} before it"))
    return checks


def _leaves_out(line: PamLine, at: int, ours: int) -> bool:
    for result in _GOOD_RESULTS:
        action = line.action_of(result)
        if (action == "done" and not line.is_inner) or (action.isdecimal() and at + int(action) >= ours):
            return True
    return False


def _judge_deny(service: str, auth: Sequence[PamLine]) -> Check:
    """Judge what follows our auth line: keyboard-interactive opens password login for local accounts by PAM."""
    what = f"PAM {service} passwords"
    place = _first_of_ours(auth)
    behind = auth[place + 1] if place is not None and place + 1 < len(auth) else None
    if behind is None:
        return good(what, "closed: nothing stands behind our auth line")
    if behind.name == "pam_deny.so" and behind.action_of("auth_err") in ("die", "bad"):
        return good(what, f"closed by {behind.origin}")
    fix = f"put `auth [cred_err=ignore default=die] pam_deny.so` behind the auth line of {MODULE}, unless that is meant"
    return warning(what, "local accounts can log in by password, whatever PasswordAuthentication says", fix)


def _judge_options(ours: Sequence[PamLine], wants: Wants) -> Check:
    what = f"options of {MODULE}"
    read = [parse_options(line.options) for line in ours]
    for line, options in zip(ours, read, strict=True):
        problem = _problem_of(options, wants)
        if problem:
            found, fix = problem
            return bad(what, f"{line.origin}: {found}", fix)
    if len({(options.socket, options.daemon, options.uids) for options in read}) > 1:
        return warning(what, "not the same in every line", "give every line the same socket=, daemon= and uids=")
    ranges = ", ".join(f"{span.low}-{span.high}" for span in read[0].uids)
    return good(what, f"uids={ranges}")


def _problem_of(options: ModuleOptions, wants: Wants) -> tuple[str, str] | None:
    if options.problems:
        return (
            f"{options.problems[0]} is not understood, so every request is refused",
            "see docs/reference/pam_iam.md",
        )
    if options.socket != wants.socket:
        return (f"socket={options.socket}", f"write socket={wants.socket}, as login.socket says")
    if options.daemon not in (wants.daemon, str(wants.daemon_uid)):
        return (f"daemon={options.daemon}", f"write daemon={wants.daemon}, as login.user says")
    covered = any(span.low <= wants.uids.low and wants.uids.high <= span.high for span in options.uids)
    if not covered:
        return ("uids= leaves out numbers of accounts.ids.uid", f"write uids={wants.uids.low}-{wants.uids.high}")
    left_out = [uid for uid in wants.adopted if not any(uid in span for span in options.uids)]
    if left_out:
        return (f"uids= leaves out adopted uid {left_out[0]}", f"add ,{left_out[0]}-{left_out[0]}")
    return None


def breakglass_of(lines: Sequence[PamLine]) -> str:
    """Give the break-glass group that our account line names, empty where none is."""
    ours = [line for line in lines if line.name == MODULE and line.phase == "account"]
    return parse_options(ours[0].options).breakglass if ours else ""
