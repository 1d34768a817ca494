"""From arguments to an exit status: every error becomes one sentence on standard error, and what to do next."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from iam_bridge.cli.app import build
from iam_bridge.cli.render import OutputLost, complain, prepare_streams, say_error
from iam_bridge.errors import BridgeError, Exit

TRACE_VARIABLE = "IAM_BRIDGE_TRACE"
BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells say it

# typer carries its own copy of click from some version on; the errors of both are reached from the one that it exports.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def run_command(argv: list[str]) -> int:
    """Run one command; KeyboardInterrupt is the caller's."""
    prepare_streams()
    try:
        status = _status_of(argv)
        sys.stdout.flush()
    except OutputLost as lost:
        return _drop_output(lost.__cause__)
    return status


def _status_of(argv: list[str]) -> int:
    try:
        with build().make_context("iam-bridge", argv or ["--help"]) as context:
            status = context.command.invoke(context)
    except typer.Exit as left:
        return left.exit_code
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except BridgeError as error:
        _trace()
        complain(error)
        return int(error.exit_status)
    except OutputLost:
        raise
    except _UsageError as error:
        return _complain_usage(error)
    except Exception as error:  # noqa: BLE001 the edge of the process: no user reads a stack trace
        _trace()
        say_error(
            f"internal error ({type(error).__name__})", f"run it again with {TRACE_VARIABLE}=1 and report the trace"
        )
        return int(Exit.FAILED)
    return int(status or Exit.OK)


def _complain_usage(error: Exception) -> int:
    """Say what is wrong with the arguments and where the help is."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "iam-bridge"
    message = getattr(error, "format_message", lambda: str(error))()
    say_error(message.rstrip("."), f"see {path} --help")
    return int(Exit.USAGE)


def _drop_output(why: BaseException | None) -> int:
    """Let what waits in the buffer go nowhere: the interpreter would try it again at its end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    if isinstance(why, BrokenPipeError):
        return BROKEN_PIPE
    sys.stderr.write(f"iam-bridge: the output cannot be written: {getattr(why, 'strerror', why)}\n")
    return int(Exit.FAILED)


def _trace() -> None:
    if os.environ.get(TRACE_VARIABLE):
        traceback.print_exc()
