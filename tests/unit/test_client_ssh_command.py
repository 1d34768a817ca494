"""The command line: what iam-ssh reads from it, and what it makes of it, with a program in ssh's place."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iam_bridge.errors import BridgeError, InvalidValue, RefusedByGuard
from pam_module.client import fetch, ssh_command
from pam_module.client.iam_ssh import ASKPASS, make_command, parse_options
from pam_module.client.ssh_command import is_key_known, parse_ssh_arguments, parse_target, read_target, read_version
from pam_module.client.whoami import name_from_answer
from tests.unit.client_tokens import make_token


def _has_a_name() -> bool:
    try:
        return bool(pwd.getpwuid(os.geteuid()))
    except KeyError:
        return False


needs_ssh = pytest.mark.skipif(
    not (shutil.which("ssh") and shutil.which("ssh-keygen") and _has_a_name()),
    reason="NOT RUN: ssh and ssh-keygen are not here, or this uid has no name, and they work for nobody without one",
)

CALLS = {
    "host alone": (["h"], "h", (), ()),
    "user and command": (["u@h", "ls", "-l"], "u@h", (), ("ls", "-l")),
    "options with values": (["-p", "22", "-l", "u", "h"], "h", ("-p", "22", "-l", "u"), ()),
    "values in the same word": (["-p22", "-lu", "h"], "h", ("-p22", "-lu"), ()),
    "flags in one word": (["-4vNp", "22", "h"], "h", ("-4vNp", "22"), ()),
    "a value that looks like an option": (["-o", "-x", "h"], "h", ("-o", "-x"), ()),
    "options behind the host": (["h", "-p", "22", "ls"], "h", (), ("ls",)),
    "two dashes before the host": (["-v", "--", "h", "-l"], "h", ("-v",), ("-l",)),
    "two dashes before the command": (["h", "--", "-l"], "h", (), ("-l",)),
    "a URI": (["ssh://u@h:22", "ls"], "ssh://u@h:22", (), ("ls",)),
    "no host": (["-v"], "", ("-v",), ()),
    "an option without its value": (["-p"], "", ("-p",), ()),
    "nothing": ([], "", (), ()),
    "two dashes alone": (["--"], "", (), ()),
}


@pytest.mark.parametrize(("words", "host", "options", "command"), CALLS.values(), ids=CALLS.keys())
def test_the_destination_and_the_command_are_found(
    words: list[str], host: str, options: tuple[str, ...], command: tuple[str, ...]
) -> None:
    call = parse_ssh_arguments(words)
    assert (call.destination, call.options, call.command) == (host, options, command)
    assert [*call.options, *call.rest] == words


@needs_ssh
@pytest.mark.parametrize("letter", "BDEFIJLOQRSWbceilmopw")  # and P, since 9.4
def test_the_letters_that_take_a_value_are_those_of_this_ssh(letter: str) -> None:
    usage = subprocess.run(["ssh"], capture_output=True, text=True, check=False).stderr
    assert f"[-{letter} " in usage


@pytest.mark.parametrize("words", [["-V"], ["-Q", "cipher"], ["-G", "h"], ["-O", "exit", "h"], ["-vO", "exit", "h"]])
def test_what_opens_no_login_needs_no_token(words: list[str]) -> None:
    assert not parse_ssh_arguments(words).opens_login


@pytest.mark.parametrize("word", ["-o GSSAPIAuthentication=no", "-W", "-vv"])
def test_other_options_need_one(word: str) -> None:
    assert parse_ssh_arguments([word, "h", "h2"]).opens_login


LOOSE = [
    ["-o", "StrictHostKeyChecking=no"],
    ["-oStrictHostKeyChecking=off"],
    ["-o", "stricthostkeychecking accept-new"],
    ["-o", "StrictHostKeyChecking = no"],
    ["-vo", "StrictHostKeyChecking=NO"],
    ['-oStrictHostKeyChecking="no"'],
]


@pytest.mark.parametrize("words", LOOSE)
@pytest.mark.parametrize("behind", [False, True], ids=["before the host", "behind it"])
def test_loose_key_checking_is_refused_however_it_is_written(words: list[str], behind: bool) -> None:
    call = parse_ssh_arguments(["h", *words] if behind else [*words, "h"])
    with pytest.raises(InvalidValue, match="whoever answers"):
        ssh_command.check_host_key_options(call.set_by_hand)


@pytest.mark.parametrize("words", [[], ["-oStrictHostKeyChecking=yes"], ["-oStrictHostKeyChecking=ask"]])
def test_strict_key_checking_passes(words: list[str]) -> None:
    ssh_command.check_host_key_options(parse_ssh_arguments([*words, "h"]).set_by_hand)


def test_our_options_stand_first_and_the_persons_methods_win() -> None:
    command = make_command(parse_ssh_arguments(["-p", "22", "h", "ls"]))
    assert command == ["ssh", *ssh_command.FIRST, "-p", "22", ssh_command.PREFERRED, "h", "ls"]
    assert "-oStrictHostKeyChecking=yes" in ssh_command.FIRST
    own = make_command(parse_ssh_arguments(["-oPreferredAuthentications=publickey", "h"]))
    assert ssh_command.PREFERRED not in own


@needs_ssh
def test_ssh_takes_our_key_checking_whatever_follows(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("StrictHostKeyChecking no\nNoHostAuthenticationForLocalhost yes\nBatchMode yes\n")
    call = parse_ssh_arguments(["-F", str(tmp_path / "config"), "h", "-oStrictHostKeyChecking=no"])
    target = read_target(make_command(call)[1:])
    assert target.key_checking == "true"


@needs_ssh
def test_the_target_is_what_ssh_itself_makes_of_it() -> None:
    target = read_target(["-F", "/dev/null", "-o", "HostName=Login.Example.ORG", "-p", "2222", "u@alias"])
    assert (target.shown, target.port, target.user, target.by_way) == ("login.example.org", 2222, "u", False)
    other = read_target(["-F", "/dev/null", "-J", "jump", "-o", "HostKeyAlias=Key.Name", "h"])
    assert (other.shown, other.by_way) == ("key.name", True)


@needs_ssh
def test_arguments_that_ssh_does_not_take_come_back_in_its_words() -> None:
    with pytest.raises(InvalidValue, match=r"ssh cannot use these arguments: .*nonsense"):
        read_target(["-F", "/dev/null", "-o", "nonsense=1", "h"])


@pytest.mark.parametrize("text", ["", "port 22", "hostname h\nport x", "\0"])
def test_an_answer_without_a_host_is_told(text: str) -> None:
    with pytest.raises(BridgeError, match="which host"):
        parse_target(text)


@needs_ssh
@pytest.mark.parametrize(
    ("name", "host", "port", "known"),
    [
        ("h", "h", 22, True),
        ("[h]:2222", "h", 2222, True),
        ("h", "h", 2222, False),
        ("other", "h", 22, False),
        ("@cert-authority *.example.org", "a.example.org", 22, True),
    ],
)
def test_a_known_key_is_found_as_ssh_would(tmp_path: Path, name: str, host: str, port: int, known: bool) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlqgCZqWMBWRf3KJiPRpcNIRBYHQzjFMTCPDdRzGHWS"
    (tmp_path / "known").write_text(f"{name} {key}\n")
    files = f"userknownhostsfile {tmp_path / 'missing'} {tmp_path / 'known'}"
    assert is_key_known(parse_target(f"hostname {host}\nport {port}\n{files}\n")) is known


FAKE_SSH = """\
#!{python}
import json, os, sys
names = ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "IAM_BRIDGE_TOKEN_FILE", "IAM_BRIDGE_HOST", "IAM_BRIDGE_PROMPT", "DISPLAY")
if sys.argv[1:] == ["-V"]:
    sys.stderr.write(os.environ.get("FAKE_VERSION", "OpenSSH_9.2p1 Debian") + "\\n")
elif "-G" in sys.argv:
    print(os.environ.get("FAKE_TARGET", "hostname login.hpc.example.org\\nport 22\\nuser tess"))
else:
    path = os.environ.get("IAM_BRIDGE_TOKEN_FILE", "")
    token = open(path).read() if path else ""
    mode = oct(os.stat(path).st_mode & 0o777) if path else ""
    kept = {{name: os.environ[name] for name in names if name in os.environ}}
    leader = os.getsid(0) == os.getpid()
    json.dump({{"argv": sys.argv[1:], "env": kept, "token": token, "mode": mode, "leader": leader}}, open("record", "w"))
    sys.exit(int(os.environ.get("FAKE_STATUS", "0")))
"""


class Desk:
    """A folder with a program in ssh's place, and iam-ssh."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "run").mkdir(mode=0o700)
        program = folder / "bin/ssh"
        program.write_text(FAKE_SSH.format(python=sys.executable))
        program.chmod(0o755)
        self.token = make_token(1500)
        (folder / "token").write_text(self.token)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(self.folder)}
        env |= {"XDG_RUNTIME_DIR": str(self.folder / "run"), "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "pam_module.client.iam_ssh", *words]
        return subprocess.run(
            command, env=env | environ, cwd=self.folder, capture_output=True, text=True, timeout=30, check=False
        )

    def record(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "record").read_text()))

    def started(self) -> bool:
        return (self.folder / "record").exists()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_ssh_gets_the_askpass_program_the_token_file_and_its_own_words(desk: Desk) -> None:
    done = desk.run("--token-file", "token", "-p", "22", "h", "ls", "-l", "a b", FAKE_STATUS="9")
    record = desk.record()
    assert done.returncode == 9, done.stderr
    assert record["argv"] == [*ssh_command.FIRST, "-p", "22", ssh_command.PREFERRED, "h", "ls", "-l", "a b"]
    env = record["env"]
    assert isinstance(env, dict)
    path = env.pop("IAM_BRIDGE_TOKEN_FILE")
    assert env == {
        "SSH_ASKPASS": str(ASKPASS),
        "SSH_ASKPASS_REQUIRE": "force",
        "IAM_BRIDGE_HOST": "login.hpc.example.org",
    }
    assert (record["token"], record["mode"], record["leader"]) == (desk.token, "0o600", False)
    assert not Path(path).exists()


def test_no_token_is_in_argv_or_on_screen(desk: Desk) -> None:
    done = desk.run("--token-file=token", "h")
    assert desk.token not in json.dumps(desk.record()["argv"]) + done.stdout + done.stderr
    assert desk.record()["token"] == desk.token


def test_an_old_client_is_told_apart_and_started_without_a_terminal(desk: Desk) -> None:
    desk.run("--token-file", "token", "h", FAKE_VERSION="OpenSSH_8.0p1, OpenSSL 1.1.1k")
    record = desk.record()
    assert isinstance(record["env"], dict)
    assert (record["env"]["IAM_BRIDGE_PROMPT"], record["env"]["DISPLAY"], record["leader"]) == ("bare", ":0", True)


def test_an_old_client_gets_no_token_where_the_way_leads_over_another_host(desk: Desk) -> None:
    target = "hostname h\nport 22\nproxyjump jump"
    done = desk.run("--token-file", "token", "h", FAKE_VERSION="OpenSSH_8.4p1", FAKE_TARGET=target)
    assert (done.returncode, desk.started()) == (1, False)
    assert "OpenSSH 8.5 or newer" in done.stderr
    assert list((desk.folder / "run/iam-bridge").iterdir()) == []


WRONG = {
    "no host": (["-v"], 2, "there is no HOST"),
    "nothing": ([], 2, "there is no HOST"),
    "an option that we do not have": (["--tokenfile", "x", "h"], 2, "no option '--tokenfile'"),
    "an option without its value": (["--token-file"], 2, "--token-file needs a value"),
    "an empty value": (["--token-file=", "h"], 2, "--token-file needs a value"),
    "a token file that is missing": (["--token-file", "none", "h"], 2, "none cannot be read"),
    "a password in the token file": (["--token-file", "password", "h"], 2, "is no access token"),
    "loose key checking": (["-oStrictHostKeyChecking=no", "h"], 2, "whoever answers"),
    "whoami with a command": (["--whoami", "h", "ls"], 2, "--whoami runs no command"),
    "a connection that is no number": (["--fetch-token-for", "h", "--connection", "x"], 2, "number of a process"),
    "a fetch without a connection": (["--fetch-token-for", "h"], 2, "needs --connection"),
    "a fetch for a host that nobody set": (["--fetch-token-for", "h", "--connection", "1"], 3, "gets no token"),
}


@pytest.mark.parametrize(("words", "status", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_in_one_line_before_ssh_starts(
    desk: Desk, words: list[str], status: int, sentence: str
) -> None:
    (desk.folder / "password").write_text("hunter2\n")
    done = desk.run(*words)
    assert (done.returncode, done.stdout, desk.started()) == (status, "", False)
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr


def test_settings_that_cannot_be_believed_stop_it(desk: Desk) -> None:
    (desk.folder / ".config/iam-bridge").mkdir(parents=True)
    (desk.folder / ".config/iam-bridge/client.yaml").write_text("version: 1\nhots: {}\n")
    done = desk.run("--token-file", "token", "h")
    assert (done.returncode, desk.started()) == (2, False)
    assert "line 2: hots: is no key" in done.stderr


def test_without_ssh_it_says_what_to_install(desk: Desk) -> None:
    done = desk.run("--token-file", "token", "h", PATH="/nonexistent")
    assert done.returncode == 1
    assert "install the OpenSSH client" in done.stderr


def test_questions_to_ssh_itself_pass_straight_through(desk: Desk) -> None:
    assert "OpenSSH_9.2p1" in desk.run("-V").stderr


def test_help_and_the_askpass_path_are_printed(desk: Desk) -> None:
    assert desk.run("--help").stdout.startswith("usage: iam-ssh")
    assert desk.run("--askpass").stdout == f"{ASKPASS}\n"
    assert os.access(ASKPASS, os.X_OK)


def test_our_options_end_where_sshs_begin() -> None:
    options = parse_options(["--token-file", "t", "-v", "--", "h", "--whoami"])
    assert (options.rest, options.token_file, options.whoami) == (("-v", "--", "h", "--whoami"), "t", False)


ANSWERS = {
    "let in": (0, "tess\n", "", "tess"),
    "told": (255, "", "This token belongs to the account tess: log in as tess.\nPermission denied", "tess"),
    "told within other words": (255, "", "hi This token belongs to the account a-1_: log in as a-1_. x", "a-1_"),
    "two names in one sentence": (255, "", "This token belongs to the account tess: log in as toni.", None),
    "a name by another grammar": (255, "", "This token belongs to the account Tess: log in as Tess.", None),
    "a name with escape codes": (0, "\x1b[2Jtess\n", "", None),
    "two lines": (0, "tess\ntoni\n", "", None),
    "a name of 33 letters": (0, "a" * 33, "", None),
    "a name from a login that failed": (1, "tess\n", "", None),
    "nothing": (255, "", "Permission denied (keyboard-interactive).", None),
}


@pytest.mark.parametrize(("status", "output", "errors", "name"), ANSWERS.values(), ids=ANSWERS.keys())
def test_only_a_name_by_our_grammar_is_an_answer(status: int, output: str, errors: str, name: str | None) -> None:
    assert name_from_answer(status, output, errors) == name


VERSIONS = {
    "OpenSSH_8.0p1": (8, 0),
    "OpenSSH_10.2p1": (10, 2),
    "OpenSSH_for_Windows_9.5p1": (9, 5),
    "dropbear": (99, 0),
}


@pytest.mark.parametrize(("text", "version"), VERSIONS.items())
def test_the_version_is_read(desk: Desk, monkeypatch: pytest.MonkeyPatch, text: str, version: tuple[int, int]) -> None:
    monkeypatch.setenv("FAKE_VERSION", text)
    assert read_version(str(desk.folder / "bin/ssh")) == version


def proc_entry(folder: Path, name: bytes, words: list[bytes]) -> Path:
    (folder / "self").mkdir()
    (folder / "7").mkdir()
    (folder / "7/comm").write_bytes(name + b"\n")
    (folder / "7/cmdline").write_bytes(b"".join(word + b"\0" for word in words))
    return folder


def test_the_asking_ssh_is_read_with_its_own_arguments(tmp_path: Path) -> None:
    proc = proc_entry(tmp_path, b"ssh", [b"ssh", b"-oX=\xff", b"--", b"h", b""])
    assert fetch.read_arguments(7, proc) == ("-oX=\udcff", "--", "h", "")


def test_a_program_that_is_no_ssh_gets_nothing(tmp_path: Path) -> None:
    with pytest.raises(RefusedByGuard, match="not ssh that asked"):
        fetch.read_arguments(7, proc_entry(tmp_path, b"python3", [b"x"]))


def test_a_process_that_is_gone_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    with pytest.raises(BridgeError, match="cannot be looked at"):
        fetch.read_arguments(7, tmp_path)


def test_without_proc_there_are_no_arguments_to_read(tmp_path: Path) -> None:
    assert fetch.read_arguments(7, tmp_path / "none") is None
