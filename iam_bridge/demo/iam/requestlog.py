"""What was asked of the embedded IAM: method, path and query; never a header, a body or a token."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

KEPT = 200_000


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it came in.  An administrative one (`/-/…`) is never recorded."""

    method: str
    path: str
    query: str


class RequestLog:
    """Counts per path, and the last requests in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._requests: deque[SeenRequest] = deque(maxlen=KEPT)

    def record(self, request: SeenRequest) -> None:
        """Keep one request."""
        with self._lock:
            self._counts[request.method, request.path] += 1
            self._requests.append(request)

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts.clear()
            self._requests.clear()

    def requests(self) -> list[SeenRequest]:
        """List the requests since the last reset, oldest first."""
        with self._lock:
            return list(self._requests)

    def count(self, path: str | None = None, method: str | None = None) -> int:
        """Count requests of exactly this path and method; None counts all, `/scim/*` a prefix."""
        with self._lock:
            return sum(
                number
                for (seen_method, seen_path), number in self._counts.items()
                if method in {None, seen_method} and _matches(seen_path, path)
            )

    def by_path(self) -> dict[str, int]:
        """Give the counts per path."""
        with self._lock:
            paths: Counter[str] = Counter()
            for (_, path), number in self._counts.items():
                paths[path] += number
            return dict(paths)


def _matches(seen: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return seen.startswith(wanted[:-1]) if wanted.endswith("*") else seen == wanted
