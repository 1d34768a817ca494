"""What the contract suite needs of a store under test, beyond the port: a look from outside, and other people's rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provisioner.stores.files import FilesStore
from tests.contract.people import rules_for

FOREIGN = {
    "passwd": b"root:x:0:0:root:/root:/bin/bash\n# a comment\n\nlocal:x:1001:1001:L\xe9on,,,:/home/local:/bin/zsh\n",
    "group": b"root:x:0:\nstaff:x:50:local\nlocal:x:1001:\n",
    "shadow": b"root:!:19000::::::\nlocal:$y$j9T$x$y:19000:0:99999:7::20500:\n",
    "gshadow": b"root:*::\nstaff:!::local\nlocal:!::\n",
    "subuid": b"local:100000:65536\n",
    "subgid": b"local:100000:65536\n",
}
TODAY = 20000


@dataclass
class FilesHarness:
    """A files store in a scratch folder, in one of its layouts."""

    folder: Path
    layout: str

    @property
    def kinds(self) -> tuple[str, ...]:
        kinds = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
        return kinds if self.layout == "etc" else tuple(kind for kind in kinds if kind != "gshadow")

    @property
    def journal(self) -> Path:
        return self.folder.parent / "journal"

    def store(self, lock_timeout_s: float = 0.2) -> FilesStore:
        """A store as a new process would make it."""
        rules = rules_for(self.folder, layout=self.layout, subids=self.folder)
        return FilesStore(rules, journal=self.journal, today=lambda: TODAY, lock_timeout_s=lock_timeout_s)

    def seed(self) -> None:
        """Put other people's rows there."""
        for kind in self.kinds:
            self.path(kind).write_bytes(FOREIGN[kind])
            self.path(kind).chmod(0o640 if "shadow" in kind else 0o644)

    def path(self, kind: str) -> Path:
        return self.folder / kind

    def lines(self, kind: str) -> list[bytes]:
        return self.path(kind).read_bytes().splitlines() if self.path(kind).exists() else []

    def set_expiry(self, name: str, text: str) -> None:
        """Do what `chage -E` does."""
        rows = [line.split(b":") for line in self.lines("shadow")]
        for row in rows:
            if row[0] == name.encode():
                row[7] = text.encode()
        self.path("shadow").write_bytes(b"".join(b":".join(row) + b"\n" for row in rows))

    def contents(self) -> dict[str, bytes]:
        """Every file that lies there, temporary ones and locks too, with the journal; `.pwd.lock` stays by design."""
        found = {entry.name: Path(entry.path).read_bytes() for entry in os.scandir(self.folder) if entry.is_file()}
        found.pop(".pwd.lock", None)
        return {**found, **({"journal": self.journal.read_bytes()} if self.journal.exists() else {})}

    def fingerprint(self) -> Sequence[object]:
        """Changes with any write: inode, size, times and names of everything, and of the folders themselves."""
        paths = [self.folder, self.folder.parent, *sorted(self.folder.iterdir())]
        stats = [(path, path.lstat()) for path in paths]
        return [(str(p), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for p, s in stats]
