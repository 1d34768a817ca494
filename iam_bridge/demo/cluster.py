"""A login node on loopback: our PAM module, our daemon, a real sshd, and the stock ssh client before it.

As root it lives in a private mount namespace, so that the host's nsswitch.conf, pam.d and extrausers stay as they are
and no account of the demo is seen outside. Without root, pam_wrapper and nss_wrapper stand in for the namespace, and
sshd opens only the uid that runs it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iam_bridge.demo.scratch import UIDS, ScratchSite
from iam_bridge.errors import BridgeError

REPO = Path(__file__).parents[2]
MODULE = REPO / "pam_module" / "build" / "pam_iam.so"
STACK = REPO / "config" / "pam.d" / "sshd-iam-bridge"
SSHD = "/usr/sbin/sshd"
START_S = 20.0
_NEEDS_PRELOAD = ("libpam_wrapper.so", "libnss_wrapper.so")


class CannotStart(BridgeError):
    """A part of the login node is missing or did not start."""

    code = "demo"


@dataclass
class Cluster:
    """The running login node."""

    site: ScratchSite
    port: int
    holder: int | None = None
    """The process that keeps the private mount namespace, None without root."""
    own_ids: tuple[str, ...] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Give the command line that runs a program where the accounts of the demo are seen."""
        if self.holder is not None:
            return ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", "--", *argv]
        return ["env", *self._wrappers(), *argv]

    def _wrappers(self) -> list[str]:
        accounts = self.site.accounts
        return [
            f"LD_PRELOAD={' '.join(_NEEDS_PRELOAD)}",
            "PAM_WRAPPER=1",
            f"PAM_WRAPPER_SERVICE_DIR={self.site.folder / 'pam.d'}",
            f"NSS_WRAPPER_PASSWD={accounts / 'passwd'}",
            f"NSS_WRAPPER_GROUP={accounts / 'group'}",
        ]

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 60, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program where the accounts of the demo are seen."""
        return subprocess.run(
            self.inside(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(env or {})},
            errors="replace",
        )

    def bridge(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an `iam-bridge` command with the scratch site's settings."""
        return self.run([*BRIDGE, "--config", str(self.site.settings), *arguments], stdin=stdin)

    def start(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program that lives as long as the cluster."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.inside(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.processes.append(process)
        return process

    def ssh_options(self) -> list[str]:
        """Give what the stock client needs to find the scratch sshd and to insist on its key."""
        known = self.site.folder / "known_hosts"
        return [
            *("-F", "/dev/null", "-p", str(self.port)),
            *("-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "KexAlgorithms=curve25519-sha256", "-o", "ControlPath=none"),
        ]

    def ssh_by_token(
        self, name: str, token: str, *command: str, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Log in with an access token by the stock client, iam-askpass answering its prompts."""
        token_file = self.site.folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        env = {
            "SSH_ASKPASS": str(REPO / "pam_module" / "client" / "iam-askpass"),
            "SSH_ASKPASS_REQUIRE": "force",
            "IAM_BRIDGE_TOKEN_FILE": str(token_file),
            "IAM_BRIDGE_HOST": "127.0.0.1",
        }
        argv = [
            *("ssh", *self.ssh_options(), "-o", "PreferredAuthentications=keyboard-interactive"),
            *("-o", "NumberOfPasswordPrompts=1", f"{name}@127.0.0.1", *command),
        ]
        return self.run(argv, timeout_s=timeout_s, env=env)

    def ssh_by_key(
        self, name: str, key: Path, *command: str, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Log in with an SSH key by the stock client."""
        argv = [
            *("ssh", *self.ssh_options(), "-i", str(key), "-o", "IdentitiesOnly=yes"),
            *("-o", "PreferredAuthentications=publickey", "-o", "BatchMode=yes", f"{name}@127.0.0.1", *command),
        ]
        return self.run(argv, timeout_s=timeout_s)

    def make_key(self, path: Path) -> None:
        """Make an SSH key; ssh-keygen insists that whoever runs it has a name, and inside we have."""
        ran = self.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)])
        if ran.returncode != 0:
            raise CannotStart(f"ssh-keygen made no key: {ran.stderr.strip()}")

    def authorize(self, key: Path, name: str) -> None:
        """Put a public key where sshd looks for the keys of an account, outside everybody's home."""
        keys = self.site.folder / "keys"
        keys.mkdir(exist_ok=True)
        (keys / name).write_text(key.with_suffix(".pub").read_text())

    def stop(self) -> None:
        """End what was started, each process by its own id, children of sshd included."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(5)


BRIDGE = [str(Path(sys.executable).with_name("iam-bridge"))]
LOGIND = [str(Path(sys.executable).with_name("iam-bridge-logind"))]


def what_is_missing(*, rooted: bool) -> str:
    """Say in one line what has to be installed first; an empty text where all is there."""
    missing = []
    if not MODULE.exists():
        missing.append("gcc libpam0g-dev (to build the PAM module)")
    if not Path(SSHD).exists():
        missing.append("openssh-server")
    if rooted and not _has_library("libnss_extrausers"):
        missing.append("libnss-extrausers")
    if not rooted and not (_has_library("libpam_wrapper") and _has_library("libnss_wrapper")):
        missing.append("libpam-wrapper libnss-wrapper")
    return f"to see the logins, install: {', '.join(missing)}" if missing else ""


def _has_library(name: str) -> bool:
    return any(list(Path(root).glob(f"{depth}{name}.so*")) for root in ("/usr/lib", "/lib") for depth in ("", "*/"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _hold_namespace(site: ScratchSite) -> subprocess.Popen[bytes]:
    """Start the process that keeps a mount namespace in which this site's files stand in for the host's."""
    folder = site.folder
    text = Path("/etc/nsswitch.conf").read_text()
    text = re.sub(r"^(passwd|group|shadow):.*$", r"\1: files extrausers", text, flags=re.MULTILINE)
    (folder / "nsswitch.conf").write_text(text)
    shutil.copytree("/etc/pam.d", folder / "pam.d", symlinks=True)
    script = (
        'mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && mount --bind "$0/accounts" /var/lib/extrausers && '
        'mount --bind "$0/pam.d" /etc/pam.d && mkdir -p /run/sshd && touch "$0/held" && exec sleep infinity'
    )
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(folder)]
    with (folder / "namespace.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _wait_for((folder / "held").exists, process, folder / "namespace.log", "the private mount namespace")
    return process


def _write_stack(site: ScratchSite) -> None:
    """Write the PAM stack: the shipped one as root, the bare lines of ours where only we can log in anyway."""
    uids = f"{UIDS[0]}-{UIDS[1]}" + ("" if site.rooted else f",{os.geteuid()}-{os.geteuid()}")
    line = f"{MODULE} socket={site.socket} daemon={site.daemon_user} uids={uids}"
    if site.rooted:
        text = re.sub(r"pam_iam\.so uids=\S+", line, STACK.read_text())
        (site.folder / "pam.d" / "sshd-iam-bridge").write_text(text)
        return
    (site.folder / "pam.d").mkdir()
    words = "[success=ok ignore=ignore default=die]"
    for service in ("sshd", "other"):
        (site.folder / "pam.d" / service).write_text(
            f"auth {words.replace('=ok', '=done', 1)} {line}\nauth required pam_deny.so\naccount {words} {line}\n"
            f"account required pam_permit.so\nsession {words} {line}\nsession required pam_permit.so\n"
        )


def _start_sshd(cluster: Cluster) -> None:
    folder = cluster.site.folder
    cluster.make_key(folder / "hostkey")
    public = (folder / "hostkey.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{cluster.port} {' '.join(public)}\n")
    (folder / "sshd_config").write_text(
        f"Port {cluster.port}\nListenAddress 127.0.0.1\nHostKey {folder}/hostkey\nPidFile none\nUsePAM yes\n"
        "KbdInteractiveAuthentication yes\nPasswordAuthentication no\nStrictModes no\nUseDNS no\nLogLevel VERBOSE\n"
        f"AuthorizedKeysFile {folder}/keys/%u\nMaxStartups 100\n"
    )
    program = SSHD
    if cluster.site.rooted:  # up to OpenSSH 9.7 the PAM service has the name of the program
        program = str(folder / "sshd-iam-bridge")
        os.symlink(SSHD, program)
        if _has_pam_service_name():
            with (folder / "sshd_config").open("a") as config:
                config.write("PAMServiceName sshd-iam-bridge\n")
    log = folder / "sshd.log"
    process = cluster.start([program, "-D", "-e", "-f", str(folder / "sshd_config")], log)
    _wait_for(lambda: b"Server listening" in log.read_bytes(), process, log, "sshd")


def _has_pam_service_name() -> bool:
    """Tell whether this sshd knows PAMServiceName (OpenSSH 9.8 and newer)."""
    test = subprocess.run([SSHD, "-t", "-f", "/dev/null", "-o", "PAMServiceName=x"], capture_output=True, check=False)
    return b"Bad configuration option" not in test.stderr


def start_daemon(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Start the login daemon and wait until it answers."""
    site = cluster.site
    log = site.folder / "logind.log"
    process = cluster.start([*LOGIND, "--config", str(site.settings)], log)
    _wait_for(site.socket.exists, process, log, "iam-bridge-logind")
    return process


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    until = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            tail = log.read_text(errors="replace")[-600:] if log.exists() else ""
            raise CannotStart(f"{what} did not start: {tail.strip()}", hint=f"see {log}")
        time.sleep(0.02)


@contextlib.contextmanager
def running_cluster(site: ScratchSite) -> Iterator[Cluster]:
    """Run a login node on this site until the block ends; everything it started ends with it."""
    cluster = Cluster(site, _free_port())
    try:
        if site.rooted:
            holder = _hold_namespace(site)
            cluster.processes.append(holder)
            cluster.holder = holder.pid
        _write_stack(site)
        start_daemon(cluster)
        _start_sshd(cluster)
        yield cluster
    finally:
        cluster.stop()
