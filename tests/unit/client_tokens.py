"""Tokens that look like an IAM's and are signed by nobody: for the client, which verifies nothing."""

from __future__ import annotations

import base64
import json
import time
from typing import Any


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def make_token(size: int = 0, **claims: Any) -> str:
    """Make a token of exactly that many bytes (at least what the claims need)."""
    payload = {"iss": "https://iam.example.org/", "sub": "s-1", "exp": int(time.time()) + 600} | claims
    shortest = ".".join((segment({"alg": "RS256", "typ": "JWT"}), segment(payload), "c2ln"))
    return shortest + "A" * max(0, size - len(shortest))
