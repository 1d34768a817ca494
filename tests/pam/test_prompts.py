"""How the token is asked for: the length of the answers alone decides on the rounds, and parts become one token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice

import pytest

from pam_module.wire import Phase, Reply, Status
from tests.pam.conftest import LOCAL, OURS, Bench
from tests.pam.libpam import SILENT, Answer, Pam, Style, cut, marked, script, whole
from tests.pam.stand_in import permits, says

MAX_PARTS = 24
DENY = Reply(Status.DENY)


def token(length: int) -> bytes:
    """Text in which every stretch of 1000 bytes differs from the next, so that a lost or doubled part shows."""
    return bytes(islice(cycle(b"abcdefghijklmnopqrstuvwxyz0123456789_-."), length))


@dataclass(frozen=True)
class Case:
    sentence: str
    answer: Answer
    rounds: int
    secret: bytes | None  # None: refused without asking the daemon


def _cases() -> list[Case]:
    cases = [
        Case(f"marked parts of {length} bytes", marked(token(length)), rounds, token(length))
        for length, rounds in [
            (400, 1), (1000, 1), (1001, 2), (1023, 2), (2000, 2), (2001, 3), (4000, 4), (16000, 16), (16384, 17),
            (20000, 20),
        ]
    ]  # fmt: skip
    cases += [
        Case(f"pieces of {length} bytes cut at 1023", cut(token(length)), rounds, token(length))
        for length, rounds in [(1022, 1), (1023, 2), (1024, 2), (2046, 3), (4000, 4), (20000, 20)]
    ]
    cases += [
        Case(f"{length} bytes in one answer", whole(token(length)), 1, token(length))
        for length in [0, 400, 1000, 1002, 1022, 1024, 2000, 4000, 16000, 20000]
    ]
    cases += [
        Case(f"{length} bytes to every prompt", whole(token(length)), MAX_PARTS, token(length))
        for length in [1001, 1023]
    ]
    a, b = b"a" * 1000, b"b" * 1023
    cases += [
        Case("1001 bytes that end in a plus to every prompt", whole(a + b"+"), MAX_PARTS, a + b"+"),
        Case("1001 bytes without a mark and then more", script([a + b"x", b"tail"]), 2, a + b"xtail"),
        Case("a mark and then nothing", script([a + b"+", b""]), 2, a),
        Case("a plus at the end of 1023 bytes is no mark", script([b[:-1] + b"+", b"c"]), 2, b[:-1] + b"+c"),
        Case("a plus within 1023 bytes is no mark", script([a + b"+" + a[:22], b"c"]), 2, a + b"+" + a[:22] + b"c"),
        Case("a plus at the end of the last part is no mark", script([a + b"+", b"c+"]), 2, a + b"c+"),
        Case("equal parts and a shorter one", script([b, b, b"c"]), 3, b + b + b"c"),
        Case("equal parts and an empty one", script([b, b, b""]), 3, b + b),
        Case("equal marked parts and the same without its mark", script([a + b"+", a + b"+", a]), 3, a * 3),
        Case("one byte more than the most in one answer", whole(token(20001)), 1, None),
        Case("one byte more than the most in marked parts", marked(token(20001)), 21, None),
        Case("one byte more than the most in cut parts", cut(token(20001)), 20, None),
        Case("64 kilobytes in one answer", whole(token(65536)), 1, None),
        Case("a megabyte in one answer", whole(token(1 << 20)), 1, None),
        Case("marked parts without end", marked(token(100_000)), MAX_PARTS, None),
        Case("cut parts without end", cut(token(100_000)), MAX_PARTS, None),
        Case("a last part that is too long", script([b, token(20000)]), 2, None),
        Case("a last part for which there is no room", script([b] * 23 + [token(5000)]), 24, None),
    ]
    return cases


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.sentence)
def test_parts_become_one_token(bench: Bench, case: Case) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    pam = bench.start(answer=case.answer)
    result = pam.authenticate()
    assert len(pam.prompts) == case.rounds
    if case.secret is None:
        assert result == Pam.MAXTRIES
        assert pam.messages == [(Style.ERROR_MSG, "The access token is longer than 20000 bytes.")]
        assert daemon.phases == [Phase.WHO]
    else:
        assert result == Pam.SUCCESS
        assert [request.secret for request in daemon.requests] == [b"", case.secret]


@pytest.mark.parametrize("answer", [marked(token(4000)), cut(token(2046)), whole(token(1023)), whole(b"")])
def test_known_and_unknown_names_get_the_same_rounds(bench: Bench, answer: Answer) -> None:
    answers = {Phase.WHO: Reply(Status.PROMPT), Phase.AUTH: Reply(Status.DENY, text="This token is not accepted here.")}
    bench.serve(says(answers))
    seen = []
    for name in (OURS.pw_name, "no-such-user", "x" * 300, "a b", "../../etc", "-x", "\N{CYRILLIC SMALL LETTER A}lice"):
        pam = bench.start(name, answer)
        assert pam.authenticate() == Pam.MAXTRIES
        seen.append((tuple(pam.prompts), tuple(pam.messages)))
    assert len(set(seen)) == 1


def test_the_prompts_say_what_askpass_looks_for(bench: Bench) -> None:
    bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    pam = bench.start(answer=marked(token(2500)))
    pam.authenticate()
    assert pam.prompts == ["Access Token: ", "Access Token (part 2): ", "Access Token (part 3): "]


def test_foreign_accounts_are_not_prompted(bench: Bench) -> None:
    bench.serve(says({Phase.WHO: Reply(Status.FOREIGN)}))
    bench.write_stack(extra="auth required pam_permit.so\n")
    pam = bench.start(LOCAL.pw_name)
    assert pam.authenticate() == Pam.SUCCESS, "PAM_IGNORE leaves it to the rest of the stack"
    assert pam.prompts == []


@pytest.mark.parametrize("status", [s for s in Status if s not in {Status.PROMPT, Status.FOREIGN}])
def test_no_other_word_to_who_prompts_or_permits(bench: Bench, status: Status) -> None:
    bench.serve(says({Phase.WHO: Reply(status, OURS.pw_uid, OURS.pw_name)}))
    pam = bench.start(answer=whole(b"token"))
    assert pam.authenticate() == Pam.AUTHINFO_UNAVAIL
    assert pam.prompts == []


def test_a_conversation_that_fails_is_no_empty_token(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    assert bench.start(answer=script([b"a" * 1023])).authenticate() == Pam.CONV_ERR
    assert daemon.phases == [Phase.WHO]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Your account is locked.\nAsk the desk.", "Your account is locked.\nAsk the desk."),
        ("\x1b[2Jgone\r\x07 %s%n\x7f", "?[2Jgone?? %s%n?"),
        ("Grüße", "Gr????e"),
        ("x" * 5000, "x" * 1000),
    ],
    ids=["plain text is shown", "control bytes are not", "bytes above ASCII are not", "a long text is cut"],
)
def test_the_text_of_a_denial_is_shown(bench: Bench, said: str, shown: str) -> None:
    deny = Reply(Status.DENY, text=said)
    bench.serve(says({Phase.WHO: Reply(Status.PROMPT), Phase.AUTH: deny, Phase.ACCOUNT: deny}))
    pam = bench.start(answer=whole(b"token"))
    assert pam.authenticate() == Pam.MAXTRIES
    assert pam.acct_mgmt() == Pam.PERM_DENIED
    assert pam.messages == [(Style.ERROR_MSG, shown)] * 2


def test_a_silent_application_is_shown_nothing(bench: Bench) -> None:
    deny = Reply(Status.DENY, text="Your account is locked.")
    bench.serve(says({Phase.WHO: Reply(Status.PROMPT), Phase.AUTH: deny, Phase.ACCOUNT: deny}))
    pam = bench.start(answer=whole(b"token"))
    assert pam.authenticate(SILENT) == Pam.MAXTRIES
    assert pam.acct_mgmt(SILENT) == Pam.PERM_DENIED
    too_long = bench.start(answer=whole(token(20001)))
    assert too_long.authenticate(SILENT) == Pam.MAXTRIES
    assert pam.messages + too_long.messages == []
