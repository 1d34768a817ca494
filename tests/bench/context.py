"""What several measurements share: one scratch folder, one IAM of many people, login nodes, programs, tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from iam_bridge.demo.cluster import what_is_missing
from iam_bridge.demo.iam import synthetic_people
from pam_module.wire import Request
from tests.bench.iam_process import IamProcess, forked_iam
from tests.bench.load import auth_request, compile_c, write_frames
from tests.bench.login_site import LoginSite, running_login_site
from tests.bench.node import Node, make_node
from tests.bench.tokens import mint

HERE = Path(__file__).parent
FEW, MANY = 10, 100_000
_STRIDE = 7919
"""Coprime to every number of accounts used here: logins go through all of them, far from each other in the view."""


class Context:
    """Made when first asked for, gone with the run."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self.folder = folder
        self._held = held
        self._folders = 0
        self._minted: dict[Path, int] = {}

    def new_folder(self) -> Path:
        """Give a fresh folder that other users may enter."""
        self._folders += 1
        folder = self.folder / f"scratch{self._folders}"
        folder.mkdir(mode=0o755)
        return folder

    @cached_property
    def iam(self) -> IamProcess:
        """Give an IAM of `MANY` people in a process of its own."""
        return self._held.enter_context(forked_iam(synthetic_people(MANY), self.folder / "iam"))

    @cached_property
    def small(self) -> Node:
        """Give a login node with `FEW` accounts."""
        return make_node(self.folder / "few", self.iam, FEW)

    @cached_property
    def big(self) -> Node:
        """Give a login node with `MANY` accounts."""
        return make_node(self.folder / "many", self.iam, MANY)

    @cached_property
    def why_no_logins(self) -> str:
        """Say why nobody can log in here; empty where they can."""
        return "a private mount namespace needs root" if os.geteuid() != 0 else what_is_missing(rooted=True)

    @cached_property
    def login_site(self) -> LoginSite:
        """Give a login node with sshd."""
        return self._held.enter_context(running_login_site(self.new_folder()))

    @cached_property
    def load(self) -> Path:
        """Give the compiled load program."""
        return compile_c(HERE / "load.c", self.folder)

    def requests(self, node: Node, count: int, *, key: str = "rsa1", kid: str | None = None) -> list[Request]:
        """Give so many login requests, each with a token that was never used."""
        begin = self._minted.get(node.folder, 0)
        self._minted[node.folder] = begin + count
        chosen = [number * _STRIDE % len(node.people) for number in range(begin, begin + count)]
        tokens = mint(self.iam.iam, [node.people[number] for number in chosen], key=key, kid=kid)
        return [
            auth_request(node.people[number], node.uid_of(number), token)
            for number, token in zip(chosen, tokens, strict=True)
        ]

    def frames(self, node: Node, count: int) -> Path:
        """Give a file of so many login requests for the load program."""
        path = self.new_folder() / "frames"
        write_frames(path, self.requests(node, count))
        return path


@contextmanager
def new_context() -> Iterator[Context]:
    """Give a context whose folder and processes end with the block."""
    os.umask(0o022)  # the daemon and the pull enter these folders under other names
    with TemporaryDirectory(prefix="iam-bridge-bench-") as scratch, ExitStack() as held:
        folder = Path(scratch)
        folder.chmod(0o755)
        yield Context(folder, held)
