"""Writes the seeds of the frame fuzzer: `python -m tests.fuzz.frame_seeds` from the top of the tree."""

from __future__ import annotations

from pathlib import Path

from pam_module.wire import Reply, Status, encode_reply

FOLDER = Path(__file__).with_name("seeds") / "frame"


def make_seeds() -> dict[str, bytes]:
    """Return file name → bytes: frames without their length words, a group line, an option, lengths of answers."""
    replies = {
        "permit": Reply(Status.PERMIT, 20001, "alice", "", "a1B2c3D4" * 4),
        "prompt": Reply(Status.PROMPT),
        "foreign": Reply(Status.FOREIGN),
        "deny": Reply(Status.DENY, text="This token is for another account: log in as alice.\n"),
        "deny-at-length": Reply(Status.DENY, text="x" * 1500),
        "expired": Reply(Status.EXPIRED, text="Your membership has ended."),
        "unavailable": Reply(Status.UNAVAILABLE),
        "error": Reply(Status.ERROR, text="\N{LATIN SMALL LETTER U WITH DIAERESIS}\x1b[2J"),
    }
    seeds = {name: encode_reply(reply)[4:] for name, reply in replies.items()}
    seeds["short"] = seeds["permit"][:-1]
    seeds["trailing"] = seeds["permit"] + b"\0"
    seeds["field-too-long"] = seeds["prompt"][:6] + b"\xff\xff\xff\xff"
    seeds["group-line"] = b"glass:x:900:root,alice,bob\n"
    seeds["option"] = b"uids=20000-59999,1005-1005"
    seeds["option-from-zero"] = b"uids=0-1000"
    seeds["option-too-many"] = b"uids=" + b",".join([b"1-2"] * 17)
    seeds["answers"] = bytes([0] * 23 + [2])
    seeds["answers-too-many"] = bytes([9] * 30)
    seeds["answers-too-long"] = bytes([9] * 23 + [7])
    return seeds


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in make_seeds().items():
        (FOLDER / name).write_bytes(data)
