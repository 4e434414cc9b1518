"""A command as a process: what it owes to its streams, to signals and to whoever reads
its exit code.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from jupyter_aistack.system.standard_streams import (
    drop_unwritten,
    open_closed_streams,
    tell,
)

EXIT_REFUSED = 1
"""For what is not its user's to do."""
EXIT_ERROR = 2
EXIT_REFUSED = 1
SIGNALLED = 128
"""Added to the number of the signal that ended a command, as shells do."""

_ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_LOST_OUTPUT = frozenset(
    {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
)
"""What writing may fail with that is no mistake of ours."""


def run_to_exit_code(command: Callable[[], int]) -> int:
    """Run a command to its exit code: what its output is written to may close or fill
    up, and a signal to end is as Ctrl-C, so that nothing is left behind.
    """
    open_closed_streams()
    with _ended_by_signals() as ended_by:
        try:
            _accept_any_text()
            return _written_out(command)
        except KeyboardInterrupt:
            tell("interrupted")
            return SIGNALLED + next(iter(ended_by), signal.SIGINT)
        except OSError as error:
            if error.errno not in _LOST_OUTPUT:
                raise
            if error.errno == errno.EPIPE:  # who read has enough, as `head` does
                return SIGNALLED + getattr(signal, "SIGPIPE", 13)
            tell(f"jupyter aistack: the output cannot be written: {error.strerror}")
            return EXIT_ERROR
        finally:
            drop_unwritten(sys.stdout)
            drop_unwritten(sys.stderr)


def _written_out(command: Callable[[], int]) -> int:
    """Run a command until all of its output is written, also a parser's help."""
    try:
        exit_code = command()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return exit_code


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Have signals to end interrupt the command as Ctrl-C does; which came."""
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    before: dict[int, object] = {}
    for number in _ENDING:
        # Ignored by whoever started us (nohup): it stays ignored.
        if signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, end)
    try:
        yield received
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)


def _accept_any_text() -> None:
    """Write out what an ASCII terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
