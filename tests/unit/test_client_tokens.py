"""Where iam-ssh finds a token, in which order, and what it says of one that cannot be of use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from iam_bridge.errors import BridgeError, InvalidValue
from iam_bridge.model.identity import Issuer
from iam_bridge.model.token import AccessToken
from pam_module.client import tokens
from pam_module.client.settings import HostSettings
from pam_module.client.token_file import held_token, start_of, write_token
from pam_module.client.tokens import Asked, Found, check_fit, find_token, look_at
from tests.unit.client_tokens import make_token, segment

HOST = "login.hpc.example.org"
AUDIENCE = "https://login.hpc.example.org"
SETTINGS = HostSettings(AUDIENCE, None, "demo")
NOW = 1_700_000_000.0
UID = os.getuid()


def asked(*, settings: HostSettings = SETTINGS, token_file: Path | None = None, **environ: str) -> Asked:
    return Asked(HOST, settings, environ, UID, time.time(), str(token_file) if token_file else None)


def complaint(text: str, settings: HostSettings = SETTINGS, now: float = NOW) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        check_fit(Found(AccessToken(text), "FILE"), Asked(HOST, settings, {}, UID, now))
    return caught.value


NO_TOKENS = {
    "a password": "correct horse",
    "one part": "abc",
    "five parts, an encrypted token": ".".join(["YWJj"] * 5),
    "a header that is no JSON": "YWJj." + segment({"sub": "x"}) + ".c2ln",
    "claims that are a list": segment({"alg": "RS256"}) + "." + segment([1]) + ".c2ln",
    "letters outside base64url": "a+b/.c+d/.x",
    "no signature": segment({"alg": "none"}) + "." + segment({"sub": "x"}) + ".",
    "claims nested too deep": segment({"alg": "RS256"}) + "." + segment(b"[" * 100_000) + ".c2ln",
    "text beyond ASCII": "é.é.é",
}


@pytest.mark.parametrize("text", NO_TOKENS.values(), ids=NO_TOKENS.keys())
def test_what_is_no_signed_jwt_is_told_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidValue, match="is no access token"):
        look_at(AccessToken(text))


def test_a_password_by_mistake_names_the_command_that_gets_a_token() -> None:
    error = complaint("hunter2")
    assert str(error) == f"FILE is no access token (no signed JWT); get one with: oidc-token --aud {AUDIENCE} demo"
    assert error.exit_status == 2


@pytest.mark.parametrize("exp", [NOW, NOW - 1, NOW - 1e9, 0])
def test_an_expired_token_is_told(exp: float) -> None:
    error = complaint(make_token(aud=AUDIENCE, exp=exp))
    assert str(error) == f"the token of FILE has expired; get one with: oidc-token --aud {AUDIENCE} demo"
    assert error.exit_status == 1


@pytest.mark.parametrize("aud", [None, "https://other.example.org", [], ["a", "b"], AUDIENCE + "/", {"a": 1}, 7])
def test_a_token_for_elsewhere_is_told(aud: object) -> None:
    error = complaint(make_token(aud=aud, exp=NOW + 60))
    assert f"is not for {HOST} (its audience lacks {AUDIENCE})" in str(error)


@pytest.mark.parametrize("iss", ["https://evil.example.org/", "https://iam.example.org//", None, 1])
def test_a_token_of_another_issuer_is_told(iss: object) -> None:
    settings = HostSettings(AUDIENCE, Issuer("https://iam.example.org/"), None)
    assert "is not from https://iam.example.org/" in str(
        complaint(make_token(aud=AUDIENCE, iss=iss, exp=NOW + 60), settings)
    )


def test_a_token_that_no_host_takes_is_told_by_its_length() -> None:
    assert "more than 20000 bytes" in str(complaint(make_token(20001, aud=AUDIENCE, exp=NOW + 60)))


@pytest.mark.parametrize("aud", [AUDIENCE, ["x", AUDIENCE]])
def test_a_token_that_fits_passes(aud: object) -> None:
    check_fit(Found(AccessToken(make_token(20000, aud=aud, exp=NOW + 1)), "FILE"), Asked(HOST, SETTINGS, {}, UID, NOW))


def test_without_an_audience_for_the_host_none_is_demanded() -> None:
    check_fit(Found(AccessToken(make_token(exp=NOW + 1)), "FILE"), Asked(HOST, HostSettings(), {}, UID, NOW))


@pytest.fixture
def places(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run" / f"bt_u{UID}"


def fresh(mark: str) -> str:
    return make_token(aud=AUDIENCE, jti=mark)


def place(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_sources_are_taken_in_their_order(tmp_path: Path, places: Path) -> None:
    option = place(tmp_path / "option", fresh("1"))
    variable, named, lying = fresh("2"), place(tmp_path / "named", fresh("3") + "\n"), place(places, fresh("4"))
    runtime = {"XDG_RUNTIME_DIR": str(places.parent)}
    all_of = runtime | {"BEARER_TOKEN": variable, "BEARER_TOKEN_FILE": str(named)}
    assert find_token(asked(token_file=option, **all_of)).reveal() == option.read_text()
    assert find_token(asked(**all_of)).reveal() == variable
    assert find_token(asked(**runtime, BEARER_TOKEN_FILE=str(named))).reveal() == named.read_text().strip()
    assert find_token(asked(**runtime)).reveal() == lying.read_text()


def test_a_token_that_was_named_must_be_right_and_nothing_else_is_tried(tmp_path: Path, places: Path) -> None:
    place(places, fresh("4"))
    bad = place(tmp_path / "bad", make_token(aud=AUDIENCE, exp=1))
    with pytest.raises(BridgeError, match="has expired"):
        find_token(asked(token_file=bad, XDG_RUNTIME_DIR=str(places.parent)))


STRANGE = {
    "others may read": (0o644, "others may read or write it"),
    "the group may write": (0o620, "others may read or write it"),
}


@pytest.mark.parametrize(("mode", "why"), STRANGE.values(), ids=STRANGE.keys())
def test_a_file_in_a_place_that_others_may_touch_is_not_taken(places: Path, mode: int, why: str) -> None:
    place(places, fresh("4"), mode)
    with pytest.raises(BridgeError, match=why):
        find_token(asked(XDG_RUNTIME_DIR=str(places.parent)))


def test_a_link_in_a_place_is_not_taken(places: Path, tmp_path: Path) -> None:
    places.symlink_to(place(tmp_path / "real", fresh("4")))
    with pytest.raises(BridgeError, match="is not taken"):
        find_token(asked(XDG_RUNTIME_DIR=str(places.parent)))


def test_a_pipe_in_a_place_does_not_hang(places: Path) -> None:
    os.mkfifo(places, 0o600)
    with pytest.raises(BridgeError, match="no regular file"):
        find_token(asked(XDG_RUNTIME_DIR=str(places.parent)))


def test_a_file_of_another_user_is_not_taken(places: Path) -> None:
    place(places, fresh("4"))
    stranger = Asked(HOST, SETTINGS, {"XDG_RUNTIME_DIR": str(places.parent)}, UID + 1, time.time())
    with pytest.raises(BridgeError, match="there is no access token"):
        find_token(stranger)  # another uid looks for another name
    places.rename(places.with_name(f"bt_u{UID + 1}"))
    with pytest.raises(BridgeError, match="belongs to another user"):
        find_token(stranger)


def test_the_first_place_that_does_not_fit_is_passed_over_for_a_better_one(
    places: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, good = place(places, make_token(aud=AUDIENCE, exp=1)), place(tmp_path / "good", fresh("5"))
    monkeypatch.setattr(tokens, "_places", lambda _environ, _uid: iter([str(old), str(good)]))
    assert find_token(asked()).reveal() == good.read_text()


@pytest.mark.parametrize("text", ["", " \n", "a b", "a\nb", "tök.en.x", "\x00"])
def test_a_file_with_no_or_several_tokens_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidValue, match=r"is empty|holds more than one token"):
        find_token(asked(token_file=place(tmp_path / "token", text)))


@pytest.mark.parametrize("path", ["/nonexistent/token", "/", "a\0b"])
def test_a_file_that_cannot_be_read_is_told(path: str) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        find_token(Asked(HOST, SETTINGS, {}, UID, NOW, path))


def test_no_token_anywhere_names_every_source_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_places", lambda _environ, _uid: iter([]))
    with pytest.raises(InvalidValue, match=r"--token-file, BEARER_TOKEN.*OIDC_SOCK; get one with: oidc-token --aud"):
        find_token(asked())


def test_no_complaint_holds_the_token(tmp_path: Path) -> None:
    canary = make_token(aud="x", sub="canary")
    with pytest.raises(BridgeError) as caught:
        find_token(asked(token_file=place(tmp_path / "t", canary)))
    assert canary not in repr(caught.value)
    assert canary.split(".")[1] not in str(caught.value)


def test_the_token_is_on_disk_for_its_owner_alone_and_only_meanwhile(tmp_path: Path) -> None:
    with held_token(AccessToken("t0ken"), {"XDG_RUNTIME_DIR": str(tmp_path)}, UID) as path:
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("t0ken", 0o600)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.name == f"token-{os.getpid()}-{start_of(os.getpid())}"
    assert list(path.parent.iterdir()) == []


def test_what_a_process_that_is_gone_left_is_swept_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    folder = tmp_path / "iam-bridge"
    folder.mkdir(mode=0o700)
    for name in (
        "token-999999999-5",
        f"token-{os.getppid()}-5",
        f"token-{os.getppid()}-{start_of(os.getppid())}",
        "other",
    ):
        (folder / name).touch()
    path = write_token(AccessToken("t"), os.getpid(), {"XDG_RUNTIME_DIR": str(tmp_path)}, UID)
    kept = {path.name, "other", f"token-{os.getppid()}-{start_of(os.getppid())}"}
    assert {entry.name for entry in folder.iterdir()} == kept


@pytest.mark.parametrize("what", ["open to others", "a link", "a file", "of another user"])
def test_a_folder_that_is_not_ours_alone_gets_no_token(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "iam-bridge"
    if what == "a link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    elif what == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o755 if what == "open to others" else 0o700)
    uid = UID + 1 if what == "of another user" else UID
    with pytest.raises(BridgeError, match="the token has no place"):
        write_token(AccessToken("t"), os.getpid(), {"XDG_RUNTIME_DIR": str(tmp_path)}, uid)


def test_a_link_under_the_files_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "iam-bridge"
    folder.mkdir(mode=0o700)
    (tmp_path / "victim").write_text("kept")
    (folder / f"token-{os.getpid()}-{start_of(os.getpid())}").symlink_to(tmp_path / "victim")
    write_token(AccessToken("t"), os.getpid(), {"XDG_RUNTIME_DIR": str(tmp_path)}, UID)
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_process_that_has_ended_gets_no_token(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="has ended"):
        write_token(AccessToken("t"), 999_999_999, {"XDG_RUNTIME_DIR": str(tmp_path)}, UID)
