"""What iam-askpass asks for where iam-ssh did not start ssh: the token for one connection, in a file.

Only for hosts of client.yaml, and only where that process of ssh insists on a known host key: its own command line is
put to `ssh -G`, so that the answer is what that very ssh believes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from iam_bridge.errors import BridgeError, RefusedByGuard
from pam_module.client import ssh_command
from pam_module.client.settings import read_client_settings, settings_path
from pam_module.client.token_file import write_token
from pam_module.client.tokens import Asked, find_token


def read_arguments(pid: int, proc: Path = Path("/proc")) -> tuple[str, ...] | None:
    """Give the arguments of a process of ours; None where the system has no /proc."""
    if not (proc / "self").exists():
        return None
    try:
        name = (proc / str(pid) / "comm").read_bytes()
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError as error:
        raise BridgeError(f"the ssh that asks for a token (process {pid}) cannot be looked at") from error
    if not name.startswith(b"ssh"):
        raise RefusedByGuard("no token is given: it was not ssh that asked", hint="see: man iam-ssh")
    return tuple(os.fsdecode(word) for word in words[1:])


def check_caller(host: str, pid: int) -> None:
    """Refuse a token to an ssh that would believe any host key, or that goes to another host; raises RefusedByGuard."""
    arguments = read_arguments(pid)
    target = ssh_command.read_target((host,) if arguments is None else arguments)
    if target.key_checking not in ("true", "yes", "ask"):
        raise RefusedByGuard(
            f"{host} gets no token: ssh runs with StrictHostKeyChecking={target.key_checking}",
            hint="set it to yes for this host in ~/.ssh/config",
        )
    if target.skips_localhost:  # where a tunnel of the person ends, another user may listen
        raise RefusedByGuard(
            f"{host} gets no token: ssh runs with NoHostAuthenticationForLocalhost=yes",
            hint="set it to no for this host in ~/.ssh/config",
        )
    if arguments is not None and target.shown != host:
        raise RefusedByGuard(f"{host} gets no token: ssh itself goes to {target.shown}")


def fetch_for_askpass(host: str, pid: int, environ: Mapping[str, str]) -> Path:
    """Fetch the token for a host of client.yaml and write it for that process of ssh; give the file's path."""
    uid = os.getuid()
    settings = read_client_settings(settings_path(environ), uid=uid)
    if host not in settings.hosts:
        raise RefusedByGuard(
            f"{host} gets no token: it is not in {settings_path(environ)}", hint="add it there, or use iam-ssh"
        )
    check_caller(host, pid)
    token = find_token(Asked(host, settings.find_host(host), environ, uid, time.time()))
    return write_token(token, pid, environ, uid)
