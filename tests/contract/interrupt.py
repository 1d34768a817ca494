"""Stop a piece of work at its k-th step on the disk: by the death of its process, or by an error of the system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

STEPS = ("open", "write", "fsync", "rename", "unlink", "link", "fchown", "fchmod", "mkdir", "symlink", "chown")
WRITES = ("write", "rename", "link", "mkdir", "fchown", "unlink")
"""The steps that change what a next run finds: before an open or an fsync nothing is different from after the last."""
KILLED = 77
CRASHED = 78


def _is_there(path: Any, dir_fd: int | None = None) -> bool:
    try:
        os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def counted(
    act: Callable[[int, str, tuple[Any, ...]], None], only: tuple[str, ...] = STEPS
) -> Iterator[Callable[[], int]]:
    """Call `act(number, step, arguments)` before each step; give a function that tells how many there were."""
    count = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if only is WRITES and name == "unlink" and not _is_there(args[0], **kwargs):
                return real(*args, **kwargs)
            count += 1
            act(count, name, args)
            return real(*args, **kwargs)

        return step

    patches = [patch.object(os, name, wrap(name, getattr(os, name))) for name in only]
    for each in patches:
        each.start()
    try:
        yield lambda: count
    finally:
        for each in patches:
            each.stop()


def count_steps(work: Callable[[], object], only: tuple[str, ...] = STEPS) -> int:
    """Run the work in a child; tell how many steps of these kinds it has."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with counted(lambda *_: None, only) as told:
                work()
            os.write(writing, str(told()).encode())
            os._exit(0)
        finally:
            os._exit(CRASHED)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(status) == 0, "the work failed without any interruption"
    return int(text)


def kill_at(number: int, work: Callable[[], object], only: tuple[str, ...] = STEPS) -> None:
    """Run the work in a child that dies right before its step `number`, as by kill -9; a write dies half done."""
    real_write = os.write

    def act(count: int, step: str, args: tuple[Any, ...]) -> None:
        if count == number:
            if step == "write":
                real_write(args[0], bytes(args[1])[: len(args[1]) // 2])
            os._exit(KILLED)

    pid = os.fork()
    if pid == 0:
        try:
            with counted(act, only):
                work()
        finally:
            os._exit(CRASHED)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == KILLED, f"step {number} was never reached"


@contextmanager
def failing_at(number: int, code: int, only: tuple[str, ...] = STEPS) -> Iterator[None]:
    """Let one step fail with an errno; `number` counts the steps of the kinds in `only`."""
    seen = 0

    def act(_: int, step: str, __: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += step in only
        if seen == number and step in only:
            raise OSError(code, os.strerror(code))

    with counted(act):
        yield
