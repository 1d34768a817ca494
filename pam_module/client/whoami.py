"""Which account a token opens at a host: ask the host, since nobody else knows.

A host tells a valid token under another name the name of its own account, and lets it in under that name. It never
sees a token under a name that it does not know (sshd puts junk in its place), so that such a name learns nothing.
Only a name by our own grammar is printed, whatever a host sends.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

from iam_bridge.errors import BridgeError, Exit, InvalidValue, SourceUnavailable
from iam_bridge.model.account import NAME_PATTERN
from iam_bridge.model.token import AccessToken
from pam_module.client import ssh_command
from pam_module.client.ssh_command import SshCall, Target
from pam_module.client.tokens import look_at

TIMEOUT_S = 60
_BELONGS = re.compile(r"This token belongs to the account ([a-z][a-z0-9_-]{0,31}): log in as \1\.")
_REFUSED = re.compile(r"Permission denied|Too many authentication failures|Received disconnect|Connection closed by")
_ONLY_THE_TOKEN = (
    "-oPreferredAuthentications=keyboard-interactive",
    "-oPubkeyAuthentication=no",  # a key would tell whose key it is, not whose token
    "-oControlPath=none",
    "-oLogLevel=INFO",  # the sentence is shown at this level
    "-oRequestTTY=no",
    "-oClearAllForwardings=yes",
)


def name_from_answer(status: int, output: str, errors: str) -> str | None:
    """Read the account's name off one attempt: the host's own answer, or its sentence; None where there is neither."""
    name = output.strip()
    if status == 0 and NAME_PATTERN.match(name):
        return name
    sentence = _BELONGS.search(errors)
    return sentence[1] if sentence else None


def _names_to_try(target: Target, token: AccessToken) -> list[str]:
    try:
        claimed = look_at(token).get("preferred_username")
    except InvalidValue:
        claimed = None
    names = [target.user]
    if isinstance(claimed, str) and NAME_PATTERN.match(claimed) and claimed != target.user:
        names.append(claimed)
    return names


def _attempt(call: SshCall, name: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # -l first wins over -l, -o User and USER@ of the person's own command line, which gave the first name.
    command = ["ssh", *ssh_command.FIRST, *_ONLY_THE_TOKEN, f"-oUser={name}", *call.options, *call.rest, "id -un"]
    try:
        return subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"{call.destination} did not answer within {TIMEOUT_S} s") from error


def ask_name(call: SshCall, target: Target, token: AccessToken, env: Mapping[str, str]) -> int:
    """Print the account's name and give 0; else show what ssh said and raise BridgeError."""
    names = _names_to_try(target, token)
    for name in names:
        done = _attempt(call, name, env)
        found = name_from_answer(done.returncode, done.stdout, done.stderr)
        if found:
            sys.stdout.write(f"{found}\n")
            return Exit.OK
        if not _REFUSED.search(done.stderr):
            sys.stderr.write(_printable(done.stderr))
            raise BridgeError(f"{target.shown} could not be asked whose token this is")
    sys.stderr.write(_printable(done.stderr))
    tried = " and ".join(names)
    raise BridgeError(
        f"{target.shown} did not say whose token this is: it does not know the name {tried}, or refuses the token",
        hint=f"try a name that it knows: iam-ssh --whoami -l NAME {target.shown}",
    )


def _printable(text: str) -> str:
    return "".join(c if c == "\n" or (c.isascii() and c.isprintable()) else "?" for c in text)
