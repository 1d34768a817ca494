"""iam-ssh: log in by ssh with an access token.

It finds the token, says in one sentence what is wrong with it before anything is sent, and runs ssh with iam-askpass
as its askpass program. It gives the token to a host whose key is known, and to nobody else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from iam_bridge.errors import BridgeError, Exit, InvalidValue
from pam_module.client import ssh_command
from pam_module.client.fetch import fetch_for_askpass
from pam_module.client.settings import read_client_settings, settings_path
from pam_module.client.ssh_command import SshCall, Target
from pam_module.client.token_file import held_token
from pam_module.client.tokens import Asked, find_token
from pam_module.client.whoami import ask_name

ASKPASS = Path(__file__).with_name("iam-askpass")
SSH_FAILED = 255
PROMPT_PREFIX_SINCE = (8, 5)  # "(user@host) " in front of prompts
REQUIRE_SINCE = (8, 4)  # SSH_ASKPASS_REQUIRE

USAGE = """\
usage: iam-ssh [--token-file FILE] [--whoami] [ssh options] HOST [command ...]
       iam-ssh --askpass

Log in by ssh with an access token; everything behind our options is ssh's.

  --token-file FILE  take the token from FILE (else BEARER_TOKEN, BEARER_TOKEN_FILE,
                     $XDG_RUNTIME_DIR/bt_u<uid>, /tmp/bt_u<uid>, oidc-agent)
  --whoami           print the name of the account that the token opens at HOST
  --askpass          print the path of iam-askpass, for SSH_ASKPASS with scp, rsync, git
  --help             print this

example: oidc-token --aud https://login.hpc.example.org myaccount > token
         iam-ssh --token-file token login.hpc.example.org
"""


@dataclass(frozen=True, slots=True)
class Options:
    """Our own options; `rest` is ssh's command line."""

    rest: tuple[str, ...]
    token_file: str | None = None
    whoami: bool = False
    askpass: bool = False
    help: bool = False
    fetch_for: str | None = None
    connection: int | None = None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read our options, which stand before ssh's; raise InvalidValue for one that we do not have."""
    values: dict[str, str] = {}
    flags: set[str] = set()
    at = 0
    while at < len(arguments) and arguments[at].startswith("--") and arguments[at] != "--":
        name, equals, value = arguments[at].partition("=")
        at += 1
        if name in ("--whoami", "--askpass", "--help") and not equals:
            flags.add(name)
        elif name in ("--token-file", "--fetch-token-for", "--connection"):
            if not equals and at < len(arguments):
                value, at = arguments[at], at + 1
            if not value:
                raise InvalidValue(f"{name} needs a value", hint="see: iam-ssh --help")
            values[name] = value
        else:
            raise InvalidValue(f"iam-ssh has no option {arguments[at - 1]!r}", hint="see: iam-ssh --help")
    connection = values.get("--connection", "")
    if connection and not connection.isdecimal():
        raise InvalidValue("--connection takes the number of a process")
    return Options(
        rest=tuple(arguments[at:]),
        token_file=values.get("--token-file"),
        whoami="--whoami" in flags,
        askpass="--askpass" in flags,
        help="--help" in flags,
        fetch_for=values.get("--fetch-token-for"),
        connection=int(connection) if connection else None,
    )


class _Child:
    """The running ssh, for signals that come to us: they are passed on, so that its end is ours."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Give the signal to ssh; before there is one, leave by the usual way out, which removes the token."""
        if self.process is None:
            raise SystemExit(128 + number)
        if self.process.returncode is None:
            self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for ssh's end and give its exit status; where ssh stops itself (~^Z), stop with it."""
        assert self.process is not None
        while True:
            _, status = os.waitpid(self.process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            os.kill(os.getpid(), signal.SIGSTOP)
            self.process.send_signal(signal.SIGCONT)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        code = self.process.returncode
        return code if code >= 0 else 128 - code


def _environment(environ: Mapping[str, str], target: Target, version: tuple[int, int], path: Path) -> dict[str, str]:
    ours = {
        "SSH_ASKPASS": str(ASKPASS),
        "SSH_ASKPASS_REQUIRE": "force",
        "IAM_BRIDGE_TOKEN_FILE": str(path),
        "IAM_BRIDGE_HOST": target.shown,
    }
    env = {name: value for name, value in environ.items() if name not in ("SSH_ASKPASS_PROMPT", "IAM_BRIDGE_PROMPT")}
    if version < PROMPT_PREFIX_SINCE:
        if target.by_way:
            raise BridgeError(
                "this ssh does not say whose prompt it shows, and the way leads over another host",
                hint="use OpenSSH 8.5 or newer, or connect without ProxyJump and ProxyCommand",
            )
        ours["IAM_BRIDGE_PROMPT"] = "bare"
    if version < REQUIRE_SINCE:
        ours["DISPLAY"] = environ.get("DISPLAY") or ":0"  # older clients ask for it before they use an askpass program
    return env | ours


def make_command(call: SshCall) -> list[str]:
    """Build ssh's command line: ours first, so that it holds; the preferred methods unless the person set their own."""
    preferred = [] if "preferredauthentications" in call.set_by_hand else [ssh_command.PREFERRED]
    return ["ssh", *ssh_command.FIRST, *call.options, *preferred, *call.rest]


def _explain_unknown_key(target: Target) -> None:
    port = "" if target.port == 22 else f" -p {target.port}"
    if not ssh_command.is_key_known(target):
        _say(
            f"no key of {target.shown} is known here, so it gets no token; compare the fingerprint of"
            f" `ssh-keyscan{port} {target.hostname} | ssh-keygen -lf -` with the one that the site publishes, then add"
            " the line to ~/.ssh/known_hosts"
        )


def _say(sentence: str) -> None:
    sys.stderr.write(f"iam-ssh: {sentence}\n")


def _log_in(options: Options, call: SshCall, environ: Mapping[str, str]) -> int:
    ssh_command.check_host_key_options(call.set_by_hand)
    target = ssh_command.read_target(options.rest)
    version = ssh_command.read_version()
    uid = os.getuid()
    settings = read_client_settings(settings_path(environ), uid=uid).find_host(target.shown)
    asked = Asked(target.shown, settings, environ, uid, time.time(), options.token_file)
    token = find_token(asked)
    child = _Child()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, child.pass_on)
    with held_token(token, environ, uid) as path:
        env = _environment(environ, target, version, path)
        if options.whoami:
            return ask_name(call, target, token, env)
        detached = version < REQUIRE_SINCE  # such a client asks at the terminal as long as it has one
        child.process = subprocess.Popen(make_command(call), env=env, start_new_session=detached)
        status = child.wait()
    if status == SSH_FAILED:
        _explain_unknown_key(target)
    return status


def _run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    options = parse_options(arguments)
    if options.help:
        sys.stdout.write(USAGE)
        return Exit.OK
    if options.askpass:
        sys.stdout.write(f"{ASKPASS}\n")
        return Exit.OK
    if options.fetch_for is not None:
        if options.connection is None:
            raise InvalidValue("--fetch-token-for needs --connection", hint="it is what iam-askpass calls")
        sys.stdout.write(f"{fetch_for_askpass(options.fetch_for, options.connection, environ)}\n")
        return Exit.OK
    call = ssh_command.parse_ssh_arguments(list(options.rest))
    if not call.opens_login:
        os.execvp("ssh", ["ssh", *options.rest])  # noqa: S606 no shell is wanted: the words go to ssh as they are
    if not call.destination:
        raise InvalidValue("there is no HOST to log in to", hint="see: iam-ssh --help")
    if options.whoami and call.command:
        raise InvalidValue("--whoami runs no command", hint="leave out what stands behind HOST")
    return _log_in(options, call, environ)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status: ssh's own, or ours where ssh did not run."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments, os.environ)
    except BridgeError as error:
        _say(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
