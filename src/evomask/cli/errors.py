"""How a command ends: a mistake of the user in one line and exit code 2, a signal in 130 or 143, a reader that has left, such
as `head`, in 141; and which process says so.
"""

import os
import signal
import sys
from collections.abc import Callable


def exit_code(command: Callable[[], object]) -> int:
    """Run a command; returns its exit code, and says in one line why it is not 0.

    Raises:
        Exception: it was no user's mistake; or any, with EVOMASK_TRACEBACK set.
    """
    try:
        code = _code_of(command)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return _fail("stopped by SIGINT", 130)
    except Exception as error:
        signum = getattr(error, "signum", None)
        expected = isinstance(error, (ValueError, OSError)) or signum is not None or _is_out_of_memory(error)
        if not expected or os.environ.get("EVOMASK_TRACEBACK"):
            raise
        code = 2 if signum is None else 128 + signum
        return _fail(_one_line(error), code) if _is_ours_to_say(error) else code
    return code


def _code_of(command: Callable[[], object]) -> int:
    """0, or that of the help that was asked for and has been shown."""
    try:
        command()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def is_first_process() -> bool:
    """Whether this process is the one of all that torchrun started that prints."""
    return int(os.environ.get("RANK", 0)) == 0


def _is_out_of_memory(error: Exception) -> bool:
    return "OutOfMemory" in type(error).__name__


def _one_line(error: Exception) -> str:
    if _is_out_of_memory(error):
        return "the device is out of memory: lower the batch size, or raise the number of micro-batches"
    # An error in a process that loads images arrives with its traceback, the error itself in the last line.
    _, traceback, rest = str(error).partition("Original Traceback")
    text = rest.strip().splitlines()[-1].partition(": ")[2] if traceback else str(error)
    return " ".join(text.split())


def _is_ours_to_say(error: Exception) -> bool:
    """Whether this process of several is the one to say it: what all know, such as a mistake in the command, the first says."""
    if is_first_process():
        return not getattr(error, "said", False)
    from torch.distributed import is_initialized

    return is_initialized() and not getattr(error, "shared", False)


def _fail(message: str, code: int) -> int:
    print(f"evomask: {message}", file=sys.stderr)
    return code
