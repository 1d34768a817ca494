"""What a check found wrong, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold: a stable code for programs, a sentence, and the next step."""

    code: str
    what: str
    hint: str
