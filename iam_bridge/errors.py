"""What can go wrong, in one tree, and every way to be refused.

Each error carries a stable `code` for programs, an exit status for shells (design 5.3) and a hint that says what to
do next. Adapters turn foreign exceptions into these; nothing else leaves them.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class Exit(IntEnum):
    """Exit status of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    PENDING = 4
    UNAVAILABLE = 75


class BridgeError(Exception):
    """The one root: what happened and where, with a hint that says what to do next."""

    code = "failed"
    exit_status = Exit.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InvalidValue(BridgeError, ValueError):
    """A text that is not the value it should be."""

    code = "invalid-value"
    exit_status = Exit.USAGE


class SettingsError(BridgeError):
    """The settings file cannot be believed; `problems` holds every finding, not only the first."""

    code = "settings"
    exit_status = Exit.USAGE

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class SourceUnavailable(BridgeError):
    """An identity provider or another server gave no usable answer; trying again may help."""

    code = "unavailable"
    exit_status = Exit.UNAVAILABLE


class RunLocked(BridgeError):
    """Another run holds the lock; the message says who."""

    code = "locked"
    exit_status = Exit.UNAVAILABLE


class RefusedByGuard(BridgeError):
    """A limit or a rule stands against what was asked."""

    code = "refused"
    exit_status = Exit.REFUSED


class LedgerError(BridgeError):
    """The ledger cannot be read, does not fit the store, or would be contradicted."""

    code = "ledger"


class StoreError(BridgeError):
    """The account store could not be read or written."""

    code = "store"


class ViewError(BridgeError):
    """The view or the ban list cannot be used: absent, foreign, damaged or older than the one in use."""

    code = "view"


class Reason(Enum):
    """Every way to be refused; the value is the stable code that logs, receipts and commands show."""

    # the secret is no token that we could look at
    EMPTY = "empty"
    JUNK_FROM_SSHD = "junk-from-sshd"
    NOT_A_TOKEN = "not-a-token"
    TOO_LONG = "too-long"
    TRUNCATED = "truncated"
    # header and signature
    BAD_HEADER = "bad-header"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    NO_KEYS = "no-keys"
    # claims
    BAD_CLAIMS = "bad-claims"
    UNTRUSTED_ISSUER = "untrusted-issuer"
    NO_AUDIENCE = "no-audience"
    WRONG_AUDIENCE = "wrong-audience"
    NO_EXPIRY = "no-expiry"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    NO_SUBJECT = "no-subject"
    CLIENT_TOKEN = "client-token"
    ID_TOKEN = "id-token"
    BOUND_TOKEN = "bound-token"
    INACTIVE = "inactive"
    ISSUER_UNREACHABLE = "issuer-unreachable"
    # the person and the account
    BANNED = "banned"
    NOT_OURS = "not-ours"
    ORPHAN = "orphan"
    NO_ACCOUNT = "no-account"
    WRONG_NAME = "wrong-name"
    UID_MISMATCH = "uid-mismatch"
    LOCKED = "locked"
    SUSPENDED = "suspended"
    LEFT = "left"
    NO_RULES = "no-rules"
    NOT_A_MEMBER = "not-a-member"
    TOKEN_LACKS_GROUP = "token-lacks-group"
    STALE_MEMBERS = "stale-members"
    # our own troubles
    NO_VIEW = "no-view"
    INTERNAL = "internal"


class TokenRefused(BridgeError):
    """A token that is not accepted, with the reason; `detail` goes to the log and never holds token text."""

    code = "token-refused"
    exit_status = Exit.REFUSED

    def __init__(self, reason: Reason, detail: str = "", *, hint: str = "") -> None:
        super().__init__(f"token refused: {reason.value}" + (f" ({detail})" if detail else ""), hint=hint)
        self.reason = reason
        self.detail = detail
