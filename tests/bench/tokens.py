"""Tokens minted beforehand, none of which is used twice, on all processors at once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from functools import partial

from iam_bridge.demo.iam import EmbeddedIam
from tests.bench.iam_process import FORK
from tests.bench.sites import AUDIENCE

PROFILE = "wlcg"


def mint(iam: EmbeddedIam, people: Sequence[str], *, key: str = "rsa1", kid: str | None = None) -> list[str]:
    """Mint one token for each entry of `people`, in their order; another `kid` makes tokens of an unknown key."""
    # Workers share the seed of the IAM that they were forked from, so the identifiers are given from here.
    batch = secrets.token_hex(8)
    jobs = [(person, f"{batch}-{number}") for number, person in enumerate(people)]
    work = partial(_mint_one, iam, key, {"kid": kid} if kid else {})
    if len(jobs) < 500:
        return [work(job) for job in jobs]
    with FORK.Pool(os.cpu_count(), _take, (work,)) as pool:
        return pool.map(_do, jobs, chunksize=200)


def _mint_one(iam: EmbeddedIam, key: str, headers: dict[str, str], job: tuple[str, str]) -> str:
    person, jti = job
    return iam.mint(person, profile=PROFILE, audience=AUDIENCE, key=key, headers=headers, claims={"jti": jti})


_work: list[partial[str]] = []
"""What a worker does; it came with the fork, since an IAM of 100 000 people is too much to send for each token."""


def _take(work: partial[str]) -> None:
    _work.append(work)


def _do(job: tuple[str, str]) -> str:
    return _work[0](job)
