"""Scratch sites: a folder with settings and everything they name, for runs of the provisioner and for login nodes."""

from __future__ import annotations

import os
from pathlib import Path

from iam_bridge.model.rules import Settings
from iam_bridge.settings import read_settings

AUDIENCE = "https://login.bench.example.org"
GROUP = "hpc/users"
FIRST_UID, LAST_UID = 100_000, 299_999

_TEXT = """\
version: 1
site: {{name: bench.example.org}}
issuers:
  - issuer: {issuer}
    algorithms: [RS256, ES256]
    types: [at+jwt, JWT, absent]
    ca_file: {ca_file}
members:
  - issuer: {issuer}
    kind: indigo-iam
    client: {{id: sync-client, secret_file: {folder}/sync.secret}}
    ca_file: {ca_file}
    user: nobody
    groups:
      - {{iam: hpc/users, unix: hpcusers}}
      - {{iam: hpc/gpu, unix: hpcgpu, grants_account: false}}
accounts:
  folder: {folder}/etc
  subids: {{folder: {folder}/etc, count: 65536}}
  ids: {{uid: [{first}, {last}], gid: [{first}, {last}]}}
  home: {homes}/{{name}}
  make_homes: {make_homes}
login:
  audience: [{audience}]
  requires: [{{issuer: {issuer}, group: {group}}}]
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


def make_site(folder: Path, *, issuer: str, ca_file: Path, homes: Path | None = None) -> Settings:
    """Lay out a site in a new folder that others may enter; nobody has an account on it yet, or a home without `homes`."""
    folder.mkdir(mode=0o755)
    for name in ("etc", "view"):
        (folder / name).mkdir(mode=0o755)
    (folder / "ledger").mkdir(mode=0o700)
    secret = folder / "sync.secret"
    secret.touch(mode=0o600)
    secret.write_text("sync-secret\n")
    settings = folder / "iam-bridge.yaml"
    settings.write_text(
        _TEXT.format(
            folder=folder,
            issuer=issuer,
            ca_file=ca_file,
            first=FIRST_UID,
            last=LAST_UID,
            audience=AUDIENCE,
            group=GROUP,
            homes=homes or "/home",
            make_homes=str(homes is not None).lower(),
            peer=os.geteuid(),
        )
    )
    return read_settings(settings)
