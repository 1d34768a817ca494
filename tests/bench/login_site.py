"""The login node of the demo, whole: an IAM, accounts, the daemon, and sshd in a private mount namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.demo.cluster import Cluster, running_cluster
from iam_bridge.demo.iam import EmbeddedIam, demo_people
from iam_bridge.demo.scratch import AUDIENCE, make_site
from tests.bench.iam_process import forked_iam
from tests.bench.tokens import PROFILE

PERSON = "ada"


@dataclass(frozen=True, slots=True)
class LoginSite:
    """One person with an account on it: `name` and `uid`."""

    iam: EmbeddedIam
    cluster: Cluster
    name: str
    uid: int

    @property
    def socket(self) -> Path:
        """Give where the daemon listens."""
        return self.cluster.site.socket

    @property
    def daemon_user(self) -> str:
        """Give whom the module expects there."""
        return self.cluster.site.daemon_user

    def mint(self, *, pad_to: int | None = None) -> str:
        """Give a new token of the person, with `pad_to` of exactly so many bytes."""
        return self.iam.mint(PERSON, profile=PROFILE, audience=AUDIENCE, pad_to=pad_to)

    def run(self, argv: Sequence[str | Path]) -> str:
        """Run a program where NSS knows the accounts, and give what it prints; raise RuntimeError where it fails."""
        return _checked(self.cluster.run([str(word) for word in argv]))

    def log_in(self, token: str) -> None:
        """Log in by ssh; raise RuntimeError where that fails."""
        said = _checked(self.cluster.ssh_by_token(self.name, token, "id", "-u"))
        if said.strip() != str(self.uid):
            raise RuntimeError(f"logged in as uid {said.strip()}, not {self.uid}")


def _checked(ran: subprocess.CompletedProcess[str]) -> str:
    if ran.returncode != 0:
        raise RuntimeError(f"status {ran.returncode}: {ran.stdout[-300:]}{ran.stderr[-600:]}")
    return ran.stdout


@contextmanager
def running_login_site(folder: Path) -> Iterator[LoginSite]:
    """Run everything, as root, until the block ends."""
    with forked_iam(demo_people(), folder) as served:
        site = make_site(folder, issuer=served.iam.issuer, rooted=True)
        with running_cluster(site) as cluster:
            _checked(cluster.bridge("provision", "run"))
            uid = int(_checked(cluster.run(["id", "-u", PERSON])))
            yield LoginSite(served.iam, cluster, PERSON, uid)
