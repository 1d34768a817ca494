"""The PAM stack of sshd, its includes resolved as libpam does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from iam_bridge.cli.doctor.host import Host, look_at
from iam_bridge.model.rules import Settings
from iam_bridge.policy.doctor import Check, Mark, Wanted, bad, judge_path
from iam_bridge.policy.doctor_host import judge_breakglass
from iam_bridge.policy.doctor_pam import (
    MODULE,
    PamInclude,
    PamLine,
    Wants,
    breakglass_of,
    judge_stack,
    parse_pam,
)

FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d")
MODULE_FOLDERS = ("/lib/security", "/lib64/security", "/usr/lib/security", "/usr/lib64/security")
DEPTH_MAX = 32  # libpam's own (PAM_SUBSTACK_MAX_LEVEL)


def check_stack(host: Host, settings: Settings, service: str, adopted: Iterable[int]) -> list[Check]:
    """Look at the stack of a service, at the module's file and at the break-glass group."""
    lines = read_stack(host, service)
    if lines is None:
        return [
            bad(f"PAM {service}", f"/etc/pam.d/{service} does not exist", "install config/pam.d/sshd-iam-bridge there")
        ]
    login = settings.login
    daemon_uid = host.uid_of(login.user)
    wants = Wants(str(login.socket), login.user, daemon_uid, settings.accounts.uids, tuple(adopted))
    checks = judge_stack(service, lines, wants)
    modules = dict.fromkeys(line.module for line in lines if line.name == MODULE)
    checks += [_check_module(host, module) for module in modules]
    if modules:
        group = breakglass_of(lines)
        checks.append(judge_breakglass(group, host.listed_members(group) if group else None))
    return checks


def read_stack(host: Host, service: str) -> list[PamLine] | None:
    """Read a service file and what it includes, in order; None where there is none. Raises Unreadable."""
    if not any(host.path(f"{folder}/{service}").exists() for folder in FOLDERS):
        return None
    return _resolve(host, service, phase="", is_inner=False, depth=0)


def _resolve(host: Host, service: str, *, phase: str, is_inner: bool, depth: int) -> list[PamLine]:
    """Read the lines of a phase, every phase where that is empty; what goes in circles ends at libpam's own depth."""
    texts = ((f"{folder}/{service}", host.read(f"{folder}/{service}")) for folder in FOLDERS)
    file, text = next(((file, text) for file, text in texts if text is not None), ("", ""))
    lines: list[PamLine] = []
    for entry in parse_pam(text, file, is_inner=is_inner):
        if phase and entry.phase not in ("", phase):
            continue
        if isinstance(entry, PamLine):
            lines.append(entry)
        elif depth < DEPTH_MAX:
            lines += _included(host, entry, phase, is_inner=is_inner, depth=depth)
    return lines


def _included(host: Host, entry: PamInclude, phase: str, *, is_inner: bool, depth: int) -> list[PamLine]:
    inner = is_inner or entry.is_substack
    return _resolve(host, entry.service, phase=entry.phase or phase, is_inner=inner, depth=depth + 1)


def _check_module(host: Host, module: str) -> Check:
    what = f"the module {MODULE}"
    if module.startswith("/"):
        candidates = [host.path(module)]
    else:
        multiarch = sorted(host.path("/usr/lib").glob("*-linux-gnu*/security"))
        candidates = [folder / module for folder in (*multiarch, *map(host.path, MODULE_FOLDERS))]
    path = next((path for path in candidates if path.exists()), Path(module))
    wanted = Wanted(
        is_folder=False,
        owners=frozenset({0}),
        forbidden=0o022,
        why="who may write it is root at the next login",
        missing=Mark.BAD,
        make="make -C pam_module, then install pam_module/build/pam_iam.so there",
    )
    return judge_path(what, str(path), look_at(path), wanted)
