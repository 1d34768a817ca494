"""`login check` says what the daemon would say, and `login try` what the real PAM stack says."""

from __future__ import annotations

import glob
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iam_bridge.cli import login_cmd
from iam_bridge.demo.iam.keys import generated_key
from iam_bridge.errors import Reason
from tests.functional.command_line import ROOT, as_nobody, call, spawn
from tests.functional.logind_process import AUDIENCE, Site, now
from tests.functional.site import Ran
from tests.vectors.bad_tokens import BAD_TOKENS, BadToken, TokenMaker

NSS_WRAPPER = "libnss_wrapper.so"
FOLDERS = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib")
needs_names = pytest.mark.skipif(
    not any(glob.glob(f"{folder}/{NSS_WRAPPER}") for folder in FOLDERS), reason="needs libnss_wrapper"
)
OTHERS = {"root": 0, "lea": 1000, "olga": 20900, "nobody": 65534}
"""Who is on the host beside us: olga's number is in our range."""
Capsys = pytest.CaptureFixture[str]


def names_of(node: Site) -> dict[str, str]:
    """Give the environment in which the host knows the site's accounts."""
    passwd = node.folder / "passwd"
    rows = (f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in (OTHERS | node.uids).items())
    passwd.write_text("".join(rows))
    (node.folder / "group").write_text("root:x:0:\n")
    return {
        "LD_PRELOAD": NSS_WRAPPER,
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": str(node.folder / "group"),
    }


def settings_of(node: Site) -> Path:
    return node.folder / "iam-bridge.yaml"


def token_file(node: Site, token: str) -> Path:
    path = node.folder / "token"
    path.touch(mode=0o600)
    path.write_bytes(token.encode("utf-8", "surrogateescape") + b"\n")
    return path


def check(node: Site, user: str, token: str | None = None, *more: object) -> Ran:
    """Run `login check` as a process, with a token or for the account phase."""
    asked = ("--phase", "account") if token is None else ("--token-file", "-")
    arguments = ("login", "check", user, "--config", settings_of(node), *asked, *more)
    return spawn(*arguments, stdin=f"{token}\n" if token else "", **names_of(node))


# ---- what is permitted -------------------------------------------------------------------------------------------


@needs_names
def test_a_good_token_is_permitted_and_the_rule_named(node: Site) -> None:
    ran = check(node, "ada", node.token("ada"))
    assert ran.status == 0
    assert ran.out == f"permit ada 20001 (login.requires hpc/users at {node.served.issuer})\n"
    assert ran.err == ""


@needs_names
def test_a_token_of_16_kilobytes_is_permitted(node: Site) -> None:
    assert check(node, "ada", node.token("ada", pad_to=16384)).status == 0


@needs_names
def test_the_option_config_may_stand_in_front(node: Site) -> None:
    ran = spawn("--config", settings_of(node), "login", "check", "ada", "--token-file", "-",
                stdin=node.token("ada"), **names_of(node))  # fmt: skip
    assert ran.status == 0
    ran = spawn("--config", settings_of(node), "login", "check", "ada", "--phase", "account", **names_of(node))
    assert (ran.status, ran.out.split()[:3]) == (0, ["permit", "ada", "20001"])


@needs_names
def test_json_says_who_by_which_rule(node: Site) -> None:
    said = check(node, "ada", node.token("ada"), "--json").json()
    sub = node.iam.person("ada").id
    assert (said["verdict"], said["name"], said["uid"]) == ("permit", "ada", 20001)
    assert said["subject"] == f"{sub}@{node.served.issuer}"
    assert said["rule"].startswith("login.requires hpc/users")
    assert not any(part in str(said) for part in node.minted[-1].split("."))


@needs_names
def test_nothing_is_recorded(node: Site) -> None:
    check(node, "ada", node.token("ada"))
    check(node, "ada", node.token("grace"))
    assert not node.receipts.parent.exists(), "a folder that root makes would not be the daemon's"


@needs_names
def test_warm_keys_need_no_network(node: Site) -> None:
    (node.folder / "state" / "keys").mkdir(parents=True)
    assert check(node, "ada", node.token("ada")).status == 0
    asked = node.served.connections
    assert check(node, "grace", node.token("grace")).status == 0
    assert node.served.connections == asked


@needs_names
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_an_unprivileged_person_gets_the_same_answer_and_leaves_nothing(node: Site) -> None:
    (node.folder / "iam").chmod(0o755)
    ran = spawn("login", "check", "ada", "--config", settings_of(node), "--token-file", "-",
                stdin=node.token("ada"), within=as_nobody(), **names_of(node))  # fmt: skip
    assert (ran.status, ran.out.split()[0]) == (0, "permit"), ran.all
    assert not (node.folder / "state").exists()


@needs_names
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_an_unreadable_view_is_said_with_a_way_out(node: Site) -> None:
    (node.folder / "view.db").chmod(0o600)
    ran = spawn("login", "check", "ada", "--config", settings_of(node), "--phase", "account", within=as_nobody(),
                **names_of(node))  # fmt: skip
    assert (ran.status, "deny: no-view" in ran.out) == (3, True)
    assert "run it as root" in ran.err


# ---- what is refused ---------------------------------------------------------------------------------------------


@needs_names
def test_another_persons_token_is_told_its_own_name(node: Site) -> None:
    ran = check(node, "ada", node.token("grace"))
    assert ran.status == 3
    assert ran.out.startswith("deny: wrong-name: This token belongs to the account grace: log in as grace.\n")


@needs_names
def test_a_missing_audience_names_the_command_that_gets_the_right_token(node: Site) -> None:
    ran = check(node, "ada", node.token("ada", audience="https://jobs.hpc.example.org"))
    assert ran.out.startswith("deny: wrong-audience: ")
    assert f"oidc-token --aud {AUDIENCE}" in ran.out


@needs_names
def test_a_suspended_person_is_refused_by_token_and_key(node: Site) -> None:
    token = node.token("ada")
    node.iam.suspend("ada")
    node.take_members()
    for ran in (check(node, "ada", token), check(node, "ada")):
        assert (ran.status, ran.out.startswith("deny: suspended: ")) == (3, True)


@needs_names
def test_a_ban_holds_at_once_and_its_reason_is_said(node: Site) -> None:
    node.ledger.add_ban(now(), "test", name="ada", reason="stolen laptop")
    node.publish()
    for ran in (check(node, "ada", node.token("ada")), check(node, "ada")):
        assert (ran.status, ran.out.startswith("deny: banned: ")) == (3, True)
        assert "stolen laptop" in ran.out


@needs_names
@pytest.mark.parametrize("user", ["root", "lea"])
def test_foreign_accounts_are_left_to_other_modules(node: Site, user: str) -> None:
    ran = check(node, user)
    assert ran.status == 3
    assert ran.out == f"foreign: {user} is no account of ours; the other PAM modules decide\n"
    assert check(node, user, node.token("ada")).out.startswith("deny: wrong-name: ")


@needs_names
def test_an_orphan_is_denied_in_both_phases(node: Site) -> None:
    assert check(node, "olga").out.startswith("deny: orphan: ")


HOSTILE_NAMES = ["../../etc", "-x", "a:b", "a\nb", "ada ", "аda", "x" * 300, "12345", "\x1b[2J", "ada\\u0000"]


@pytest.mark.parametrize("user", HOSTILE_NAMES, ids=ascii)
def test_a_hostile_name_is_no_account(node: Site, capsys: Capsys, user: str) -> None:
    ran = call(capsys, "login", "check", "--config", settings_of(node), "--phase", "account", "--", user)
    assert ran.status == 3
    assert ran.out.startswith("deny: no-account: There is no account for you here yet")


# ---- the table of bad tokens -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stranger() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site for the whole table, its keys kept already."""
    from tests.functional.logind_process import site

    with site(tmp_path_factory.mktemp("table")) as node:
        (node.folder / "state" / "keys").mkdir(parents=True)
        assert spawn("keys", "refresh", "--config", settings_of(node)).status == 0
        yield node


@pytest.fixture
def maker(warm: Site, stranger: socket.socket) -> TokenMaker:
    """Make tokens of the site's own issuer, for ada, at this second."""
    rsa, ec = generated_key("iam", "rsa1").private, generated_key("iam", "ec1").private
    return TokenMaker(
        warm.served.issuer, AUDIENCE, int(time.time()), sub=warm.iam.person("ada").id,
        stranger=f"https://127.0.0.1:{stranger.getsockname()[1]}/", rsa_key=rsa, ec_key=ec,
    )  # fmt: skip


def refused_as(ran: Ran, case: BadToken) -> bool:
    return any(ran.out.startswith(f"deny: {reason.value}: ") for reason in case.reasons)


def test_what_the_table_is_made_from_is_good(
    warm: Site, maker: TokenMaker, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iam_bridge.cli.decision._host_uid", warm.uids.get)
    for good in (maker.token(), maker.ec_token()):
        ran = call(
            capsys, "login", "check", "ada", "--config", settings_of(warm), "--token-file", token_file(warm, good)
        )
        assert (ran.status, ran.out.split()[0]) == (0, "permit")


@pytest.mark.parametrize("case", BAD_TOKENS, ids=lambda case: case.sentence)
def test_a_bad_token_is_refused_for_its_reason_at_once_and_asks_no_stranger(
    case: BadToken, warm: Site, maker: TokenMaker, stranger: socket.socket, capsys: Capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("iam_bridge.cli.decision._host_uid", warm.uids.get)
    text = case.build(maker)
    path = token_file(warm, text)
    start = time.perf_counter()
    ran = call(capsys, "login", "check", "ada", "--config", settings_of(warm), "--token-file", path)
    took = time.perf_counter() - start
    assert ran.status == 3
    assert refused_as(ran, case), ran.out
    assert took < 1.0
    assert not any(len(part) > 20 and part in ran.all for part in text.split("."))
    with pytest.raises(BlockingIOError):
        stranger.accept()


THROUGH_A_PROCESS = {
    "alg none and no signature", "HS256 keyed with the public key", "every byte but zero", "a megabyte that is well signed",
    "an untrusted issuer that listens", "claims nested 5000 deep", "a password", "nothing at all",
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [case for case in BAD_TOKENS if case.sentence in THROUGH_A_PROCESS], ids=lambda case: case.sentence
)
def test_the_same_through_a_process(case: BadToken, warm: Site, maker: TokenMaker, stranger: socket.socket) -> None:
    data = case.build(maker).encode("utf-8", "surrogateescape") + b"\n"
    ran = spawn("login", "check", "ada", "--config", settings_of(warm), "--token-file", "-", stdin=data)
    assert (ran.status, refused_as(ran, case)) == (3, True), ran.all
    with pytest.raises(BlockingIOError):
        stranger.accept()


def test_every_case_of_the_process_table_is_in_the_table() -> None:
    assert {case.sentence for case in BAD_TOKENS} >= THROUGH_A_PROCESS


# ---- when the issuer does not answer -----------------------------------------------------------------------------


def test_an_issuer_that_is_down_is_said(node: Site, capsys: Capsys) -> None:
    node.iam.fault("server-error")
    token = node.token("ada")
    ran = call(capsys, "login", "check", "ada", "--config", settings_of(node), "--token-file", token_file(node, token))
    assert ran.status == 3
    assert ran.out.startswith(f"deny: {Reason.NO_KEYS.value}: ")
    assert "answered 500" in ran.out
    assert ran.err == ""


@needs_names
def test_introspection_is_asked_where_the_site_wants_it(node: Site) -> None:
    secret = node.folder / "login.secret"
    secret.touch(mode=0o600)
    secret.write_text("login-secret\n")
    node.write_settings(more=f"    validation: both\n    client: {{id: login-client, secret_file: {secret}}}")
    token = node.token("ada")
    assert check(node, "ada", token).status == 0
    node.iam.revoke(token)
    assert check(node, "ada", token).out.startswith("deny: inactive: ")


# ---- arguments ---------------------------------------------------------------------------------------------------

ARGUMENTS = [
    ("no token for the auth phase", ("ada",), 2, "--token-file FILE, or - for standard input"),
    (
        "a token for the account phase",
        ("ada", "--phase", "account", "--token-file", "/dev/null"),
        2,
        "looks at no token",
    ),
    ("a phase that there is none of", ("ada", "--phase", "password"), 2, "'password' is not one of"),
    ("no name", ("--phase", "account"), 2, "USER"),
    ("a name of 1025 bytes", ("x" * 1025, "--phase", "account"), 2, "1 to 1024 bytes"),
    ("an empty name", ("", "--phase", "account"), 2, "1 to 1024 bytes"),
    ("a token file that is missing", ("ada", "--token-file", "/nonexistent"), 2, "No such file or directory"),
    ("a token file that is a folder", ("ada", "--token-file", "/"), 2, "Is a directory"),
    (
        "settings that are missing",
        ("ada", "--phase", "account", "--config", "/nonexistent"),
        2,
        "cannot read /nonexistent",
    ),
]


@pytest.mark.parametrize(("sentence", "arguments", "status", "said"), ARGUMENTS, ids=[row[0] for row in ARGUMENTS])
def test_bad_arguments(
    node: Site, capsys: Capsys, sentence: str, arguments: tuple[str, ...], status: int, said: str
) -> None:
    given = arguments if "--config" in arguments else (*arguments, "--config", settings_of(node))
    ran = call(capsys, "login", "check", *given)
    assert (ran.status, said in ran.err) == (status, True), ran.err
    assert ran.out == ""


def test_a_token_file_that_others_can_read_is_pointed_out(node: Site, capsys: Capsys) -> None:
    path = token_file(node, "x")
    path.chmod(0o644)
    ran = call(capsys, "login", "check", "ada", "--config", settings_of(node), "--token-file", path)
    assert "open to others (mode 0644)" in ran.err


def test_a_token_on_the_command_line_is_not_taken(node: Site, capsys: Capsys) -> None:
    ran = call(capsys, "login", "check", "ada", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA", "--config", settings_of(node))
    assert ran.status == 2


def test_help_has_an_example_for_each(capsys: Capsys) -> None:
    for words in (("login", "check"), ("login", "try")):
        ran = call(capsys, *words, "--help")
        assert f"  Example:\n    iam-bridge {' '.join(words)}" in ran.out


# ---- login try: the real libpam, the real module, the real daemon -------------------------------------------------

MODULE = ROOT / "pam_module" / "build" / "pam_iam.so"


@pytest.fixture(scope="module")
def module() -> Path:
    subprocess.run(["make", "-s", "-C", ROOT / "pam_module"], check=True)
    return MODULE


@pytest.fixture
def stack(running: Site, module: Path) -> Path:
    """A folder with a stack of our module that asks the running daemon."""
    folder = running.folder / "pam.d"
    folder.mkdir()
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    line = f"{module} socket={running.socket} daemon={uid} uids=20000-59999"
    (folder / "iam").write_text(
        f"auth [success=done ignore=ignore default=die] {line}\nauth required pam_deny.so\n"
        f"account [success=ok ignore=ignore default=die] {line}\naccount required pam_permit.so\n"
    )
    return folder


def trial(node: Site, stack: Path, user: str, token: str | bytes, *more: str) -> Ran:
    data = token if isinstance(token, bytes) else token.encode()
    arguments = ("login", "try", user, "--token-file", "-", "--service", "iam", "--confdir", stack, *more)
    return spawn(*arguments, stdin=data + b"\n", **names_of(node))


@needs_names
@pytest.mark.parametrize("length", [None, 1001, 1023, 4000, 16384])
def test_a_token_of_any_length_gets_through_the_real_stack(running: Site, stack: Path, length: int | None) -> None:
    ran = trial(running, stack, "ada", running.token("ada", pad_to=length))
    assert (ran.status, ran.out.splitlines()[0]) == (0, "permit"), ran.all
    assert "auth     success" in ran.out
    assert "account  success" in ran.out


@needs_names
def test_the_real_stack_tells_another_persons_token_its_name(running: Site, stack: Path) -> None:
    ran = trial(running, stack, "ada", running.token("grace"))
    assert ran.status == 3
    assert ran.out.splitlines()[0] == "deny: maximum number of tries (in the phase auth)"
    assert "message  This token belongs to the account grace: log in as grace." in ran.out


@needs_names
def test_the_trial_as_json(running: Site, stack: Path) -> None:
    said = trial(running, stack, "ada", "correct horse battery staple", "--json").json()
    assert (said["permitted"], said["phases"]) == (False, {"auth": "maximum number of tries"})
    assert said["prompts"] == ["Access Token: "]
    assert said["messages"][0].startswith("This is no complete access token")


@needs_names
def test_a_daemon_that_is_down_is_no_refusal(running: Site, stack: Path) -> None:
    running.stop()
    ran = trial(running, stack, "ada", running.token("ada"))
    assert (ran.status, "information unavailable" in ran.out) == (75, True)


@needs_names
def test_a_stack_that_is_wrong_fails(running: Site, stack: Path) -> None:
    (stack / "iam").write_text(f"auth required {MODULE} uid=1\naccount required {MODULE} uid=1\n")
    ran = trial(running, stack, "ada", running.token("ada"))
    assert (ran.status, "deny: service error" in ran.out) == (1, True)


TRIALS = [
    ("no such service", ("--service", "iam2"), b"x", "there is no PAM service 'iam2'"),
    ("a service that climbs", ("--service", "../iam"), b"x", "is no name of a PAM service"),
    ("no token", (), b"", ""),
    ("a NUL byte in the token", (), b"a\0b", "NUL byte"),
]


@pytest.mark.parametrize(("sentence", "more", "token", "said"), TRIALS, ids=[row[0] for row in TRIALS])
def test_what_cannot_be_tried(tmp_path: Path, sentence: str, more: tuple[str, ...], token: bytes, said: str) -> None:
    (tmp_path / "iam").write_text("auth required pam_deny.so\naccount required pam_deny.so\n")
    arguments = ("login", "try", "ada", "--token-file", "-", "--confdir", tmp_path, "--service", "iam", *more)
    ran = spawn(*arguments, stdin=token)
    if said:
        assert (ran.status, said in ran.err) == (2, True), ran.all
    else:
        assert (ran.status, ran.out.startswith("deny: ")) == (3, True)


def test_messages_of_other_modules_in_any_encoding_are_shown(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"caf\xe9 \x1b[31m\n")
    echo = f"auth optional pam_echo.so file={tmp_path / 'hello'}\nauth required pam_deny.so\n"
    (tmp_path / "iam").write_text(echo)
    ran = spawn("login", "try", "ada", "--token-file", "-", "--confdir", tmp_path, "--service", "iam", stdin="x")
    assert ran.status == 3
    assert "caf� ?[31m" in ran.out


def test_the_name_limit_is_that_of_the_module() -> None:
    assert f"MAX_USER = {login_cmd.NAME_MAX}," in (ROOT / "pam_module" / "pam_iam.c").read_text()
