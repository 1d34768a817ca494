"""What doctor thinks: each judgement by a table, the good beside what breaks a login."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from iam_bridge.model.account import IdRange
from iam_bridge.policy.doctor import (
    Check,
    DaemonFacts,
    Found,
    Mark,
    Wanted,
    judge_clock,
    judge_daemon,
    judge_keys,
    judge_members,
    judge_path,
    judge_space,
)
from iam_bridge.policy.doctor_host import judge_accounts, judge_breakglass, judge_nsswitch, judge_ranges, judge_user
from iam_bridge.policy.doctor_pam import (
    MODULE,
    PamInclude,
    PamLine,
    Wants,
    breakglass_of,
    judge_stack,
    parse_options,
    parse_pam,
)
from iam_bridge.policy.doctor_sshd import DROP_IN, first_values, judge_sshd, parse_sshd, value_of

OK, WARN, BAD = Mark.OK, Mark.WARN, Mark.BAD
OURS = IdRange(20000, 59999)
SHIPPED = (Path(__file__).parents[2] / "config" / "pam.d" / "sshd-iam-bridge").read_text()


def marks(checks: Sequence[Check]) -> dict[str, Mark]:
    """Give the worst verdict under each name."""
    worst: dict[str, Mark] = {}
    for check in checks:
        assert (check.verdict is OK) == (not check.fix), f"{check} mends nothing, or has nothing to mend"
        if list(Mark).index(check.verdict) >= list(Mark).index(worst.get(check.what, OK)):
            worst[check.what] = check.verdict
    return worst


def only(checks: Sequence[Check], what: str) -> Check:
    return next(check for check in checks if check.what == what)


# ---- name service ------------------------------------------------------------------------------------------------

NSSWITCH = [
    ("files alone for the layout etc", "etc", "files systemd", OK),
    ("nothing said: glibc takes files", "etc", None, OK),
    ("compat stands for files", "etc", "compat", OK),
    ("no local accounts at all", "etc", "sss", BAD),
    ("extrausers behind files", "extrausers", "files extrausers systemd", OK),
    ("extrausers missing", "extrausers", "files systemd", BAD),
    ("extrausers missing because nothing is said", "extrausers", None, BAD),
    ("extrausers before files", "extrausers", "extrausers files", WARN),
    ("the search stops before extrausers", "extrausers", "files [NOTFOUND=return] extrausers", BAD),
    ("an action that does not stop it", "extrausers", "files [SUCCESS=merge] extrausers", OK),
    ("it stops at everything else than not found", "extrausers", "files [!NOTFOUND=return] extrausers", OK),
    ("a comment behind it", "extrausers", "files extrausers # [NOTFOUND=return]", OK),
]


@pytest.mark.parametrize(("sentence", "layout", "order", "verdict"), NSSWITCH, ids=[row[0] for row in NSSWITCH])
def test_nsswitch(sentence: str, layout: str, order: str | None, verdict: Mark) -> None:
    text = "# nsswitch\nhosts: dns\n:x\n" + "".join(
        f"{base}:\t{order}\n" for base in ("passwd", "group", "shadow") if order is not None
    )
    found = marks(judge_nsswitch(text, layout))
    assert found == dict.fromkeys(("nsswitch passwd", "nsswitch group", "nsswitch shadow"), verdict)


RANGES = [
    ("nothing said", "", {}),
    ("useradd stays below ours", "UID_MIN 1000\nUID_MAX 19999\n", {"login.defs UID_MIN": OK}),
    ("Debian's own UID_MAX reaches into ours", "UID_MIN\t1000\nUID_MAX\t60000\n", {"login.defs UID_MIN": WARN}),
    ("half a range is none", "UID_MIN 1000\n", {}),
    ("a comment is none", "#UID_MIN 1000\n#UID_MAX 60000\n", {}),
    ("system users in ours", "SYS_UID_MIN 100\nSYS_UID_MAX 20000\n", {"login.defs SYS_UID_MIN": BAD}),
    ("subordinate ids in ours", "SUB_GID_MIN 50000\nSUB_GID_MAX 600000\n", {"login.defs SUB_GID_MIN": BAD}),
    ("subordinate ids beyond", "SUB_UID_MIN 100000\nSUB_UID_MAX 600000\n", {"login.defs SUB_UID_MIN": OK}),
]


@pytest.mark.parametrize(("sentence", "text", "expected"), RANGES, ids=[row[0] for row in RANGES])
def test_ranges_of_login_defs(sentence: str, text: str, expected: dict[str, Mark]) -> None:
    assert marks(judge_ranges(text, OURS, OURS)) == expected


ACCOUNTS = [
    ("no accounts yet", [], OK, "no accounts"),
    ("all known", [("ada", 20001, 20001)], OK, "1 of 9"),
    ("one unknown", [("ada", 20001, 20001), ("ben", 20002, None)], BAD, "unknown here: ben"),
    ("one is somebody else", [("ada", 20001, 1001), ("ben", 20002, None)], BAD, "ada is 1001 and not 20001"),
    ("many unknown", [(f"u{i}", i, None) for i in range(9)], BAD, "u4 and 4 more"),
]


@pytest.mark.parametrize(("sentence", "pairs", "verdict", "said"), ACCOUNTS, ids=[row[0] for row in ACCOUNTS])
def test_accounts_in_nss(sentence: str, pairs: list[tuple[str, int, int | None]], verdict: Mark, said: str) -> None:
    check = judge_accounts(pairs, 9)
    assert check.verdict is verdict
    assert said in check.found


def test_users_that_services_run_as() -> None:
    assert [judge_user("x", "x", uid).verdict for uid in (None, 0, 990)] == [BAD, BAD, OK]


def test_breakglass_group() -> None:
    found = [judge_breakglass(*row) for row in (("", None), ("glass", None), ("glass", ()), ("glass", ("lea",)))]
    assert [check.verdict for check in found] == [WARN, BAD, BAD, OK]
    assert found[3].found == "glass: lea"


# ---- files -------------------------------------------------------------------------------------------------------

FILE = Wanted(False, frozenset({0, 990}), 0o022, "because")
FOLDER = Wanted(True, frozenset({0}), 0o077, "because", missing=WARN, make="make it")
PATHS = [
    ("a file as it should be", Found(stat.S_IFREG | 0o644, 0), FILE, OK, ""),
    ("a file of the other owner", Found(stat.S_IFREG | 0o640, 990), FILE, OK, ""),
    ("a file of a stranger", Found(stat.S_IFREG | 0o644, 1000), FILE, BAD, "chown 0 /p; because"),
    ("a file that a group may write", Found(stat.S_IFREG | 0o664, 0), FILE, BAD, "chmod 0644 /p; because"),
    ("a folder where a file should be", Found(stat.S_IFDIR | 0o755, 0), FILE, BAD, "put a file there; because"),
    ("a file where a folder should be", Found(stat.S_IFREG | 0o600, 0), FOLDER, BAD, "put a folder there; because"),
    ("a folder that is open", Found(stat.S_IFDIR | 0o755, 0), FOLDER, BAD, "chmod 0700 /p; because"),
    ("a folder that is closed", Found(stat.S_IFDIR | 0o700, 0), FOLDER, OK, ""),
    ("a sticky folder keeps its bit", Found(stat.S_IFDIR | 0o1777, 0), FOLDER, BAD, "chmod 1700 /p; because"),
    ("a folder that is missing and may be", Found(is_missing=True), FOLDER, WARN, "make it"),
    ("a file that may not be looked at", Found(error="Permission denied"), FILE, WARN, "run doctor as root"),
]


@pytest.mark.parametrize(("sentence", "found", "wanted", "verdict", "fix"), PATHS, ids=[row[0] for row in PATHS])
def test_paths(sentence: str, found: Found, wanted: Wanted, verdict: Mark, fix: str) -> None:
    check = judge_path("x", "/p", found, wanted)
    assert check.verdict is verdict
    assert check.fix.startswith(fix)
    assert check.fix or not fix


MIB = 1 << 20
SPACES = [
    ("plenty", 900 * MIB, 5000, OK),
    ("plenty, and no limit of inodes", 900 * MIB, None, OK),
    ("getting tight", 500 * MIB, None, WARN),
    ("none left", 10 * MIB, 5000, BAD),
    ("no inodes left", 900 * MIB, 3, BAD),
]


@pytest.mark.parametrize(("sentence", "free", "inodes", "verdict"), SPACES, ids=[row[0] for row in SPACES])
def test_room_for_receipts(sentence: str, free: int, inodes: int | None, verdict: Mark) -> None:
    assert judge_space("x", "/p", free, inodes).verdict is verdict


# ---- time, keys, members, daemon ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew", "verdict", "said"),
    [(0.4, OK, "as the issuer's"), (-3.0, OK, "3 s behind"), (8.0, WARN, "8 s ahead"), (-30.5, BAD, "behind"),
     (31.0, BAD, "ahead"), (30.0, WARN, "ahead"), (None, BAD, "not compared: no route")],
)  # fmt: skip
def test_clock(skew: float | None, verdict: Mark, said: str) -> None:
    check = judge_clock("https://iam.example.org/", skew, "no route")
    assert (check.verdict, said in check.found) == (verdict, True)


HOUR = 3600
KEYS = [
    ("none kept", None, False, "", WARN, "none kept"),
    ("none kept and why", None, False, "no route", WARN, "none kept (no route)"),
    ("fresh", 60, True, "", OK, "60 s old"),
    ("older than a refresh", 8 * HOUR, True, "", OK, "8 h old"),
    ("much older than a refresh", 13 * HOUR, True, "", WARN, "13 h old"),
    ("too old", 72 * HOUR, False, "", BAD, "3 d old, too old"),
]


@pytest.mark.parametrize(
    ("sentence", "age", "usable", "failure", "verdict", "said"), KEYS, ids=[row[0] for row in KEYS]
)
def test_keys(sentence: str, age: float | None, usable: bool, failure: str, verdict: Mark, said: str) -> None:
    check = judge_keys("https://iam.example.org/", age, 6 * HOUR, usable=usable, failure=failure)
    assert (check.verdict, said in check.found) == (verdict, True)


@pytest.mark.parametrize(
    ("age", "verdict", "said"),
    [(None, BAD, "no complete list"), (60, OK, "60 s"), (900, WARN, "15 min"), (86400, BAD, "nobody"), (-60, OK, "s old"),
     (-3600, BAD, "60 min in the future")],
)  # fmt: skip
def test_age_of_the_members(age: float | None, verdict: Mark, said: str) -> None:
    check = judge_members("https://iam.example.org/", age, 900, 86400)
    assert (check.verdict, said in check.found) == (verdict, True)


DAEMONS = [
    ("it answers", DaemonFacts(peer_uid=990, wanted_uid=990, says_foreign=True, took_s=0.0004), OK, "0.4 ms"),
    ("it answers slowly", DaemonFacts(peer_uid=990, wanted_uid=990, says_foreign=True, took_s=0.9), WARN, "900"),
    ("it does not run", DaemonFacts(problem="Connection refused"), BAD, "Connection refused"),
    ("we may not ask", DaemonFacts(is_forbidden=True), WARN, "root alone"),
    ("it would not answer us", DaemonFacts(peer_uid=990, wanted_uid=990), WARN, "uid 990 serves"),
    ("somebody else answers", DaemonFacts(peer_uid=1000, wanted_uid=990), BAD, "uid 1000, not by 990"),
    ("there is no such user", DaemonFacts(peer_uid=990, wanted_uid=None), BAD, "not by None"),
    ("it takes root for ours", DaemonFacts(peer_uid=990, wanted_uid=990, says_foreign=False), BAD, "root is none"),
]


@pytest.mark.parametrize(("sentence", "facts", "verdict", "said"), DAEMONS, ids=[row[0] for row in DAEMONS])
def test_the_daemon(sentence: str, facts: DaemonFacts, verdict: Mark, said: str) -> None:
    check = judge_daemon("/run/login.sock", facts)
    assert (check.verdict, said in check.found) == (verdict, True)


# ---- PAM ---------------------------------------------------------------------------------------------------------

WANTS = Wants("/run/iam-bridge/login.sock", "iam-bridge-login", 990, OURS)
COMMON_AUTH = (
    "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n"
)
COMMON_ACCOUNT = (
    "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\naccount requisite pam_deny.so\n"
    "account required pam_permit.so\n"
)


def lines_of(text: str) -> list[PamLine]:
    """Read a stack, its includes replaced by what the distribution has."""
    text = text.replace("@include common-auth\n", COMMON_AUTH).replace("@include common-account\n", COMMON_ACCOUNT)
    return [line for line in parse_pam(text, "sshd") if isinstance(line, PamLine)]


def stack(**lines: str) -> str:
    """Give a small stack, one phase replaced."""
    line = f"{MODULE} uids=20000-59999"
    phases = {
        "auth": f"auth [success=done ignore=ignore default=die] {line}\nauth required pam_deny.so\n",
        "account": f"account [success=ok ignore=ignore default=die] {line}\n",
        "session": f"session required {line}\n",
    }
    return "".join((phases | lines).values()).replace("OURS", line)


def test_the_shipped_stack_is_good() -> None:
    checks = judge_stack("sshd", lines_of(SHIPPED), WANTS)
    assert set(marks(checks).values()) == {OK}, checks
    assert only(checks, "PAM sshd passwords").found.startswith("closed by sshd:")


def test_the_small_stack_is_good() -> None:
    assert set(marks(judge_stack("sshd", lines_of(stack()), WANTS)).values()) == {OK}


@pytest.mark.parametrize("phase", ["auth", "account", "session"])
def test_a_phase_without_our_module_is_bad(phase: str) -> None:
    found = marks(judge_stack("sshd", lines_of(stack(**{phase: f"{phase} required pam_unix.so\n"})), WANTS))
    assert found[f"PAM sshd {phase}"] is BAD


def test_a_stack_without_our_module_at_all_is_bad() -> None:
    found = judge_stack("sshd", lines_of(COMMON_AUTH + COMMON_ACCOUNT), WANTS)
    assert [check.verdict for check in found] == [BAD] * 3


CONTROLS = [
    ("sufficient forgets a no", "auth", "sufficient", BAD, "discards a denial (maxtries"),
    ("optional forgets a no", "auth", "optional", BAD, "discards a denial"),
    ("default=ignore forgets a no", "account", "[success=ok default=ignore]", BAD, "discards a denial (perm_denied"),
    ("one word forgets one no", "account", "[success=ok ignore=ignore acct_expired=ignore default=die]", BAD,
     "(acct_expired)"),
    ("a jump over a no forgets it", "account", "[success=ok ignore=ignore perm_denied=1 default=die]", BAD,
     "(perm_denied)"),
    ("required keeps a no", "account", "required", OK, "required"),
    ("requisite keeps a no", "session", "requisite", OK, "requisite"),
    ("what is not said is a no", "account", "[success=ok ignore=ignore]", OK, "ignore"),
    ("default=die refuses root", "account", "[success=ok default=die]", BAD, "refuses foreign accounts"),
    ("a permit that is ignored opens nothing", "auth", "[success=ignore ignore=ignore default=die]", BAD, "nothing of"),
    ("a permit that is not final", "auth", "required", WARN, "asks other modules"),
    ("a jump over the password modules is final", "auth", "[success=2 ignore=ignore default=die]", OK, "success=2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "phase", "control", "verdict", "said"), CONTROLS, ids=[row[0] for row in CONTROLS]
)
def test_control_words(sentence: str, phase: str, control: str, verdict: Mark, said: str) -> None:
    behind = "auth required pam_deny.so\n" if phase == "auth" else ""
    checks = judge_stack("sshd", lines_of(stack(**{phase: f"{phase} {control} OURS\n{behind}"})), WANTS)
    check = only(checks, f"PAM sshd {phase}")
    assert (check.verdict, said in check.found) == (verdict, True), check


DENY = "auth required pam_deny.so\n"
ORDERS = [
    ("account ends before us", "account", "account sufficient pam_unix.so\naccount required OURS\n", BAD),
    ("account jumps over us", "account", "account [success=1 default=ignore] pam_unix.so\naccount required OURS\n", BAD),
    ("account jumps, but not over us", "account",
     "account [success=1 default=ignore] pam_unix.so\naccount requisite pam_deny.so\naccount required OURS\n", OK),
    ("an expired password ends account before us", "account",
     "account [success=ok new_authtok_reqd=done default=ignore] pam_unix.so\naccount required OURS\n", BAD),
    ("nologin before us ends nothing", "account", "account required pam_nologin.so\naccount required OURS\n", OK),
    ("passwords before tokens", "auth",
     f"auth sufficient pam_unix.so\nauth [success=done ignore=ignore default=die] OURS\n{DENY}", WARN),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "phase", "text", "verdict"), ORDERS, ids=[row[0] for row in ORDERS])
def test_what_stands_before_our_line(sentence: str, phase: str, text: str, verdict: Mark) -> None:
    found = marks(judge_stack("sshd", lines_of(stack(**{phase: text})), WANTS))
    assert found[f"PAM sshd {phase}"] is verdict


def test_done_in_a_substack_ends_only_the_substack() -> None:
    inner = parse_pam("account sufficient pam_unix.so\n", "common", is_inner=True)
    lines = [line for line in (*inner, *lines_of(stack())) if isinstance(line, PamLine)]
    assert marks(judge_stack("sshd", lines, WANTS))["PAM sshd account"] is OK


OURS_AUTH = "auth [success=done ignore=ignore default=die] OURS\n"
PASSWORDS = [
    ("deny behind our line closes them", OURS_AUTH + DENY, OK),
    ("nothing behind our line closes them", OURS_AUTH, OK),
    ("the distribution's lines open them", OURS_AUTH + COMMON_AUTH, WARN),
    ("a deny that is forgotten closes nothing", OURS_AUTH + "auth optional pam_deny.so\n", WARN),
]


@pytest.mark.parametrize(("sentence", "text", "verdict"), PASSWORDS, ids=[row[0] for row in PASSWORDS])
def test_passwords_of_local_accounts(sentence: str, text: str, verdict: Mark) -> None:
    found = marks(judge_stack("sshd", lines_of(stack(auth=text)), WANTS))
    assert found["PAM sshd passwords"] is verdict


OPTIONS = [
    ("as the settings say", "uids=20000-59999", OK, "uids=20000-59999"),
    ("all that there is", ("uids=1000-1000,20000-60000 socket=/run/iam-bridge/login.sock daemon=990 timeout=5 debug"
     " breakglass=glass"), OK, "1000-1000, 20000-60000"),
    ("a misspelt option", "uid=20000-59999", BAD, "uid=20000-59999 is not understood"),
    ("a flag that is none", "verbose", BAD, "verbose is not understood"),
    ("a range upside down", "uids=59999-20000", BAD, "not understood"),
    ("a range with root", "uids=0-59999", BAD, "not understood"),
    ("a range beyond 32 bits", "uids=1-4294967295", BAD, "not understood"),
    ("ranges twice", "uids=20000-59999 uids=1-2", BAD, "uids=1-2 is not understood"),
    ("no time at all", "uids=20000-59999 timeout=0", BAD, "timeout=0"),
    ("too much time", "uids=20000-59999 timeout=61", BAD, "timeout=61"),
    ("a relative socket", "uids=20000-59999 socket=login.sock", BAD, "socket=login.sock is not"),
    ("another socket", "uids=20000-59999 socket=/run/x", BAD, "socket=/run/x"),
    ("another daemon", "uids=20000-59999 daemon=root", BAD, "daemon=root"),
    ("no ranges", "", BAD, "leaves out numbers"),
    ("ranges that are too short", "uids=20000-50000", BAD, "leaves out numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "options", "verdict", "said"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_options_of_the_module(sentence: str, options: str, verdict: Mark, said: str) -> None:
    text = stack().replace("uids=20000-59999", options)
    check = only(judge_stack("sshd", lines_of(text), WANTS), f"options of {MODULE}")
    assert (check.verdict, said in check.found) == (verdict, True), check


def test_adopted_people_must_be_named() -> None:
    wants = Wants(WANTS.socket, WANTS.daemon, None, OURS, (1005, 30000))
    check = only(judge_stack("sshd", lines_of(stack()), wants), f"options of {MODULE}")
    assert (check.verdict, check.fix) == (BAD, "add ,1005-1005")
    named = stack().replace("20000-59999", "20000-59999,1005-1005")
    assert only(judge_stack("sshd", lines_of(named), wants), f"options of {MODULE}").verdict is OK


def test_lines_that_differ_are_pointed_out() -> None:
    text = stack(session=f"session required {MODULE} uids=20000-60000\n")
    assert marks(judge_stack("sshd", lines_of(text), WANTS))[f"options of {MODULE}"] is WARN


def test_the_breakglass_group_is_that_of_the_account_line() -> None:
    assert breakglass_of(lines_of(stack())) == ""
    assert breakglass_of(lines_of(stack(account=f"account required {MODULE} breakglass=glass\n"))) == "glass"
    assert breakglass_of(lines_of(stack(account=""))) == ""
    assert parse_options(["breakglass=a:b"]).problems == ("breakglass=a:b",)


def test_service_files_are_read_as_libpam_reads_them() -> None:
    text = (
        "# comment\n\nAUTH required \\\n  /lib/security/pam_iam.so uids=1-2 # comment\n-session optional pam_x.so [a b]\n"
        "@include common-auth\naccount include system\nauth substack inner\nauth required\nauth required pam_last.so \\\n"
    )
    read = parse_pam(text, "f")
    assert read == [
        PamLine("auth", "required", "/lib/security/pam_iam.so", ("uids=1-2",), "f:3"),
        PamLine("session", "optional", "pam_x.so", ("[a b]",), "f:5"),
        PamInclude("", "common-auth", is_substack=False),
        PamInclude("account", "system", is_substack=False),
        PamInclude("auth", "inner", is_substack=True),
    ]
    assert isinstance(read[0], PamLine)
    assert read[0].name == MODULE


# ---- sshd --------------------------------------------------------------------------------------------------------

GOOD_SSHD = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n"
SSHD = [
    ("as it should be", GOOD_SSHD, {}),
    ("nothing said: UsePAM is off", "", {"sshd UsePAM": BAD, "sshd PasswordAuthentication": WARN}),
    ("Debian's own file", "KbdInteractiveAuthentication no\nUsePAM yes\n",
     {"sshd KbdInteractiveAuthentication": BAD, "sshd PasswordAuthentication": WARN}),
    ("the first value wins", f"kbdinteractiveauthentication no\n{GOOD_SSHD}", {"sshd KbdInteractiveAuthentication": BAD}),
    ("the old name counts", f"ChallengeResponseAuthentication=no\n{GOOD_SSHD}", {"sshd KbdInteractiveAuthentication": BAD}),
    ("methods without ours", f"{GOOD_SSHD}AuthenticationMethods publickey\n", {"sshd AuthenticationMethods": BAD}),
    ("methods with ours", f"{GOOD_SSHD}AuthenticationMethods publickey,keyboard-interactive:pam\n", {}),
    ("any method", f"{GOOD_SSHD}AuthenticationMethods any\n", {}),
    ("an empty list of methods", f'{GOOD_SSHD}AuthenticationMethods ""\n', {}),
    ("little time", f"{GOOD_SSHD}LoginGraceTime 10\n", {"sshd LoginGraceTime": WARN}),
    ("time in minutes", f"{GOOD_SSHD}LoginGraceTime 2m\n", {}),
    ("no limit of time", f"{GOOD_SSHD}LoginGraceTime 0\n", {}),
    ("a Match block decides for some only", f"{GOOD_SSHD}Match User ada\nPasswordAuthentication yes\nX11Forwarding no\n",
     {"sshd Match": WARN}),
    ("Match all ends the conditions", f"Match User ada\nX11Forwarding no\nMatch all\n{GOOD_SSHD}", {}),
    ("a comment says nothing", f"# UsePAM no\n\n  #UsePAM no\n{GOOD_SSHD}", {}),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "text", "expected"), SSHD, ids=[row[0] for row in SSHD])
def test_sshd_settings(sentence: str, text: str, expected: dict[str, Mark]) -> None:
    found = marks(judge_sshd(parse_sshd(text, "sshd_config"), {}, has_drop_in=False))
    assert {what: mark for what, mark in found.items() if mark is not OK} == expected


def test_the_place_that_decides_is_named() -> None:
    lines = parse_sshd("KbdInteractiveAuthentication no\n", "/etc/ssh/sshd_config.d/05-site.conf")
    lines += parse_sshd(GOOD_SSHD, f"/etc/ssh/{DROP_IN}")
    check = only(judge_sshd(lines, {}, has_drop_in=True), "sshd KbdInteractiveAuthentication")
    assert "first in /etc/ssh/sshd_config.d/05-site.conf:1" in check.found


def test_a_drop_in_that_is_not_read_is_bad() -> None:
    assert marks(judge_sshd(parse_sshd(GOOD_SSHD, "sshd_config"), {}, has_drop_in=True))["sshd drop-in"] is BAD
    assert "sshd drop-in" not in marks(judge_sshd(parse_sshd(GOOD_SSHD, f"/etc/ssh/{DROP_IN}"), {}, has_drop_in=True))


def test_what_sshd_says_itself_counts_more_than_its_files() -> None:
    lines = parse_sshd(GOOD_SSHD, "sshd_config")
    said = {"usepam": "yes", "kbdinteractiveauthentication": "no", "passwordauthentication": "no"}
    found = marks(judge_sshd(lines, said, has_drop_in=False))
    assert (found["sshd KbdInteractiveAuthentication"], found["sshd files"]) == (BAD, WARN)
    assert "sshd files" not in marks(
        judge_sshd(lines, said | {"kbdinteractiveauthentication": "yes"}, has_drop_in=False)
    )


def test_the_pam_service_is_sshds_own_word() -> None:
    lines = first_values(parse_sshd("PAMServiceName sshd-iam-bridge\n", "x"))
    assert value_of("pamservicename", lines, {}) == "sshd-iam-bridge"
    assert value_of("pamservicename", lines, {"pamservicename": "other"}) == "other"
    assert value_of("pamservicename", {}, {}) == "sshd"
