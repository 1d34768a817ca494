"""What the login service answers, over real views and ban lists: every reason, every phase, and what is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.errors import Reason, SourceUnavailable, TokenRefused
from iam_bridge.model.account import LockReason
from iam_bridge.policy.login import NOT_NOW
from pam_module.asking import JUNK_DETAIL, UNPROVEN_TEXT
from pam_module.errands import TooLate
from pam_module.wire import Phase, Reply, Request, Status
from tests.unit.build import ISSUER, LOGIN_RULES, account, subject
from tests.unit.service_rig import HOST, Rig, age_members, lock, make_rig, members, token
from tests.unit.tokens import MAKER
from tests.vectors.bad_tokens import BAD_TOKENS

JUNK = "\b\n\r\x7fINCORRECT" * 100


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = make_rig(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def lasting_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Give one rig for a whole table that changes nothing of it."""
    made = make_rig(tmp_path_factory.mktemp("lasting"))
    yield made
    made.ledger.close()


# --- who


WHO = [
    ("ours", "ada", Status.PROMPT),
    ("ours and locked", "ben", Status.PROMPT),
    ("adopted, with a uid outside our ranges", "gus", Status.PROMPT),
    ("unknown to ledger and host", "nemo", Status.PROMPT),
    ("an orphan", "olga", Status.PROMPT),
    ("root", "root", Status.FOREIGN),
    ("a daemon", "postgres", Status.FOREIGN),
    ("a local person", "lea", Status.FOREIGN),
    ("nonsense", "../../etc/passwd\n", Status.PROMPT),
]


@pytest.mark.parametrize(("user", "status"), [row[1:] for row in WHO], ids=[row[0] for row in WHO])
def test_foreign_accounts_get_no_prompt_and_all_others_the_same(rig: Rig, user: str, status: Status) -> None:
    assert rig.ask(Phase.WHO, user) == Reply(status)
    assert not rig.receipts


# --- auth


def test_a_good_token_opens_its_own_account(rig: Rig) -> None:
    reply = rig.auth("ada", token("ada"))
    assert (reply.status, reply.user, reply.uid, reply.text) == (Status.PERMIT, "ada", 20001, "")
    assert len(reply.handle) == 32
    (receipt,) = rig.receipts
    expected = {"phase": "auth", "verdict": "permit", "user": "ada", "uid": 20001, "sub": "s-ada", "rhost": "198.51.100.7",
                "issuer": "https://iam.example.org/", "rule": "login.requires hpc/users at https://iam.example.org/"}  # fmt: skip
    assert expected.items() <= receipt.items()
    assert receipt["jti"] not in ("", "6a384bcd")


def test_an_adopted_account_opens_though_its_uid_is_outside_the_ranges(rig: Rig) -> None:
    assert rig.auth("gus", token("gus")).uid == 5001


def test_a_second_login_asks_no_network(rig: Rig) -> None:
    for _ in range(5):
        assert rig.auth("ada", token("ada")).status is Status.PERMIT
    assert rig.publisher.asked == 1


@dataclass
class Case:
    """One way to be refused at the prompt."""

    sentence: str
    reason: Reason
    user: str = "ada"
    secret: str = ""
    prepare: Callable[[Rig], object] = lambda rig: None
    text: str | None = None
    rules: dict[str, Any] | None = None
    status: Status = Status.DENY


def swap_rules(**changes: Any) -> Callable[[Rig], None]:
    def swap(rig: Rig) -> None:
        deciders = rig.service.deciders
        login = replace(deciders.settings.login, rules=replace(LOGIN_RULES, **changes))
        settings = replace(deciders.settings, login=login)
        rig.service.deciders = replace(deciders, settings=settings, desk=replace(deciders.desk, settings=settings))

    return swap


def break_keys(rig: Rig) -> None:
    rig.publisher.jwks = SourceUnavailable("the issuer is away")


def remove_view(rig: Rig) -> None:
    rig.view.unlink()
    rig.restart()


def raise_inside(rig: Rig) -> None:
    def clock() -> Any:
        raise ZeroDivisionError("a message with secret-in-a-message")

    rig.service._clock = clock


NO_TOKEN = UNPROVEN_TEXT
AUTH = [
    Case("nothing was typed", Reason.EMPTY, secret="", text="No token was given."),
    Case("sshd's junk", Reason.JUNK_FROM_SSHD, secret=JUNK, text=NO_TOKEN),
    Case("a password", Reason.NOT_A_TOKEN, secret="correct horse", text=NO_TOKEN),
    Case("too long", Reason.TOO_LONG, secret="e" * 20_001, text="The token is too long. Ask your IAM for one with fewer groups or scopes."),
    Case("cut", Reason.TRUNCATED, secret=token("ada")[:-200], text=NO_TOKEN),
    Case("a header that asks for what we never do", Reason.BAD_HEADER, secret=MAKER.token(None, MAKER.header(jku="x")), text=NO_TOKEN),
    Case("no signature", Reason.ALGORITHM, secret=MAKER.token(None, MAKER.header(alg="none")), text=NO_TOKEN),
    Case("an unknown key", Reason.UNKNOWN_KEY, secret=MAKER.token(None, MAKER.header(kid="x")), text=NO_TOKEN),
    Case("a bad signature", Reason.BAD_SIGNATURE, secret=token("ada")[:-8] + "AAAAAAAA", text=NO_TOKEN),
    Case("no keys", Reason.NO_KEYS, secret=token("ada"), prepare=break_keys, text=NO_TOKEN),
    Case("a claim of the wrong shape", Reason.BAD_CLAIMS, secret=token("ada", groups="hpc/users"), text=NO_TOKEN),
    Case("a stranger's token", Reason.UNTRUSTED_ISSUER, secret=token("ada", iss="https://x.example/"), text=NO_TOKEN),
    Case("no audience", Reason.NO_AUDIENCE, secret=token("ada", aud=[])),
    Case("another audience", Reason.WRONG_AUDIENCE, secret=token("ada", aud=["https://other"]),
         text="This token is not for this site. Get one with: oidc-token --aud https://login.hpc.example.org ACCOUNT"),
    Case("no expiry", Reason.NO_EXPIRY, secret=MAKER.token({k: v for k, v in MAKER.claims().items() if k != "exp"})),
    Case("expired", Reason.EXPIRED, secret=token("ada", exp=MAKER.now), text="Your token has expired. Get a new one and log in again."),
    Case("of tomorrow", Reason.NOT_YET_VALID, secret=token("ada", nbf=MAKER.now + 3600)),
    Case("nobody's", Reason.NO_SUBJECT, secret=MAKER.token(MAKER.claims(sub=""))),
    Case("a client's", Reason.CLIENT_TOKEN, secret=MAKER.token(MAKER.claims(sub="public-client"))),
    Case("an ID token", Reason.ID_TOKEN, secret=token("ada", nonce="n")),
    Case("a token bound to a key", Reason.BOUND_TOKEN, secret=token("ada", cnf={"jkt": "x"})),
    Case("the name is banned", Reason.BANNED, secret=token("ada"), prepare=lambda rig: rig.ban(name="ada", reason="ticket 5"),
         text="Your access to this site has been stopped. Reason: ticket 5"),
    Case("the subject is banned", Reason.BANNED, secret=token("ada"), prepare=lambda rig: rig.ban(subject=subject("s-ada"))),
    Case("the uid is banned", Reason.BANNED, secret=token("ada"), prepare=lambda rig: rig.ban(uid=20001)),
    Case("the token's subject is banned and comes under another name", Reason.BANNED, secret=token("gus"),
         prepare=lambda rig: rig.ban(subject=subject("s-gus"))),
    Case("root", Reason.NOT_OURS, user="root", secret=token("nemo")),
    Case("an orphan", Reason.ORPHAN, user="olga", secret=token("olga")),
    Case("a person without an account", Reason.NO_ACCOUNT, user="nemo", secret=token("nemo")),
    Case("another person's name", Reason.WRONG_NAME, user="gus", secret=token("ada"),
         text="This token belongs to the account ada: log in as ada."),
    Case("root with a person's token", Reason.WRONG_NAME, user="root", secret=token("ada")),
    Case("another uid in NSS", Reason.UID_MISMATCH, user="flo", secret=token("flo"), text=NOT_NOW),
    Case("locked by an admin", Reason.LOCKED, user="cleo", secret=token("cleo"), status=Status.EXPIRED),
    Case("left", Reason.LEFT, user="ben", secret=token("ben"), status=Status.EXPIRED),
    Case("suspended at the IAM", Reason.SUSPENDED, user="eli", secret=token("eli"), status=Status.EXPIRED),
    Case("no requirements", Reason.NO_RULES, secret=token("ada"), prepare=swap_rules(requires=())),
    Case("not in the required group", Reason.NOT_A_MEMBER, user="dora", secret=token("dora")),
    Case("a token that leaves the group out", Reason.TOKEN_LACKS_GROUP, secret=token("ada", groups=["hpc/gpu"])),
    Case("members of yesterday", Reason.STALE_MEMBERS, secret=token("ada", exp=MAKER.now + 200_000),
         prepare=lambda rig: age_members(rig, timedelta(days=1))),
    Case("no view", Reason.NO_VIEW, secret=token("ada"), prepare=remove_view, text=NOT_NOW),
    Case("a damaged ban list", Reason.NO_VIEW, secret=token("ada"), prepare=lambda rig: rig.bans.write_text("{"), text=NOT_NOW),
    Case("no ban list", Reason.NO_VIEW, secret=token("ada"), prepare=lambda rig: rig.bans.unlink(), text=NOT_NOW),
    Case("an error inside", Reason.INTERNAL, secret=token("ada"), prepare=raise_inside, text=NOT_NOW),
]  # fmt: skip


@pytest.mark.parametrize("case", AUTH, ids=lambda case: case.sentence)
def test_a_refused_login_says_why_in_the_log_and_what_may_be_said_to_the_person(rig: Rig, case: Case) -> None:
    case.prepare(rig)
    reply = rig.auth(case.user, case.secret)
    assert reply.status is case.status
    assert (reply.user, reply.uid, reply.handle) == ("", Reply(Status.DENY).uid, "")
    assert rig.last()["reason"] == case.reason.value
    assert reply.text
    if case.text is not None:
        assert reply.text == case.text


def test_the_table_holds_every_reason_but_those_of_introspection() -> None:
    elsewhere = {Reason.INACTIVE, Reason.ISSUER_UNREACHABLE}
    assert {case.reason for case in AUTH} == set(Reason) - elsewhere


@pytest.mark.parametrize("bad", BAD_TOKENS, ids=lambda bad: bad.sentence)
def test_no_token_of_the_bad_table_passes_and_each_is_refused_for_its_reason(lasting_rig: Rig, bad: Any) -> None:
    reply = lasting_rig.auth("ada", bad.build(replace(MAKER, sub="s-ada")))
    assert reply.status is Status.DENY
    assert lasting_rig.last()["reason"] in {reason.value for reason in bad.reasons}


def test_what_sshd_put_in_place_of_the_answer_is_explained(rig: Rig) -> None:
    rig.auth("nemo", JUNK)
    assert rig.last()["detail"].replace("\\x20", " ") == JUNK_DETAIL
    assert not rig.receipts


SAME = [
    ("one character", "x"),
    ("a password", "hunter2 and more"),
    ("a token that nobody signed", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0." + "A" * 342),
    ("a stranger's token", token("ada", iss="https://x.example/")),
    ("a token with an unknown key", MAKER.token(None, MAKER.header(kid="x"))),
    ("a forged token of the right issuer", token("ada")[:-8] + "AAAAAAAA"),
    ("a cut token of the length at which ssh cuts", token("ada", filler="x" * 2000)[:1023]),
    ("nothing", ""),
    ("too much", "e" * 20_001),
]


@pytest.mark.parametrize("typed", [row[1] for row in SAME], ids=[row[0] for row in SAME])
def test_without_a_real_token_a_known_and_an_unknown_name_hear_the_same(rig: Rig, typed: str) -> None:
    junk = (JUNK * 20)[: len(typed)]
    assert rig.auth("ada", typed) == rig.auth("nemo", junk)


def test_an_outage_does_not_tell_a_known_name_from_an_unknown_one(rig: Rig) -> None:
    break_keys(rig)
    secret = token("ada")
    assert rig.auth("ada", secret) == rig.auth("nemo", (JUNK * 200)[: len(secret)])
    assert "right now" in rig.auth("ada", secret).text


@pytest.mark.parametrize("typed", ["correct horse battery", "Tr0ub4dor.and.3", JUNK, ""])
def test_of_a_password_typed_by_mistake_not_even_a_fingerprint_is_kept(rig: Rig, typed: str) -> None:
    rig.auth("ada", typed)
    assert "fp" not in rig.last(), "a short hash of a password is soon guessed"


def test_a_token_cut_by_ssh_is_told_of_iam_ssh(rig: Rig) -> None:
    assert "cut" in rig.auth("ada", token("ada", filler="x" * 2000)[:1023]).text


def test_an_error_inside_is_logged_by_its_place_without_its_message(rig: Rig) -> None:
    raise_inside(rig)
    assert rig.auth("ada", token("ada")) == Reply(Status.DENY, text=NOT_NOW)
    assert rig.last()["detail"].startswith("ZeroDivisionError\\x20at\\x20test_service.py:")
    assert "secret-in-a-message" not in rig.log


def test_an_error_while_an_errand_is_awaited_denies_as_well(rig: Rig) -> None:
    conversation = rig.begin(Phase.AUTH, "ada", token("ada"))
    next(conversation)
    with pytest.raises(StopIteration) as stopped:
        conversation.throw(ZeroDivisionError())
    assert stopped.value.value == Reply(Status.DENY, text=NOT_NOW)


# --- keys


def test_keys_that_do_not_come_in_time_deny_and_the_next_login_goes_on(rig: Rig) -> None:
    conversation = rig.begin(Phase.AUTH, "ada", token("ada"))
    errand = next(conversation)
    with pytest.raises(StopIteration) as stopped:
        conversation.throw(TooLate("no answer within 4 s"))
    assert stopped.value.value.status is Status.DENY
    assert rig.last()["reason"] == "no-keys"
    errand.run()
    assert rig.auth("ada", token("ada")).status is Status.PERMIT


def test_an_outage_leaves_the_last_good_keys_until_they_are_no_longer_usable(rig: Rig) -> None:
    assert rig.auth("ada", token("ada")).status is Status.PERMIT
    break_keys(rig)
    for days, reason in ((1, None), (3, "no-keys")):
        rig.clock.now = rig.clock.now.replace() + timedelta(days=days)
        rig.ledger.write_members(members(rig.clock()), rig.clock())
        rig.publish()
        now = int(rig.clock().timestamp())
        reply = rig.auth("ada", token("ada", exp=now + 60))
        assert (rig.last().get("reason"), reply.status is Status.PERMIT) == (reason, reason is None)


@pytest.mark.parametrize(
    ("validation", "text"),
    [("introspect", UNPROVEN_TEXT), ("both", "The IAM says that this token is no longer active.")],
)
def test_an_inactive_token_is_called_so_only_after_its_signature_held(
    tmp_path: Path, validation: str, text: str
) -> None:
    rig = make_rig(tmp_path, validation=validation)
    rig.service.deciders.desk.keys.refresh(ISSUER)
    conversation = rig.begin(Phase.AUTH, "ada", token("ada"))
    assert next(conversation).lane == ("introspection", ISSUER.url)
    with pytest.raises(StopIteration) as stopped:
        conversation.throw(TokenRefused(Reason.INACTIVE))
    assert stopped.value.value == Reply(Status.DENY, text=text)
    assert rig.last()["reason"] == "inactive"
    rig.ledger.close()


@pytest.mark.parametrize(("validation", "text"), [("introspect", UNPROVEN_TEXT), ("both", NOT_NOW)])
@pytest.mark.parametrize(
    "failure", [SourceUnavailable("too late"), TokenRefused(Reason.ISSUER_UNREACHABLE), TokenRefused(Reason.INTERNAL)]
)
def test_that_an_issuer_is_silent_is_said_only_after_the_signature_held(
    tmp_path: Path, validation: str, text: str, failure: Exception
) -> None:
    rig = make_rig(tmp_path, validation=validation)
    rig.service.deciders.desk.keys.refresh(ISSUER)
    conversation = rig.begin(Phase.AUTH, "ada", token("ada"))
    next(conversation)
    with pytest.raises(StopIteration) as stopped:
        conversation.throw(failure)
    assert stopped.value.value == Reply(Status.DENY, text=text)
    rig.ledger.close()


def test_two_tokens_of_one_fingerprint_are_two_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iam_bridge.model.token.fingerprint_of", lambda _secret: "f" * 16)
    rig = make_rig(tmp_path, validation="introspect")
    asked = [next(rig.begin(Phase.AUTH, name, token(name))) for name in ("ada", "gus")]
    assert asked[0].key != asked[1].key
    assert asked[0].lane == asked[1].lane
    rig.ledger.close()


# --- account and sessions


ACCOUNT = [
    ("ours", "ada", Status.PERMIT, None),
    ("adopted", "gus", Status.PERMIT, None),
    ("root", "root", Status.FOREIGN, None),
    ("a local person", "lea", Status.FOREIGN, None),
    ("an orphan", "olga", Status.DENY, Reason.ORPHAN),
    ("unknown", "nemo", Status.DENY, Reason.NO_ACCOUNT),
    ("left", "ben", Status.EXPIRED, Reason.LEFT),
    ("locked", "cleo", Status.EXPIRED, Reason.LOCKED),
    ("suspended", "eli", Status.EXPIRED, Reason.SUSPENDED),
    ("not in a required group", "dora", Status.DENY, Reason.NOT_A_MEMBER),
    ("another uid in NSS", "flo", Status.DENY, Reason.UID_MISMATCH),
]


@pytest.mark.parametrize("phase", [Phase.ACCOUNT, Phase.OPEN_SESSION], ids=lambda phase: phase.name.lower())
@pytest.mark.parametrize(("user", "status", "reason"), [row[1:] for row in ACCOUNT], ids=[row[0] for row in ACCOUNT])
def test_account_and_session_decide_alike_for_keys_and_tokens(
    rig: Rig, phase: Phase, user: str, status: Status, reason: Reason | None
) -> None:
    reply = rig.ask(phase, user)
    assert reply.status is status
    if status is Status.PERMIT:
        assert (reply.user, reply.uid) == (user, HOST[user])
    if status is Status.FOREIGN:
        assert not rig.receipts
        assert not rig.lines
    if reason is not None:
        assert reply.text
        assert rig.receipts[-1]["reason"] == reason.value


def test_a_banned_person_with_a_key_reads_why(rig: Rig) -> None:
    rig.ban(subject=subject("s-ada"), reason="see ticket 5")
    assert rig.ask(Phase.ACCOUNT, "ada").text == "Your access to this site has been stopped. Reason: see ticket 5"


@pytest.mark.parametrize("alias", ["GUS", "gus@site.example.org", "toor"])
def test_another_name_for_the_number_of_an_adopted_person_is_no_way_around_a_ban(rig: Rig, alias: str) -> None:
    rig.ban(subject=subject("s-gus"))
    assert rig.ask(Phase.WHO, alias, nss_uid=HOST["gus"]).status is Status.PROMPT
    assert rig.ask(Phase.ACCOUNT, alias, nss_uid=HOST["gus"]).status is Status.DENY
    assert rig.ask(Phase.OPEN_SESSION, alias, nss_uid=HOST["gus"]).status is Status.DENY


def test_a_ban_on_a_foreign_name_is_none_of_our_business(rig: Rig) -> None:
    rig.ban(name="lea")
    assert rig.ask(Phase.ACCOUNT, "lea").status is Status.FOREIGN


def test_a_ban_holds_from_the_next_request_and_ends_by_itself(rig: Rig) -> None:
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    rig.ban(name="ada", until=rig.clock() + timedelta(hours=1))
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.DENY
    rig.clock.now += timedelta(hours=1)
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT


def test_a_ban_or_a_lock_between_account_and_session_stops_the_session(rig: Rig) -> None:
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    rig.change(lock(account("s-ada", "ada", 20001), LockReason.ADMIN))
    reply = rig.ask(Phase.OPEN_SESSION, "ada")
    assert (reply.status, reply.text) == (
        Status.EXPIRED,
        "Your account here is locked. Please contact the site's support.",
    )


def test_the_session_s_receipt_names_the_token_that_opened_it(rig: Rig) -> None:
    handle = rig.auth("ada", token("ada")).handle
    rig.ask(Phase.OPEN_SESSION, "ada", handle=handle)
    assert rig.receipts[-1]["fp"] == rig.receipts[0]["fp"] != ""
    assert rig.receipts[-1]["sub"] == "s-ada"
    rig.ask(Phase.OPEN_SESSION, "ada", handle=handle)
    assert (rig.receipts[-1]["fp"], rig.receipts[-1]["remark"]) == ("", "no-token")


def test_a_session_ends_well_though_the_account_was_locked_meanwhile(rig: Rig) -> None:
    rig.ban(name="ada")
    reply = rig.ask(Phase.CLOSE_SESSION, "ada")
    assert (reply.status, reply.user, reply.uid) == (Status.PERMIT, "ada", 20001)
    assert rig.receipts[-1]["remark"] == "banned"
    assert rig.ask(Phase.CLOSE_SESSION, "lea").status is Status.FOREIGN


# --- what cannot be recorded


@pytest.mark.parametrize("phase", [Phase.AUTH, Phase.ACCOUNT, Phase.OPEN_SESSION], ids=lambda phase: phase.name.lower())
def test_what_cannot_be_recorded_is_not_permitted(rig: Rig, phase: Phase) -> None:
    rig.disk_full = True
    assert rig.ask(phase, "ada", token("ada") if phase is Phase.AUTH else b"") == Reply(Status.DENY, text=NOT_NOW)
    assert rig.last()["reason"] == "internal"
    assert rig.last()["detail"] == "not\\x20recorded:\\x20the\\x20disk\\x20is\\x20full"


def test_a_full_disk_locks_no_foreign_account_out_and_keeps_no_session_open(rig: Rig) -> None:
    rig.disk_full = True
    assert rig.ask(Phase.ACCOUNT, "root").status is Status.FOREIGN
    assert rig.ask(Phase.CLOSE_SESSION, "ada").status is Status.PERMIT
    assert rig.ask(Phase.ACCOUNT, "ben").status is Status.EXPIRED


def test_nothing_written_holds_the_token_or_a_part_of_it(rig: Rig) -> None:
    for secret in (token("ada"), token("ada")[:-5], token("gus"), "hunter2-hunter2"):
        rig.auth("ada", secret)
        written = rig.log + json.dumps(rig.receipts)
        assert secret not in written
        assert all(part not in written for part in secret.split(".") if len(part) > 8)


# --- the view


def damage(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    path.chmod(0o644)


UNREADABLE = [
    ("no file: nobody is ours yet", lambda view: view.unlink(), {
        "ada": (Status.PROMPT, Status.DENY), "olga": (Status.PROMPT, Status.DENY), "nemo": (Status.PROMPT, Status.DENY),
        "gus": (Status.FOREIGN, Status.FOREIGN), "lea": (Status.FOREIGN, Status.FOREIGN),
        "root": (Status.FOREIGN, Status.FOREIGN)}),
    ("a damaged file: an adopted person looks like a local one", damage, {
        "ada": (Status.PROMPT, Status.DENY), "olga": (Status.PROMPT, Status.DENY), "nemo": (Status.PROMPT, Status.DENY),
        "gus": (Status.UNAVAILABLE, Status.UNAVAILABLE), "lea": (Status.UNAVAILABLE, Status.UNAVAILABLE),
        "root": (Status.FOREIGN, Status.FOREIGN)}),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "expected"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_without_a_view_nobody_of_ours_gets_in_and_root_is_not_locked_out(
    rig: Rig, spoil: Callable[[Path], None], expected: dict[str, tuple[Status, Status]]
) -> None:
    spoil(rig.view)
    rig.restart()
    answers = {user: (rig.ask(Phase.WHO, user).status, rig.ask(Phase.ACCOUNT, user).status) for user in expected}
    assert answers == expected
    assert rig.auth("ada", token("ada")).status is Status.DENY


@pytest.mark.parametrize("spoil", [lambda view: view.unlink(), damage], ids=["removed", "damaged"])
def test_a_view_that_was_good_stays_in_use_and_the_log_says_so_once(rig: Rig, spoil: Callable[[Path], None]) -> None:
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    spoil(rig.view)
    for _ in range(3):
        assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
        assert rig.ask(Phase.ACCOUNT, "lea").status is Status.FOREIGN
    assert rig.log.count("event=view verdict=refused") == 1
    age_members(rig, timedelta(days=1))
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.DENY
    assert rig.last()["reason"] == "stale-members"


def test_a_new_view_counts_from_the_next_request(rig: Rig) -> None:
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    rig.change(lock(account("s-ada", "ada", 20001), LockReason.LEFT))
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.EXPIRED


def test_an_older_view_is_refused(rig: Rig) -> None:
    old = rig.view.read_bytes()
    rig.change(lock(account("s-ada", "ada", 20001), LockReason.LEFT))
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.EXPIRED
    aside = rig.view.with_name("old")
    aside.write_bytes(old)
    aside.replace(rig.view)
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.EXPIRED
    assert "event=view verdict=refused" in rig.log


def test_a_missing_ban_list_locks_no_foreign_account_out(rig: Rig) -> None:
    rig.bans.unlink()
    assert rig.ask(Phase.ACCOUNT, "lea").status is Status.FOREIGN
    assert rig.ask(Phase.WHO, "ada").status is Status.PROMPT
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.DENY


def test_members_that_age_are_a_remark_before_they_are_a_refusal(rig: Rig) -> None:
    age_members(rig, timedelta(hours=1))
    assert rig.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    assert rig.last()["remarks"] == "members-ageing"


def test_a_hostile_name_neither_passes_nor_forges(rig: Rig) -> None:
    for name in (
        "ada\nevent=login verdict=permit",
        "ada\0",
        "ADA",
        "ada ",
        "\u0430da",
        "a" * 60_000,
        "-x",
        "",
        "20001",
    ):
        request = Request(Phase.ACCOUNT, 1, name, rhost="198.51.100.7 rhost=192.0.2.1")
        with pytest.raises(StopIteration) as stopped:
            next(rig.service.answer(request))
        assert stopped.value.value.status is Status.DENY
        assert rig.lines[-1].count(b"\n") == 1
        assert rig.lines[-1].count(b" rhost=") == 1
        assert len(rig.receipts[-1]["user"] or "") < 300  # type: ignore[arg-type]
