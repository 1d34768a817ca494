"""A login node with a real sshd in a private mount namespace, an embedded IAM, and people who came by a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.demo.cluster import Cluster, running_cluster, what_is_missing
from iam_bridge.demo.iam.remote import RemoteIam, spawned_iam
from iam_bridge.demo.scratch import AUDIENCE, make_site

Ran = subprocess.CompletedProcess[str]


@dataclass
class Node:
    """The login node and its IAM."""

    cluster: Cluster
    iam: RemoteIam
    key: Path

    def mint(self, person: str, **options: Any) -> str:
        return str(self.iam.call("mint", person=person, **{"profile": "wlcg", "audience": AUDIENCE, **options}))

    def newcomer(self, name: str) -> str:
        """Give the IAM one more member and an account to them."""
        self.iam.call("add-person", username=name, groups=["hpc/users"])
        self.provision()
        return name

    def provision(self, *arguments: str, status: int = 0) -> Ran:
        ran = self.cluster.bridge("provision", "run", *arguments)
        assert ran.returncode == status, ran.stdout + ran.stderr
        return ran

    def by_token(self, name: str, token: str, *command: str) -> Ran:
        return self.cluster.ssh_by_token(name, token, *(command or ("id", "-un")))

    def by_key(self, name: str, *command: str) -> Ran:
        self.cluster.authorize(self.key, name)
        return self.cluster.ssh_by_key(name, self.key, *(command or ("id", "-un")))

    @property
    def daemon_log(self) -> str:
        return (self.cluster.site.folder / "logind.log").read_text()


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: a real sshd for other uids needs root")
    if missing := what_is_missing(rooted=True):
        pytest.fail(missing)
    folder = Path(tempfile.mkdtemp(prefix="iam-bridge-e2e-"))
    folder.chmod(0o755)
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    try:
        with spawned_iam(folder, "--data", "demo") as iam:
            iam.call("switch", include_attributes=["posix_username"])
            (folder / "ca.pem").chmod(0o644)
            site = make_site(folder, issuer=iam.issuer, rooted=True)
            with running_cluster(site) as cluster:
                made = Node(cluster, iam, key)
                made.provision()
                yield made
    finally:
        shutil.rmtree(folder)
