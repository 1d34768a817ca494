"""`iam-bridge keys`: the signing keys of the issuers, as the login daemon keeps them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.context import read_config, utc_now
from iam_bridge.cli.log_notes import logs_as_notes
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import complain, moment, print_json, print_table, say, span
from iam_bridge.errors import BridgeError, Exit, InvalidValue, SourceUnavailable
from iam_bridge.iam.jws import Key
from iam_bridge.iam.key_files import KeyFiles
from iam_bridge.iam.keys import KeyCache
from iam_bridge.model.rules import IssuerRules, LoginSettings, Settings

app = new_family("Look after the issuers' signing keys.")

Named = Annotated[str | None, typer.Argument(metavar="ISSUER", help="One issuer's URL; all of them without it.")]
_EC = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


@dataclass(frozen=True, slots=True)
class KeptKey:
    """One kept key; `usable_until` is when it ends to count if its issuer never answers again."""

    issuer: str
    kid: str
    kind: str
    algorithms: tuple[str, ...]
    fetched_at: datetime
    usable_until: datetime
    usable: bool


@app.command(
    short_help="Fetch the keys now and keep them.",
    epilog=example("iam-bridge keys refresh", "iam-bridge keys refresh https://iam.example.org/"),
)
def refresh(issuer: Named = None, config: Config = SETTINGS_FILE) -> Exit:
    """Fetch the keys now and keep them where the login daemon finds them (within half a minute).

    Exit status 75: an issuer gave no usable keys; what was kept stays.
    """
    settings = read_config(config)
    chosen = _choose(settings, issuer)
    folder = settings.login.key_cache
    _make_folder(settings.login)
    failed = False
    with logs_as_notes() as notes:
        cache = KeyCache(settings.issuers, folder, utc_now)
        for rules in chosen:
            before = utc_now()
            try:
                cache.refresh(rules.issuer)
            except SourceUnavailable as error:
                complain(error)
                notes.said(error.message)
                failed = True
                continue
            _say_kept(rules, folder, before)
    return Exit.UNAVAILABLE if failed else Exit.OK


def _say_kept(rules: IssuerRules, folder: Path, since: datetime) -> None:
    """Read back what a daemon will read, and say it."""
    kept = KeyFiles(folder).read(rules, utc_now())
    if kept is None or kept.fetched_at < since:
        raise BridgeError(
            f"the keys of {rules.issuer} were fetched and cannot be kept in {folder}", hint="run it as root"
        )
    kids = ", ".join([*sorted(kept.keys), *(["(no kid)"] if kept.only else [])])
    say(f"{rules.issuer}: {kids}", "good")


@app.command(
    short_help="Show the kept keys and their age; no network.",
    epilog=example("iam-bridge keys show", "iam-bridge keys show --json"),
)
def show(issuer: Named = None, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Show the kept keys, their age and how long they count; no network. Exit status 1: some issuer has none to use."""
    settings = read_config(config)
    now = utc_now()
    rows: list[KeptKey] = []
    without: list[IssuerRules] = []
    with logs_as_notes():
        files = KeyFiles(settings.login.key_cache)
        for rules in _choose(settings, issuer):
            found = _kept_keys(files, rules, now)
            rows += found
            if not any(key.usable for key in found):
                without.append(rules)
    if as_json:
        print_json({"keys": rows, "without": [rules.issuer for rules in without]})
    else:
        _print(rows, now)
        for rules in without:
            say(f"{rules.issuer}: no key to use; its next login fetches them, or: iam-bridge keys refresh", "bad")
    return Exit.FAILED if without else Exit.OK


def _print(rows: list[KeptKey], now: datetime) -> None:
    if rows:
        print_table(
            ("issuer", "kid", "kind", "algorithms", "age", "usable until"),
            [
                (
                    key.issuer,
                    key.kid,
                    key.kind,
                    ", ".join(key.algorithms),
                    span((now - key.fetched_at).total_seconds()),
                    moment(key.usable_until) if key.usable else "no more",
                )
                for key in rows
            ],
        )


def _choose(settings: Settings, named: str | None) -> tuple[IssuerRules, ...]:
    """Give the issuers that are meant; a final slash more or less makes no other."""
    if named is None:
        return tuple(settings.issuers.values())
    found = tuple(rules for rules in settings.issuers.values() if rules.issuer.matches(named))
    if not found:
        known = ", ".join(str(issuer) for issuer in settings.issuers)
        raise InvalidValue(f"{named[:80]!r} is none of the issuers in the settings", hint=f"there are: {known}")
    return found


def _kept_keys(files: KeyFiles, rules: IssuerRules, now: datetime) -> list[KeptKey]:
    key_set = files.read(rules, now)
    if key_set is None:
        return []
    until = key_set.fetched_at + timedelta(seconds=rules.usable_s)
    listed = [*sorted(key_set.keys.items()), *([("(no kid)", key_set.only)] if key_set.only else [])]
    return [
        KeptKey(rules.issuer.url, kid, *_describe(key, rules), key_set.fetched_at, until, now < until)
        for kid, key in listed
    ]


def _describe(key: Key, rules: IssuerRules) -> tuple[str, tuple[str, ...]]:
    """Name a key's kind and the algorithms in which it may sign here."""
    entry = key.as_dict()
    curve = str(entry.get("crv", ""))
    if entry["kty"] == "RSA":
        bits = len(str(entry["n"])) * 6 // 8 * 8
        kind, fits = f"RSA {bits}", [name for name in rules.algorithms if name[:2] in {"RS", "PS"}]
    else:
        kind, fits = curve, [name for name in rules.algorithms if name == _EC.get(curve, "EdDSA")]
    return kind, tuple(name for name in fits if entry.get("alg", name) == name)


def _make_folder(login: LoginSettings) -> None:
    """Make a missing folder as the daemon would: owned by its account, which must be able to write there later."""
    if os.geteuid() != 0 or login.key_cache.exists():
        return
    try:
        owner = pwd.getpwnam(login.user)
    except KeyError:
        raise InvalidValue(
            f"login.user: there is no account {login.user!r}", hint="make it (packaging/sysusers.d/iam-bridge.conf)"
        ) from None
    try:
        for folder in (login.key_cache.parent, login.key_cache):
            if not folder.exists():
                os.mkdir(folder, 0o700 if folder == login.key_cache.parent else 0o755)
                os.chown(folder, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    except OSError as error:
        raise BridgeError(f"cannot make the folder {login.key_cache}: {error.strerror}") from error
