"""iam-ssh and iam-askpass with the stock OpenSSH client, a real sshd and our PAM module; a stand-in decides."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pam_module.wire import Phase, Reply, Request, Status, encode_reply
from tests.pam.stand_in import StandIn
from tests.unit.client_tokens import make_token

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.getuid() != 0, reason="a real sshd for other uids needs root")]
ROOT = Path(__file__).parents[2]
ASKPASS = ROOT / "pam_module" / "client" / "iam-askpass"
AUDIENCE = "https://login.hpc.example.org"
HOST = "login.hpc.example.org"
UIDS = {"tess": 47101, "toni": 47102}
LONG = 16384  # what every transport must carry
WRONG_NAME = "This token belongs to the account tess: log in as tess."


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Site:
    """A login node on loopback where one token opens tess's account, and the researcher's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.token = make_token(4000, aud=AUDIENCE)
        self.secrets: list[str] = []
        self.config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.runtime = folder / "run"
        self.token_file = folder / "token"

    def behave(self, connection: socket.socket, request: Request, _over: object) -> None:
        uid = UIDS.get(request.user)
        permit = Reply(Status.PERMIT, uid, request.user) if uid else Reply(Status.DENY, text="Access denied.")
        if request.phase is Phase.WHO:
            permit = Reply(Status.PROMPT)
        elif request.phase is Phase.AUTH:
            self.secrets.append(request.secret.decode("latin-1"))
            if self.secrets[-1] != self.token:
                permit = Reply(Status.DENY, text="Access denied.")
            elif request.user != "tess":
                permit = Reply(Status.DENY, text=WRONG_NAME)
        connection.sendall(encode_reply(permit))

    def present(self, size: int) -> None:
        self.token = make_token(size, aud=AUDIENCE)
        self.token_file.write_text(self.token)

    def environment(self, **changed: str) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        runtime = {"XDG_RUNTIME_DIR": str(self.runtime), "XDG_CONFIG_HOME": str(self.folder / "config")}
        return keep | {"PATH": path} | runtime | changed

    def run(self, *command: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(**changed),
            text=True,
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def iam_ssh(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return self.run("iam-ssh", "--token-file", str(self.token_file), *words, **changed)

    def with_askpass(self, *command: str, **changed: str) -> subprocess.CompletedProcess[str]:
        ours = {"SSH_ASKPASS": str(ASKPASS), "SSH_ASKPASS_REQUIRE": "force", "BEARER_TOKEN_FILE": str(self.token_file)}
        return self.run(*command, **ours, **changed)

    def left_over(self) -> list[str]:
        return sorted(str(path) for path in self.runtime.rglob("token-*"))


SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/hostkey
PidFile none
UsePAM yes
KbdInteractiveAuthentication yes
PasswordAuthentication no
StrictModes no
UseDNS no
Subsystem sftp internal-sftp
"""
START = """\
mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && mount --bind "$0/xu" /var/lib/extrausers &&
mount --bind "$0/pam.d" /etc/pam.d && exec "$0/sshd-iam" -D -e -f "$0/sshd_config"
"""


def write_node(site: Site, module: Path) -> None:
    folder = site.folder
    for name in ("pam.d", "xu", "bin", "run", "config/iam-bridge"):
        (folder / name).mkdir(parents=True)
    nss = Path("/etc/nsswitch.conf").read_text().splitlines()
    rows = [f"{line} extrausers" if line.startswith(("passwd:", "group:", "shadow:")) else line for line in nss]
    (folder / "nsswitch.conf").write_text("\n".join(rows) + "\n")
    passwd = [f"{n}:x:{u}:{u}::{folder}/home-{n}:/bin/sh\n" for n, u in UIDS.items()]
    (folder / "xu/passwd").write_text("".join(passwd))
    (folder / "xu/group").write_text("".join(f"{n}:x:{u}:\n" for n, u in UIDS.items()))
    (folder / "xu/shadow").write_text("".join(f"{n}:*:19000::::::\n" for n in UIDS))
    for name, uid in UIDS.items():
        (folder / f"home-{name}").mkdir()
        os.chown(folder / f"home-{name}", uid, uid)
    line = f"required {module} socket={folder}/login.sock daemon=0 uids=47101-47102\n"
    (folder / "pam.d/sshd-iam").write_text("".join(f"{kind} {line}" for kind in ("auth", "account", "session")))
    (folder / "pam.d/other").write_text("auth required pam_deny.so\naccount required pam_deny.so\n")
    (folder / "sshd-iam").symlink_to("/usr/sbin/sshd")  # the PAM service is the program's name, before OpenSSH 9.8
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "hostkey"], check=True)
    (folder / "sshd_config").write_text(SSHD.format(port=site.port, folder=folder))


def write_researcher(site: Site) -> None:
    folder = site.folder
    key = (folder / "hostkey.pub").read_text()
    site.known_hosts.write_text(f"{HOST} {key}")
    site.config.write_text(
        f"Host {HOST} node\n HostName 127.0.0.1\n HostKeyAlias {HOST}\n Port {site.port}\n User tess\n"
        f" UserKnownHostsFile {site.known_hosts}\n GlobalKnownHostsFile /dev/null\n IdentityFile none\n"
    )
    settings = folder / "config/iam-bridge/client.yaml"
    settings.write_text(f"version: 1\nhosts:\n  {HOST}: {{audience: {AUDIENCE}, account: demo}}\n")
    shim = folder / "bin/iam-ssh"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m pam_module.client.iam_ssh "$@"\n')
    shim.chmod(0o755)
    site.runtime.chmod(0o700)
    site.present(4000)


@contextmanager
def running_node(site: Site) -> Iterator[Site]:
    folder, log = site.folder, site.folder / "sshd.log"
    Path("/run/sshd").mkdir(exist_ok=True)
    with StandIn(folder / "login.sock", site.behave), log.open("wb") as errors:
        sshd = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", START, folder], stderr=errors)
        try:
            deadline = time.monotonic() + 10
            while "Server listening" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield site
        finally:
            sshd.terminate()
            sshd.wait(10)


@pytest.fixture(scope="module")
def node() -> Iterator[Site]:
    subprocess.run(["make", "-s", "-C", ROOT / "pam_module"], check=True)
    # Not below pytest's folder, which is closed to the people whose homes are here.
    with tempfile.TemporaryDirectory(prefix="iam-bridge-node-") as name:
        Path(name).chmod(0o755)
        site = Site(Path(name))
        write_node(site, ROOT / "pam_module/build/pam_iam.so")
        write_researcher(site)
        with running_node(site):
            yield site


@pytest.fixture
def site(node: Site) -> Iterator[Site]:
    node.present(4000)
    node.secrets.clear()
    yield node
    assert node.left_over() == []


@pytest.mark.parametrize("size", [300, 1000, 1001, 1023, 2000, 4000, 16384])
def test_iam_ssh_carries_a_token_of_any_length(site: Site, size: int) -> None:
    site.present(size)
    done = site.iam_ssh("-F", str(site.config), HOST, "id -un")
    assert (done.returncode, done.stdout) == (0, "tess\n"), done.stderr
    assert site.secrets == [site.token]


def test_the_exit_status_of_the_command_passes_through(site: Site) -> None:
    assert site.iam_ssh("-F", str(site.config), HOST, "exit 7").returncode == 7


def test_a_host_whose_key_is_unknown_gets_no_token_and_the_person_a_sentence(site: Site, tmp_path: Path) -> None:
    options = ("-F", str(site.config), "-o", f"UserKnownHostsFile={tmp_path / 'none'}")
    done = site.iam_ssh(*options, HOST, "id -un")
    assert done.returncode == 255
    assert f"no key of {HOST} is known here" in done.stderr
    assert "ssh-keyscan" in done.stderr
    assert site.secrets == []


def test_a_configuration_that_believes_any_key_is_overruled(site: Site, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    known = f"UserKnownHostsFile {tmp_path / 'none'}\nStrictHostKeyChecking no\n"
    loose.write_text(known + site.config.read_text())
    assert site.iam_ssh("-F", str(loose), HOST, "id -un").returncode == 255
    assert site.secrets == []


@pytest.mark.parametrize("value", ["no", "off", "accept-new"])
def test_loose_key_checking_on_the_command_line_is_refused(site: Site, value: str) -> None:
    done = site.iam_ssh("-F", str(site.config), f"-oStrictHostKeyChecking={value}", HOST, "id -un")
    assert done.returncode == 2
    assert "whoever answers" in done.stderr
    assert site.secrets == []


@pytest.mark.parametrize("name", ["tess", "toni"])
def test_whoami_learns_the_name_under_any_name_that_the_host_knows(site: Site, name: str) -> None:
    done = site.run(
        "iam-ssh", "--whoami", "--token-file", str(site.token_file), "-F", str(site.config), "-l", name, HOST
    )
    assert (done.returncode, done.stdout) == (0, "tess\n"), done.stderr


def test_whoami_under_a_name_that_the_host_does_not_know_says_so(site: Site) -> None:
    done = site.run(
        "iam-ssh", "--whoami", "--token-file", str(site.token_file), "-F", str(site.config), "-l", "nobodyhere", HOST
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not know the name nobodyhere" in done.stderr
    assert site.token not in site.secrets


def test_whoami_tries_the_name_that_the_token_claims(site: Site) -> None:
    site.token = make_token(1500, aud=AUDIENCE, preferred_username="toni")
    site.token_file.write_text(site.token)
    done = site.run(
        "iam-ssh", "--whoami", "--token-file", str(site.token_file), "-F", str(site.config), "-l", "nobodyhere", HOST
    )
    assert (done.returncode, done.stdout) == (0, "tess\n"), done.stderr


def test_plain_ssh_scp_and_sftp_log_in_by_the_askpass_program_alone(site: Site, tmp_path: Path) -> None:
    site.present(LONG)
    here = tmp_path / "here"
    here.write_text("data\n")
    config = ("-F", str(site.config))
    there = site.folder / "home-tess/there"
    assert site.with_askpass("ssh", *config, HOST, "id -un").stdout == "tess\n"
    assert site.with_askpass("scp", "-q", *config, str(here), f"{HOST}:there").returncode == 0
    assert there.read_text() == "data\n"
    batch = tmp_path / "batch"
    batch.write_text("rename there moved\n")
    done = site.with_askpass("sh", "-c", f"sftp -F {site.config} {HOST} < {batch}")
    assert done.returncode == 0, done.stderr
    assert (site.folder / "home-tess/moved").read_text() == "data\n"
    assert site.secrets == [site.token] * 3


def test_rsync_copies_there_and_back_by_the_askpass_program_alone(site: Site, tmp_path: Path) -> None:
    site.present(LONG)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "here").write_text("data\n")
    rsync = ("rsync", "-a", "-e", f"ssh -F {site.config}")
    there = site.with_askpass(*rsync, "--no-owner", "--no-group", f"{tmp_path}/tree", f"{HOST}:")
    assert there.returncode == 0, there.stderr
    assert (site.folder / "home-tess/tree/here").read_text() == "data\n"
    back = site.with_askpass(*rsync, f"{HOST}:tree/", f"{tmp_path}/back/")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "here").read_text() == "data\n"
    assert site.secrets == [site.token] * 2


def test_git_clones_by_the_askpass_program_alone(site: Site, tmp_path: Path) -> None:
    site.present(LONG)
    repository = site.folder / "home-tess/project.git"
    subprocess.run(["git", "init", "-q", "--bare", repository], check=True)
    subprocess.run(["chown", "-R", "47101:47101", repository], check=True)
    done = site.with_askpass(
        "git", "clone", "-q", f"{HOST}:project.git", str(tmp_path / "clone"), GIT_SSH_COMMAND=f"ssh -F {site.config}"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clone/.git").is_dir()
    assert site.secrets == [site.token]


@pytest.mark.parametrize(
    "option", ["StrictHostKeyChecking=no", "StrictHostKeyChecking=accept-new", "NoHostAuthenticationForLocalhost=yes"]
)
def test_the_askpass_program_gives_nothing_to_an_ssh_that_believes_any_key(site: Site, option: str) -> None:
    done = site.with_askpass("ssh", "-F", str(site.config), "-o", option, HOST, "id -un")
    assert done.returncode == 255
    assert f"{HOST} gets no token" in done.stderr
    assert site.token not in site.secrets


def test_the_askpass_program_gives_nothing_to_a_host_outside_the_settings(site: Site) -> None:
    site.known_hosts.write_text(
        site.known_hosts.read_text() + "elsewhere " + site.known_hosts.read_text().split(" ", 1)[1]
    )
    done = site.with_askpass("ssh", "-F", str(site.config), "-o", "HostKeyAlias=elsewhere", HOST, "id -un")
    assert done.returncode == 255
    assert "elsewhere gets no token: it is not in" in done.stderr
    assert site.token not in site.secrets


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_ssh_and_removes_the_token(site: Site, number: signal.Signals) -> None:
    command = ("iam-ssh", "--token-file", str(site.token_file), "-F", str(site.config), HOST, "echo in; sleep 60")
    with subprocess.Popen(command, env=site.environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"in\n"
        assert len(site.left_over()) == 1
        running.send_signal(number)
        assert running.wait(10) in (255, 128 + number)


def test_what_a_killed_run_left_behind_goes_with_the_next(site: Site) -> None:
    command = ("iam-ssh", "--token-file", str(site.token_file), "-F", str(site.config), HOST, "echo in; cat")
    with subprocess.Popen(command, env=site.environment(), stdout=subprocess.PIPE, stdin=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"in\n"
        running.kill()
        running.wait(10)
    assert len(site.left_over()) == 1
    assert site.iam_ssh("-F", str(site.config), HOST, "true").returncode == 0


JUMP = "jump.example.org"


def add_jump_host(site: Site, folder: Path) -> Path:
    """Write a configuration where the same sshd is also known as a host on the way."""
    key = (site.folder / "hostkey.pub").read_text()
    (folder / "known").write_text(f"{HOST} {key}{JUMP} {key}")
    config = folder / "config"
    entry = f"Host jump\n HostName 127.0.0.1\n HostKeyAlias {JUMP}\n Port {site.port}\n User tess\n"
    config.write_text(f"UserKnownHostsFile {folder / 'known'}\n{entry}{site.config.read_text()}")
    return config


def test_a_host_on_the_way_does_not_get_the_token_of_the_host_behind_it(site: Site, tmp_path: Path) -> None:
    config = add_jump_host(site, tmp_path)
    done = site.iam_ssh("-F", str(config), "-J", "jump", HOST, "id -un")
    assert done.returncode == 255
    assert f"{JUMP} gets no token: it is not in" in done.stderr
    assert site.token not in site.secrets


def test_a_host_on_the_way_gets_its_own_token_where_it_is_in_the_settings(site: Site, tmp_path: Path) -> None:
    config = add_jump_host(site, tmp_path)
    site.token = make_token(2500, aud=[AUDIENCE, "jump"])
    site.token_file.write_text(site.token)
    settings = tmp_path / "iam-bridge/client.yaml"
    settings.parent.mkdir()
    settings.write_text(f"version: 1\nhosts:\n  {HOST}: {{audience: {AUDIENCE}}}\n  {JUMP}: {{audience: jump}}\n")
    done = site.run(
        "iam-ssh",
        "-F",
        str(config),
        "-J",
        "jump",
        HOST,
        "id -un",
        XDG_CONFIG_HOME=str(tmp_path),
        BEARER_TOKEN_FILE=str(site.token_file),
    )
    assert (done.returncode, done.stdout) == (0, "tess\n"), done.stderr
    assert site.secrets == [site.token] * 2
