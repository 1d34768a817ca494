"""iam-askpass run by hand: what it answers, in how many bytes and writes, and what it never answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.client_tokens import make_token

ASKPASS = Path(__file__).parents[2] / "pam_module" / "client" / "iam-askpass"
HOST = "login.hpc.example.org"
ALLOWED_BYTES = 1001
SHELLS = [shell for shell in ("sh", "bash", "busybox", "ksh") if shutil.which(shell)]


@dataclass(frozen=True)
class Answer:
    status: int
    writes: list[bytes]
    errors: str

    @property
    def text(self) -> bytes:
        return b"".join(self.writes)


def ask(prompt: str, *words: str, shell: str = "sh", **environ: str) -> Answer:
    """Run the program with a datagram socket for its output, on which every write stays one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    command = [shell, *(["sh"] if shell == "busybox" else []), str(ASKPASS), prompt, *words]
    with ours:
        with theirs:
            env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | environ
            done = subprocess.run(command, env=env, stdout=theirs, stderr=subprocess.PIPE, timeout=20, check=False)
        ours.setblocking(False)
        writes = []
        while True:
            try:
                piece = ours.recv(65536)
            except BlockingIOError:
                break
            if not piece:
                break
            writes.append(piece)
    return Answer(done.returncode, writes, done.stderr.decode())


def prompt(part: int = 1, user: str = "tess", host: str = HOST) -> str:
    return f"({user}@{host}) Access Token{f' (part {part})' if part > 1 else ''}: "


def held(file: Path, host: str = HOST) -> dict[str, str]:
    return {"IAM_BRIDGE_TOKEN_FILE": str(file), "IAM_BRIDGE_HOST": host}


@pytest.mark.parametrize("ending", ["", "\n"], ids=["as it is", "with a newline"])
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 1023, 2000, 2001, 4000, 16000, 20000])
def test_the_parts_make_the_token(tmp_path: Path, size: int, shell: str, ending: str) -> None:
    token = (make_token(20000) * 2)[:size]
    (tmp_path / "token").write_text(token + ending)
    joined = b""
    for part in range(1, 25):
        answer = ask(prompt(part), shell=shell, **held(tmp_path / "token"))
        assert answer.status == 0, answer.errors
        assert len(answer.writes) == 1
        assert len(answer.text) <= ALLOWED_BYTES
        more = len(answer.text) == ALLOWED_BYTES and answer.text.endswith(b"+")
        joined += answer.text[:1000]
        if not more:
            break
    assert joined.decode() == token
    assert part == -(-size // 1000)


REFUSED = {
    "a password prompt": f"tess@{HOST}'s password: ",
    "a key's passphrase": "Enter passphrase for key '/home/tess/.ssh/id_ed25519': ",
    "a host key question": f"The authenticity of host '{HOST}' can't be established.\nAre you sure (yes/no)? ",
    "another host's prefix": prompt(host="elsewhere.example.org"),
    "a host that ends like ours": prompt(host="evil-" + HOST),
    "a host that begins like ours": prompt(host=HOST + ".evil.example.org"),
    "the prefix of ours written by a server": f"(tess@elsewhere.example.org) x@{HOST}) Access Token: ",
    "our whole prompt behind another prefix": f"(tess@elsewhere.example.org) {prompt()}",
    "no prefix from a new client": "Access Token: ",
    "text behind the prompt": prompt() + "now",
    "text before the prompt": f"(tess@{HOST}) Dear user, Access Token: ",
    "a newline before the prompt": f"(tess@{HOST}) \nAccess Token: ",
    "escape codes": f"(tess@{HOST}) \x1b[2JAccess Token: ",
    "escape codes in the host": f"(tess@\x1b[8m{HOST}) Access Token: ",
    "another case": f"(tess@{HOST}) access token: ",
    "no blank behind the colon": f"(tess@{HOST}) Access Token:",
    "part 0": f"(tess@{HOST}) Access Token (part 0): ",
    "part 1, which has another text": f"(tess@{HOST}) Access Token (part 1): ",
    "part 25": f"(tess@{HOST}) Access Token (part 25): ",
    "part 007": f"(tess@{HOST}) Access Token (part 007): ",
    "a part that is arithmetic": f"(tess@{HOST}) Access Token (part 1+1): ",
    "a part that is a command": f"(tess@{HOST}) Access Token (part $(id)): ",
    "an empty prompt": "",
    "an empty host": "(tess@) Access Token: ",
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_any_other_prompt_gets_nothing(tmp_path: Path, case: str) -> None:
    (tmp_path / "token").write_text(make_token(1500))
    answer = ask(case, XDG_RUNTIME_DIR=str(tmp_path), **held(tmp_path / "token"))
    assert (answer.status, answer.writes) == (1, [])


@pytest.mark.parametrize("user", ["tess", "tess@example.org", "a b", "ab(c"])
def test_whatever_the_user_is_called_ours_is_answered(tmp_path: Path, user: str) -> None:
    (tmp_path / "token").write_text("t0ken")
    assert ask(prompt(user=user), **held(tmp_path / "token")).text == b"t0ken"


def test_a_prompt_without_prefix_is_answered_where_iam_ssh_saw_an_old_client(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken")
    assert ask("Access Token: ", IAM_BRIDGE_PROMPT="bare", **held(tmp_path / "token")).text == b"t0ken"


def test_a_prompt_without_prefix_is_never_answered_from_the_settings(tmp_path: Path) -> None:
    assert ask("Access Token: ", IAM_BRIDGE_PROMPT="bare", IAM_BRIDGE_HOST=HOST).status == 1


@pytest.mark.parametrize("kind", ["confirm", "none"])
def test_questions_that_want_no_text_get_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "token").write_text("t0ken")
    answer = ask(prompt(), SSH_ASKPASS_PROMPT=kind, **held(tmp_path / "token"))
    assert (answer.status, answer.writes) == (1, [])


def test_a_second_argument_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken")
    assert ask(prompt(), "more", **held(tmp_path / "token")).writes == []


@pytest.mark.parametrize("what", ["missing", "folder", "empty"])
def test_a_file_that_holds_no_token_gives_nothing(tmp_path: Path, what: str) -> None:
    file = tmp_path / "token"
    if what == "folder":
        file.mkdir()
    elif what == "empty":
        file.touch()
    answer = ask(prompt(), **held(file))
    assert (answer.status, answer.writes) == (1, [])


def test_a_part_behind_the_end_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(make_token(1500))
    assert ask(prompt(3), **held(tmp_path / "token")).status == 1


def test_without_iam_ssh_in_path_it_says_what_to_install(tmp_path: Path) -> None:
    for tool in ("sh", "dd", "id", "rm"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    answer = ask(prompt(), shell="/bin/sh", PATH=str(tmp_path))
    assert (answer.status, answer.writes) == (1, [])
    assert "iam-ssh is not in PATH" in answer.errors


def test_a_further_part_reads_only_a_file_for_this_process(tmp_path: Path) -> None:
    folder = tmp_path / "iam-bridge"
    folder.mkdir(mode=0o700)
    (folder / "token-1-1").write_text(make_token(3000))
    (folder / f"token-{os.getpid()}-1").write_text(make_token(3000))
    answer = ask(prompt(2), XDG_RUNTIME_DIR=str(tmp_path))
    assert (answer.status, answer.writes) == (1, [])


def start_ticks() -> str:
    return Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(") ")[2].split()[19]


def test_a_further_part_follows_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "iam-bridge"
    folder.mkdir(mode=0o700)
    (tmp_path / "elsewhere").write_text(make_token(3000))
    (folder / f"token-{os.getpid()}-{start_ticks()}").symlink_to(tmp_path / "elsewhere")
    assert ask(prompt(2), XDG_RUNTIME_DIR=str(tmp_path)).writes == []


def test_the_last_part_removes_the_file_that_was_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "iam-bridge"
    folder.mkdir(mode=0o700)
    file = folder / f"token-{os.getpid()}-{start_ticks()}"
    token = make_token(2500)
    file.write_text(token)
    assert ask(prompt(2), XDG_RUNTIME_DIR=str(tmp_path)).text.decode() == token[1000:2000] + "+"
    assert file.exists()
    assert ask(prompt(3), XDG_RUNTIME_DIR=str(tmp_path)).text.decode() == token[2000:]
    assert not file.exists()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_no_remark() -> None:
    assert subprocess.run(["shellcheck", ASKPASS], check=False).returncode == 0
