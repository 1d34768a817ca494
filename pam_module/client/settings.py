"""The researcher's settings: which audience, issuer and oidc-agent account belong to which host.

`~/.config/iam-bridge/client.yaml`; a host that stands there is one that a token may be given to without iam-ssh. A
file that others could change is not believed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iam_bridge import strict_yaml
from iam_bridge.errors import InvalidValue, SettingsError
from iam_bridge.model.identity import Issuer, has_control
from iam_bridge.settings_read import Problems, Section

FILE_MAX = 1 << 20
_HOST = re.compile(r"[a-z0-9_.:-]{1,255}\Z")  # names and addresses as ssh shows them, in small letters


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What a token for one host must be, and whom to ask for it: an oidc-agent account, or an issuer."""

    audience: str | None = None
    issuer: Issuer | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """All of client.yaml; without the file, nothing is known of any host."""

    hosts: Mapping[str, HostSettings] = field(default_factory=dict)
    default: HostSettings = HostSettings()

    def find_host(self, host: str) -> HostSettings:
        """Give what is set for a host, filled up from the default; the audience is the host's own or none."""
        own = self.hosts.get(host.lower(), HostSettings())
        if own.account or own.issuer:
            return own
        return HostSettings(own.audience, self.default.issuer, self.default.account)


def _parse_word(text: str) -> str:
    if has_control(text) or " " in text:
        raise InvalidValue(f"{text!r} holds a blank or a control character")
    return text


def _read_source(section: Section) -> HostSettings:
    issuer = section.parsed("issuer", Issuer.parse, "")
    account = section.parsed("account", _parse_word, "")
    return HostSettings(None, issuer, account)


def _read_host(section: Section) -> HostSettings:
    source = _read_source(section)
    audience = section.parsed("audience", _parse_word)
    section.close()
    return HostSettings(audience, source.issuer, source.account)


def _read_hosts(root: Section, problems: Problems) -> dict[str, HostSettings]:
    node = root.node("hosts")
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        root.note("hosts", "must be a mapping of host names")
        return {}
    hosts: dict[str, HostSettings] = {}
    for name, item in node.value.items():
        if not _HOST.match(name):
            problems.note(
                item.line, f"hosts.{name!r}", "is no host name; write it in small letters, without user or port"
            )
        hosts[name] = _read_host(Section.of(item, f"hosts.{name}", problems))
    return hosts


def parse_client_settings(text: str, where: str = "client.yaml") -> ClientSettings:
    """Read the settings; raise SettingsError with every problem and its line."""
    problems = Problems()
    try:
        root = Section.of(strict_yaml.load(text), "", problems)
    except InvalidValue as error:
        raise SettingsError(f"{where}: {error}", problems=(str(error),)) from error
    version = root.number("version")
    if version != 1:
        root.note("version", "must be 1")
    hosts = _read_hosts(root, problems)
    default_section = root.section("default")
    default = _read_source(default_section)
    default_section.close()
    root.close()
    found = problems.in_order()
    if found:
        raise SettingsError(f"{where}: {'; '.join(found)}", problems=found)
    return ClientSettings(hosts, default)


def settings_path(environ: Mapping[str, str]) -> Path:
    """Name the settings file (XDG Base Directory Specification: an unset or relative XDG_CONFIG_HOME is ~/.config)."""
    base = environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path(environ.get("HOME", "/")) / ".config"
    return folder / "iam-bridge" / "client.yaml"


def read_client_settings(path: Path, *, uid: int) -> ClientSettings:
    """Read the file; a missing one is empty. Raise SettingsError for one that cannot be believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SettingsError(f"{path} is no regular file")
            if status.st_uid not in (uid, 0) or status.st_mode & 0o022:
                raise SettingsError(f"{path} could be changed by others", hint=f"run: chmod go-w {path}")
            raw = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        return ClientSettings()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > FILE_MAX:
        raise SettingsError(f"{path} is larger than {FILE_MAX} bytes")
    try:
        return parse_client_settings(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no UTF-8 text") from error
