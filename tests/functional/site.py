"""A whole site in one folder: settings, people, accounts, homes, ledger; and the real command against it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.functional.forked import run_forked

PROGRAM = str(Path(sys.executable).with_name("iam-bridge"))
ISSUER = "https://iam.example.org/"


def _take_numbers() -> tuple[socket.socket, int]:
    """Take a thousand numbers for this process alone: a lock ends the processes of its uid, other tests' too.

    The name of an abstract socket (unix(7)) is free again when its process has ended.
    """
    for first in range(30000, 60000, 1000):
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0iam-bridge-test-numbers-{first}")
        except OSError:
            mark.close()
        else:
            return mark, first
    raise AssertionError("more than 30 test processes are at work")


_MARK, FIRST = _take_numbers()
LAST = FIRST + 999
STORE_FILES = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
IS_ROOT = os.geteuid() == 0

_SETTINGS = """\
version: 1
site: {{name: hpc.example.org}}
issuers:
  - issuer: {issuer}
    algorithms: [RS256]
members:
  - issuer: {issuer}
{source}
    user: nobody
    groups:
      - {{iam: hpc/users, unix: hpcusers}}
      - {{iam: hpc/gpu, unix: hpcgpu, grants_account: false}}
accounts:
  folder: {folder}/etc
  subids: {{folder: {folder}/etc, count: 65536}}
  ids: {{uid: [{first}, {last}], gid: [{first}, {last}]}}
  home: {folder}/home/{{name}}
  skel: none
  make_homes: {homes}
limits:
{limits}
login:
  audience: [https://login.hpc.example.org]
  requires: [{{issuer: {issuer}, group: hpc/users}}]
paths:
  ledger: {folder}/state/ledger.db
  view: {folder}/view/view.db
  bans: {folder}/view/bans
  journal: {folder}/state/journal
"""
LIMITS = "  locks: {most: 2, percent: 5}\n  creates: {most: 50, percent: 10}"
SYSTEM_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
SYSTEM_GROUP = "root:x:0:\nnogroup:x:65534:\n"
SYSTEM_SHADOW = "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


def sub_of(name: str) -> str:
    """Give the subject of a member by user name; hostile names must not break it."""
    return "s-" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name[:60])


@dataclass
class People:
    """The people file of a site, written anew at each change."""

    path: Path
    rows: dict[str, tuple[bool, tuple[str, ...]]] = field(default_factory=dict)

    def put(self, name: str, *groups: str, active: bool = True) -> None:
        self.rows[name] = (active, groups or ("hpc/users",))
        self.write()

    def remove(self, *names: str) -> None:
        for name in names:
            del self.rows[name]
        self.write()

    def write(self) -> None:
        lines = ["version: 1", "groups: [hpc/users, hpc/gpu]", "people:" if self.rows else "people: []"]
        for number, (name, (active, groups)) in enumerate(sorted(self.rows.items())):
            listed = ", ".join(groups)
            lines.append(
                f"  - {{sub: {sub_of(name)}, username: {json.dumps(name)}, active: {str(active).lower()}, "
                f'created: "2024-01-01T00:{number // 60:02}:{number % 60:02}Z", groups: [{listed}]}}'
            )
        self.path.write_text("\n".join(lines) + "\n")
        self.path.chmod(0o644)


def iam_source(ca_file: Path, secret: Path) -> str:
    """Give the part of the settings that pulls from an embedded IAM."""
    return f"    kind: indigo-iam\n    client: {{id: sync-client, secret_file: {secret}}}\n    ca_file: {ca_file}"


class Scratch:
    """One site under `folder`; `source` is the part of the settings that says where members come from.

    With `user` everything belongs to that uid and the commands run as it: no home can be given to anybody then.
    With `prefix` the commands run in another mount namespace, where the folder is `inside`.
    """

    def __init__(
        self, folder: Path, *, issuer: str = ISSUER, source: str = "", limits: str = LIMITS, user: int | None = None,
        inside: Path | None = None, prefix: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.folder = folder
        self.inside = inside or folder
        self.prefix = prefix
        self.spawns = False
        """Whether each command is a program of its own: where this process has threads at work."""
        self.issuer = issuer
        self.user = user
        folder.chmod(0o755)
        for name in ("etc", "home"):
            (folder / name).mkdir()
        (folder / "state").mkdir(mode=0o700)
        self.people = People(folder / "people.yaml")
        self.settings = folder / "iam-bridge.yaml"
        source = source or f"    kind: file\n    file: {self.inside}/people.yaml"
        homes = "false" if user else "true"
        self.settings.write_text(
            _SETTINGS.format(
                issuer=issuer, source=source, folder=self.inside, first=FIRST, last=LAST, limits=limits, homes=homes
            )
        )
        self.settings.chmod(0o644)
        self.write_etc()
        if user:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user, user)

    def write_etc(self, *, passwd: str = "", group: str = "", shadow: str = "") -> None:
        """Write the host's rows as they were before us, and those of the test."""
        self.etc("passwd").write_text(SYSTEM_PASSWD + passwd)
        self.etc("group").write_text(SYSTEM_GROUP + group)
        self.etc("shadow").write_text(SYSTEM_SHADOW + shadow)
        self.etc("shadow").chmod(0o600)

    def etc(self, name: str) -> Path:
        return self.folder / "etc" / name

    @property
    def ledger(self) -> Path:
        return self.folder / "state" / "ledger.db"

    def argv(self, *arguments: str) -> list[str]:
        return [*self.prefix, PROGRAM, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "IAM_BRIDGE_CONFIG": f"{self.inside}/iam-bridge.yaml",
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def bridge(self, *arguments: str, nss: bool = False, stdin: str = "", **environment: str) -> Ran:
        """Run `iam-bridge`; with `nss` the host's name service answers from the site's files."""
        if nss or self.user or self.prefix or self.spawns:
            ran = self.spawn(*arguments, stdin=stdin, **(environment | (self.name_service() if nss else {})))
        else:
            ran = Ran(*run_forked(arguments, self.environment(**environment), stdin))
        assert "Traceback" not in ran.all, ran.all
        return ran

    def spawn(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """Run `iam-bridge` as a program of its own."""
        done = subprocess.run(
            self.argv(*arguments), env=self.environment(**environment), input=stdin, capture_output=True, text=True,
            timeout=60, check=False, user=self.user, group=self.user, extra_groups=() if self.user else None,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def name_service(self) -> dict[str, str]:
        """Give the environment in which libnss_wrapper answers from the site's files."""
        return {
            "LD_PRELOAD": "libnss_wrapper.so",
            "NSS_WRAPPER_PASSWD": f"{self.inside}/etc/passwd",
            "NSS_WRAPPER_GROUP": f"{self.inside}/etc/group",
        }

    def rows(self, name: str) -> dict[str, list[str]]:
        """Read a file of the store by name of the row."""
        lines = self.etc(name).read_text().splitlines()
        return {line.split(":")[0]: line.split(":") for line in lines}

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Give inode and change time of every file of the store."""
        found = ((name, self.etc(name)) for name in STORE_FILES)
        return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in found if path.exists()}

    def set_up(self, names: Iterable[str] = ("ada", "grace")) -> Scratch:
        """Put members into the group and make their accounts."""
        for name in names:
            self.people.put(name)
        ran = self.bridge("provision", "run")
        assert ran.status == 0, ran.all
        return self
