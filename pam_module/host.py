"""What the host itself says about a request."""

from __future__ import annotations

import pwd

from pam_module.wire import Request


def host_uid(request: Request) -> int | None:
    """Give the uid that NSS has for the request's user, None where it knows none."""
    try:
        return pwd.getpwnam(request.user).pw_uid
    except KeyError:
        return None
