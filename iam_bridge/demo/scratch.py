"""A scratch site: one folder that holds everything that an installation of IAM bridge has, and its settings."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

AUDIENCE = "https://login.demo.example.org"
UIDS = (20000, 20999)
LOCAL_PERSON = "lovelace"
"""Without root sshd opens its own uid only: it belongs to somebody who was here before us and is adopted."""
_SETTINGS = """\
version: 1
site: {{name: demo.example.org}}
issuers:
  - issuer: {issuer}
    algorithms: [RS256, ES256]
    types: [at+jwt, JWT, absent]   # tokens of INDIGO IAM 1.12 have no typ header
    ca_file: {folder}/ca.pem
members:
  - issuer: {issuer}
    kind: indigo-iam
    client: {{id: sync-client, secret_file: {folder}/sync.secret}}
    ca_file: {folder}/ca.pem
    user: nobody
    trusted_attributes: [posix_username]
    groups:
      - {{iam: hpc/users, unix: hpcusers}}
      - {{iam: hpc/gpu, unix: hpcgpu, grants_account: false}}
accounts:
  layout: {layout}
  folder: {folder}/accounts
  subids: {{folder: {folder}/accounts, count: 65536}}
  ids: {{uid: [{low}, {high}], gid: [{low}, {high}]}}
  names: {{from: ["attribute:posix_username", preferred_username]}}
  home: {folder}/home/{{name}}
  make_homes: {rooted}
login:
  audience: [{audience}]
  requires: [{{issuer: {issuer}, group: hpc/users}}]
  socket: {folder}/run/login.sock
  peers: [{peer}]
  user: nobody
  receipts: {folder}/login/receipts.jsonl
  key_cache: {folder}/login/keys
paths:
  ledger: {folder}/ledger/ledger.db
  view: {folder}/view/view.db
  bans: {folder}/view/bans
  journal: {folder}/ledger/journal
"""


@dataclass(frozen=True, slots=True)
class ScratchSite:
    """Where the parts of the scratch site are; `rooted` where it may make accounts of other uids."""

    folder: Path
    rooted: bool

    @property
    def settings(self) -> Path:
        """Give the settings file."""
        return self.folder / "iam-bridge.yaml"

    @property
    def accounts(self) -> Path:
        """Give the folder of passwd, group and shadow."""
        return self.folder / "accounts"

    @property
    def socket(self) -> Path:
        """Give the login daemon's socket."""
        return self.folder / "run" / "login.sock"

    @property
    def daemon_user(self) -> str:
        """Name the user that the login daemon runs as."""
        return "nobody" if self.rooted else str(os.geteuid())


def make_site(folder: Path, *, issuer: str, rooted: bool) -> ScratchSite:
    """Write the folders, the secret and the settings of a scratch site; the CA certificate is there already."""
    site = ScratchSite(folder, rooted)
    for name in ("accounts", "home", "run", "view", "login", "ledger"):
        (folder / name).mkdir()
        (folder / name).chmod(0o700 if name in ("login", "ledger") else 0o755)
    if not rooted:
        _write_local_people(folder / "accounts")
    else:
        nobody = pwd.getpwnam("nobody")
        for name in ("run", "login"):
            os.chown(folder / name, nobody.pw_uid, nobody.pw_gid)
    secret = folder / "sync.secret"
    secret.touch(mode=0o600)
    secret.write_text("sync-secret\n")
    text = _SETTINGS.format(
        issuer=issuer,
        folder=folder,
        layout="extrausers" if rooted else "etc",
        rooted=str(rooted).lower(),
        low=UIDS[0],
        high=UIDS[1],
        audience=AUDIENCE,
        peer=0 if rooted else os.geteuid(),
    )
    site.settings.write_text(text)
    site.settings.chmod(0o644)
    return site


def _write_local_people(folder: Path) -> None:
    """Write the rows that a host has before us: sshd needs root's and its own, and one person is here already."""
    me, group = os.geteuid(), os.getegid()
    (folder / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{LOCAL_PERSON}:x:{me}:{group}::{folder.parent / 'home' / LOCAL_PERSON}:/bin/sh\n"
    )
    (folder / "group").write_text(f"root:x:0:\n{LOCAL_PERSON}:x:{group}:\n")
    (folder / "shadow").write_text(f"root:*:19000::::::\n{LOCAL_PERSON}:*:19000::::::\n")
    (folder / "shadow").chmod(0o600)
    (folder.parent / "home" / LOCAL_PERSON).mkdir(mode=0o700)
