"""Settings written back in the form of the file, defaults filled in; secrets stay in their files.

What comes out is a settings file again: reading it gives the same settings.
"""

from __future__ import annotations

from typing import Any

from iam_bridge.model.rules import AccountRules, ClientSettings, IssuerRules, Limit, Settings, SourceRules

Document = dict[str, Any]
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_SPELLED = {"jwt": "JWT"}


def duration(seconds: float) -> str:
    """Write a duration in the largest unit that holds it whole: 2d, 90s."""
    whole = int(seconds)
    size, unit = next(((size, unit) for size, unit in _UNITS if whole and whole % size == 0), (1, "s"))
    return f"{whole // size}{unit}"


def document_of(settings: Settings) -> Document:
    """Give the settings as plain values in the shape of the file; what is not set at all is left out."""
    rules, login, paths = settings.login.rules, settings.login, settings.paths
    document = {
        "version": 1,
        "site": {"name": settings.site},
        "issuers": [_issuer(entry) for entry in settings.issuers.values()],
        "members": [_source(entry) for entry in settings.sources],
        "accounts": _accounts(settings.accounts),
        "limits": {
            "locks": _limit(settings.limits.locks),
            "creates": _limit(settings.limits.creates),
            "shrink": {"percent": settings.limits.shrink_percent},
        },
        "login": {
            "audience": list(rules.audience),
            "requires": [{"issuer": r.issuer.url, "group": r.group} for r in rules.requires],
            "members": {"warn": duration(rules.members_warn_s), "deny": duration(rules.members_deny_s)},
            "socket": str(login.socket),
            "peers": sorted(login.peers),
            "user": login.user,
            "receipts": str(login.receipts),
            "key_cache": str(login.key_cache),
        },
        "paths": {
            "ledger": str(paths.ledger),
            "view": str(paths.view),
            "bans": str(paths.bans),
            "journal": str(paths.journal),
        },
    }
    return {section: _without_none(value) for section, value in document.items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _client(client: ClientSettings | None) -> Document | None:
    return None if client is None else {"id": client.client_id, "secret_file": _text(client.secret_file)}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _issuer(rules: IssuerRules) -> Document:
    return {
        "issuer": rules.issuer.url,
        "algorithms": list(rules.algorithms),
        "types": [_SPELLED.get(word, word) for word in sorted(rules.types)],
        "client": _client(rules.client),
        "ca_file": _text(rules.ca_file),
        "validation": rules.validation,
        "keys": {"refresh": duration(rules.refresh_s), "usable": duration(rules.usable_s)},
        "timeout": duration(rules.timeout_s),
        "down": rules.down,
    }


def _source(rules: SourceRules) -> Document:
    return {
        "issuer": rules.issuer.url,
        "kind": rules.kind,
        "client": _client(rules.client),
        "ca_file": _text(rules.ca_file),
        "file": _text(rules.file),
        "timeout": duration(rules.timeout_s),
        "user": rules.user,
        "trusted_attributes": sorted(rules.trusted_attributes),
        "groups": [
            {"iam": g.iam, "unix": _text(g.unix), "grants_account": g.grants_account, "adopt": g.adopt}
            for g in rules.groups
        ],
    }


def _accounts(rules: AccountRules) -> Document:
    subids = {"folder": str(rules.subid_folder), "count": rules.subid_count}
    return {
        "store": "files",
        "layout": rules.layout,
        "folder": str(rules.folder),
        "subids": "none" if rules.subid_folder is None else subids,
        "ids": {"uid": [rules.uids.low, rules.uids.high], "gid": [rules.gids.low, rules.gids.high]},
        "names": {"from": list(rules.name_sources)},
        "home": rules.home,
        "home_mode": f"{rules.home_mode:04o}",
        "make_homes": rules.make_homes,
        "skel": _text(rules.skel) or "none",
        "shell": rules.shell,
    }


def _limit(limit: Limit) -> Document:
    return {"most": limit.most, "percent": limit.percent}
