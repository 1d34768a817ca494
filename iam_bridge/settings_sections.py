"""The sections of the settings file, one function each: text → rules, with every problem noted and none raised."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from iam_bridge.errors import InvalidValue
from iam_bridge.model.account import GroupName, IdRange
from iam_bridge.model.identity import Issuer, parse_group_path
from iam_bridge.model.rules import (
    AccountRules,
    ClientSettings,
    GroupRule,
    IssuerRules,
    Limit,
    Limits,
    LoginRules,
    LoginSettings,
    Requirement,
    Settings,
    SourceRules,
    StatePaths,
)
from iam_bridge.settings_read import Section

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: a key that verifies must not be able to sign (RFC 8725 3.1, 3.2)."""
TYPES = ("at+jwt", "jwt", "absent")
WILDCARD_AUDIENCES = ("*", "https://wlcg.cern.ch/jwt/v1/any", "any")
_HOME = re.compile(r"/(?:[A-Za-z0-9._-]+/)*\{name\}\Z")
_MODE = re.compile(r"0?[0-7]{3}\Z")
SecretLook = Callable[[Path], str]


def look_at_secret(path: Path) -> str:
    """Say what is wrong with a secret's file, without opening it; an empty text where nothing is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"the secret file {path} does not exist"
    except OSError:
        return ""  # another account's secret: not ours to see, and not ours to judge
    return f"the secret file {path} is readable by everyone; chmod o-r {path}" if mode & 0o004 else ""


def _client(section: Section, key: str, look: SecretLook, *, required: bool) -> ClientSettings | None:
    if not section.has(key) and not required:
        section.node(key)
        return None
    client = section.section(key, required=required)
    if not section.has(key):
        return None
    client_id = client.text("id")
    secret = client.path("secret_file")
    problem = look(secret) if client.has("secret_file") else ""
    if problem:
        client.note("secret_file", problem)
    client.close()
    return ClientSettings(client_id, secret)


def _optional_path(section: Section, key: str) -> Path | None:
    if section.has(key):
        return section.path(key)
    section.node(key)
    return None


def _issuer(entry: Section, look: SecretLook) -> IssuerRules | None:
    issuer = entry.parsed("issuer", Issuer.parse)
    algorithms = entry.words("algorithms")
    for word in algorithms:
        if word not in ALGORITHMS:
            entry.note("algorithms", f"{word!r} is none of {', '.join(ALGORITHMS)}")
    types = frozenset(word.lower() for word in entry.words("types", ("at+jwt", "JWT")))
    if not types or not types <= set(TYPES):
        entry.note("types", "must name at least one of at+jwt, JWT, absent")
    validation = entry.choice("validation", ("offline", "introspect", "both"), "offline")
    client = _client(entry, "client", look, required=validation != "offline")
    keys = entry.section("keys")
    refresh, usable = keys.duration("refresh", "6h"), keys.duration("usable", "2d")
    if usable < refresh:
        keys.note("usable", "must not be shorter than refresh")
    keys.close()
    ca_file = _optional_path(entry, "ca_file")
    timeout = entry.duration("timeout", "5s")
    down = entry.choice("down", ("deny", "offline"), "deny")
    entry.close()
    if issuer is None:
        return None
    return IssuerRules(issuer, algorithms, types, validation, client, ca_file, refresh, usable, timeout, down)


def read_issuers(root: Section, look: SecretLook) -> dict[Issuer, IssuerRules]:
    """Read `issuers`; two that differ by a final slash only would be one person twice, so they are a problem."""
    found: dict[Issuer, IssuerRules] = {}
    for entry in root.sections("issuers"):
        rules = _issuer(entry, look)
        if rules is None:
            continue
        if any(other.matches(rules.issuer.url) for other in found):
            entry.note("issuer", f"{rules.issuer} stands here already (a final slash makes no other issuer)")
        found[rules.issuer] = rules
    return found


def _group(entry: Section) -> GroupRule | None:
    iam = entry.parsed("iam", parse_group_path)
    unix = entry.parsed("unix", GroupName.parse) if entry.has("unix") else None
    entry.node("unix")
    grants = entry.flag("grants_account", True)
    adopt = entry.flag("adopt", False)
    if unix is None and not grants:
        entry.note("", "neither grants an account nor names a unix group, so it does nothing")
    entry.close()
    return None if iam is None else GroupRule(iam, unix, grants, adopt)


def _groups(entry: Section) -> tuple[GroupRule, ...]:
    rules: list[GroupRule] = []
    for item in entry.sections("groups"):
        rule = _group(item)
        if rule is None:
            continue
        if any(other.iam == rule.iam for other in rules):
            item.note("iam", f"the IAM group {rule.iam!r} is mapped already")
        rules.append(rule)
    if rules and not any(rule.grants_account for rule in rules):
        entry.note("groups", "no group grants an account, so nobody would get one")
    return tuple(rules)


def _source(entry: Section, issuers: dict[Issuer, IssuerRules], look: SecretLook) -> SourceRules | None:
    issuer = entry.parsed("issuer", Issuer.parse)
    if issuer is not None and issuers and issuer not in issuers:
        entry.note("issuer", f"{issuer} is not one of `issuers`, byte for byte")
    kind = entry.choice("kind", ("indigo-iam", "file"))
    client = _client(entry, "client", look, required=kind == "indigo-iam")
    file = _optional_path(entry, "file")
    if kind == "file" and file is None:
        entry.note("file", "is missing: a source of kind `file` needs it")
    ca_file = _optional_path(entry, "ca_file")
    timeout = entry.duration("timeout", "30s")
    trusted = frozenset(entry.words("trusted_attributes", ()))
    user = entry.text("user", "iam-bridge-sync")
    groups = _groups(entry)
    entry.close()
    if issuer is None:
        return None
    return SourceRules(issuer, kind, groups, client, ca_file, file, trusted, timeout, user)


def read_sources(root: Section, issuers: dict[Issuer, IssuerRules], look: SecretLook) -> tuple[SourceRules, ...]:
    """Read `members`; one source per issuer, so that no two can claim one subject."""
    found: list[SourceRules] = []
    for entry in root.sections("members"):
        rules = _source(entry, issuers, look)
        if rules is None:
            continue
        if any(other.issuer == rules.issuer for other in found):
            entry.note("issuer", f"{rules.issuer} has a source already; two sources may not claim one subject")
        found.append(rules)
    return tuple(found)


def _id_range(section: Section, key: str) -> IdRange | None:
    numbers = section.numbers(key, required=True)
    if not section.has(key):
        return None
    if len(numbers) != 2:
        section.note(key, "must be two numbers, as in [20000, 59999]")
        return None
    try:
        return IdRange.parse(*numbers)
    except InvalidValue as error:
        section.note(key, str(error))
        return None


def _ids(section: Section) -> tuple[IdRange, IdRange]:
    ids = section.section("ids", required=True)
    uids, gids = _id_range(ids, "uid"), _id_range(ids, "gid")
    if uids and gids and uids != gids and uids.overlaps(gids):
        ids.note("gid", "overlaps uid in part; users and groups share one number space: make both equal or disjoint")
    ids.close()
    nothing = IdRange(1, 0)
    return uids or nothing, gids or nothing


def _subids(section: Section) -> tuple[Path | None, int]:
    if section.has("subids"):
        node = section.node("subids")
        if node is not None and node.value == "none":
            return None, 0
    subids = section.section("subids")
    folder = subids.path("folder", "/etc")
    count = subids.number("count", 65536, least=1, most=1 << 24)
    subids.close()
    return folder, count


def _name_sources(section: Section) -> tuple[str, ...]:
    names = section.section("names")
    sources = names.words("from", ("preferred_username",))
    for source in sources:
        if source != "preferred_username" and not re.match(r"attribute:[A-Za-z][\w.-]{0,63}\Z", source):
            names.note("from", f"{source!r} is neither preferred_username nor attribute:NAME")
    names.close()
    return sources


def read_accounts(root: Section) -> AccountRules:
    """Read `accounts`."""
    section = root.section("accounts", required=True)
    section.choice("store", ("files",), "files")
    uids, gids = _ids(section)
    layout = section.choice("layout", ("etc", "extrausers"), "etc")
    folder = section.path("folder", "/var/lib/extrausers" if layout == "extrausers" else "/etc")
    subid_folder, subid_count = _subids(section)
    names = _name_sources(section)
    home = section.text("home", "/home/{name}")
    if not _HOME.match(home):
        section.note("home", f"must be an absolute folder followed by {{name}}, is {home!r}")
    mode = section.text("home_mode", "0700")
    if not _MODE.match(mode) or int(mode, 8) & 0o022:
        section.note("home_mode", f"must be an octal mode in quotes that lets no other write, is {mode!r}")
        mode = "0700"
    make_homes = section.flag("make_homes", True)
    shell = section.path("shell", "/bin/bash")
    skel = None if section.text("skel", "/etc/skel") == "none" else section.path("skel", "/etc/skel")
    for key, text in (("shell", str(shell)), ("skel", str(skel)), ("folder", str(folder))):
        if ":" in text or not text.isprintable():
            section.note(key, "holds a colon or a control character")
    section.close()
    return AccountRules(
        uids=uids, gids=gids, name_sources=names, home=home, shell=str(shell), skel=skel, home_mode=int(mode, 8),
        layout=layout, folder=folder, subid_folder=subid_folder, subid_count=subid_count, make_homes=make_homes,
    )  # fmt: skip


def _limit(section: Section, key: str, most: int, percent: int) -> Limit:
    entry = section.section(key)
    limit = Limit(entry.number("most", most), entry.number("percent", percent, most=100))
    entry.close()
    return limit


def read_limits(root: Section) -> Limits:
    """Read `limits`: brakes over a rolling 24 hours."""
    section = root.section("limits")
    locks, creates = _limit(section, "locks", 5, 5), _limit(section, "creates", 50, 10)
    shrink = section.section("shrink")
    percent = shrink.number("percent", 10, most=100)
    shrink.close()
    section.close()
    return Limits(locks, creates, percent)


def _requirement(entry: Section, issuers: dict[Issuer, IssuerRules]) -> Requirement | None:
    issuer = entry.parsed("issuer", Issuer.parse)
    group = entry.parsed("group", parse_group_path)
    if issuer is not None and issuers and issuer not in issuers:
        entry.note("issuer", f"{issuer} is not one of `issuers`, byte for byte")
    entry.close()
    return Requirement(issuer, group) if issuer is not None and group is not None else None


def _audience(section: Section) -> tuple[str, ...]:
    audience = section.words("audience")
    for word in audience:
        if word in WILDCARD_AUDIENCES or not word.isprintable() or " " in word:
            section.note("audience", f"{word!r} names no single service")
    return audience


def read_login(root: Section, issuers: dict[Issuer, IssuerRules], uids: IdRange) -> LoginSettings:
    """Read `login`."""
    section = root.section("login", required=True)
    audience = _audience(section)
    requires = [_requirement(entry, issuers) for entry in section.sections("requires")]
    members = section.section("members")
    warn, deny = members.duration("warn", "15m"), members.duration("deny", "24h")
    if warn > deny:
        members.note("warn", "must not be longer than deny")
    members.close()
    peers = frozenset(section.numbers("peers", required=False)) if section.has("peers") else frozenset({0})
    if not peers:
        section.note("peers", "is empty, so nobody could ask; leave it out for root alone")
    state = "/var/lib/iam-bridge-login"
    rules = LoginRules(audience, tuple(r for r in requires if r is not None), warn, deny, (uids,))
    settings = LoginSettings(
        rules=rules,
        socket=section.path("socket", "/run/iam-bridge/login.sock"),
        peers=peers,
        user=section.text("user", "iam-bridge-login"),
        receipts=section.path("receipts", f"{state}/receipts.jsonl"),
        key_cache=section.path("key_cache", f"{state}/keys"),
    )
    section.node("peers")
    section.close()
    return settings


def read_paths(root: Section) -> StatePaths:
    """Read `paths`: where the ledger and what is made from it live."""
    section = root.section("paths")
    paths = StatePaths(
        ledger=section.path("ledger", "/var/lib/iam-bridge/ledger.db"),
        view=section.path("view", "/var/lib/iam-bridge-view/view.db"),
        bans=section.path("bans", "/var/lib/iam-bridge-view/bans"),
        journal=section.path("journal", "/var/lib/iam-bridge/journal"),
    )
    section.close()
    return paths


def read_other_doors(root: Section, login: tuple[str, ...]) -> None:
    """Read the audiences of the exchange and the gateway: a token for one door must not open another.

    `shared: accepted` says that the site knows what a shared audience means and wants it.
    """
    taken = dict.fromkeys(login, "login")
    for door in ("exchange", "gateway"):
        if not root.has(door):
            root.node(door)
            continue
        section = root.section(door)
        audience = _audience(section)
        accepted = section.choice("shared", ("accepted", "no"), "no") == "accepted"
        for word in audience:
            if word in taken and not accepted:
                section.note(
                    "audience", f"{word!r} opens {taken[word]} too; give each door its own, or say shared: accepted"
                )
            taken.setdefault(word, door)
        section.close()


def read_settings_sections(root: Section, path: Path, look: SecretLook = look_at_secret) -> Settings | None:
    """Read the whole file; None only where nothing sensible came of it (there are problems then)."""
    if root.number("version", least=0, most=1 << 16) != 1:
        root.note("version", "must be 1, the only version that this program knows")
    site = root.section("site", required=True)
    name = site.text("name")
    site.close()
    issuers = read_issuers(root, look)
    sources = read_sources(root, issuers, look)
    accounts = read_accounts(root)
    limits = read_limits(root)
    login = read_login(root, issuers, accounts.uids)
    paths = read_paths(root)
    read_other_doors(root, login.rules.audience)
    root.close()
    return Settings(name, issuers, sources, accounts, limits, login, paths, path)
