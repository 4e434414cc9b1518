"""Running a command in our place: signals are passed on to it, it is waited for, and
our exit code is its own.

The command gets a process group of its own, and the terminal where we have it, as a
shell does. So Ctrl-C and Ctrl-Z reach it from the terminal and nobody else, and what is
sent to us, or to our group, reaches it from us: once, either way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType

SIGNALLED = 128
"""Added to the number of the signal that ended a command, as shells do."""

NOT_STARTED = 127
"""The exit code of a process whose program cannot be run, as in shells."""

_TO_GROUP = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGCONT,
)
_TO_COMMAND = (signal.SIGUSR1, signal.SIGUSR2)
"""What these mean only the command itself knows, not what it has started."""
_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by Python, and not to be ignored by what it starts."""
_TERMINAL = "/dev/tty"


def check_program(program: str, environment: Mapping[str, str]) -> None:
    """Look for a program without running it.

    Raises:
        OSError: there is none of that name, or it must not be run.
    """
    if shutil.which(program, path=environment.get("PATH")) is None:
        is_forbidden = os.sep in program and os.path.exists(program)
        number = errno.EACCES if is_forbidden else errno.ENOENT
        raise OSError(number, os.strerror(number))


def run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_start: Callable[[int], None] | None = None,
) -> int:
    """Run a command to its end; its exit code, 128+n where signal n ended it.

    From the main thread only.

    Args:
        command: the program and its arguments.
        environment: all of its variables.
        on_start: called with the command's process group, in its process and before
            its program runs there: whoever it tells knows of the command even if this
            process is killed at that moment.

    Raises:
        OSError: it cannot be started.
    """
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(_Terminal())
        running = _Command(terminal)
        bell = stack.enter_context(running.signals_passed_on())
        running.start(command, environment, on_start or _tell_nobody)
        status = running.wait(bell)

    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return SIGNALLED - code
    return code


class _Terminal:
    """The terminal of this process, if it has one and is in front of it."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._before: object = None

    def __enter__(self) -> _Terminal:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY
        with contextlib.suppress(OSError):
            self._file = os.open(_TERMINAL, flags)
        if self.is_ours:
            # Who is not in front and moves the terminal is stopped, unless it ignores
            # that.
            self._before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        elif self._file is not None:
            os.close(self._file)
            self._file = None
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self.give_to(os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.close(self._file)

    @property
    def is_used(self) -> bool:
        """Whether it is ours to give."""
        return self._file is not None

    @property
    def is_ours(self) -> bool:
        """Whether our group is in front of it."""
        return self.has_in_front(os.getpgrp())

    def has_in_front(self, group: int) -> bool:
        """Whether a group reads what is typed."""
        return self._group() == group

    def _group(self) -> int | None:
        if self._file is None:
            return None
        try:
            return os.tcgetpgrp(self._file)
        except OSError:
            return None

    def give_to(self, group: int) -> None:
        """Put a group in front; what has hung up is left alone."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._file, group)


class _Command:
    """A command that runs in our place.

    Args:
        terminal: ours.
    """

    def __init__(self, terminal: _Terminal) -> None:
        self._terminal = terminal
        self._pid: int | None = None
        self._early: list[int] = []
        self._handled: list[int] = []

    # -- signals -----------------------------------------------------------------------

    @contextlib.contextmanager
    def signals_passed_on(self) -> Iterator[socket.socket]:
        """Pass on what comes; gives what rings when anything came, a child's end too.

        A signal may be taken by any thread, and would not wake this one.
        """
        before = {}
        bell, rung = socket.socketpair()
        bell.setblocking(False)
        rung.setblocking(False)
        woken = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        try:
            for number in (*_TO_GROUP, *_TO_COMMAND):
                # Ignored by whoever started us (nohup): the command ignores it too.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._pass_on)
            self._handled = list(before)
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _wake)
            yield rung
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
            bell.close()
            rung.close()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._pid is None:
            self._early.append(number)
            return
        if number == signal.SIGCONT and self._terminal.is_ours:
            self._terminal.give_to(self._pid)
        self._send(number)
        if number == signal.SIGTSTP and not self._terminal.is_used:
            os.kill(os.getpid(), signal.SIGSTOP)

    def _send(self, number: int) -> None:
        assert self._pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            if number in _TO_COMMAND:
                os.kill(self._pid, number)
            else:
                os.killpg(self._pid, number)

    # -- its life ----------------------------------------------------------------------

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_start: Callable[[int], None],
    ) -> None:
        """Start it in a process group of its own. Raises `OSError`."""
        restored = [*self._handled, signal.SIGCHLD, *_BY_PYTHON]
        if self._terminal.is_used:
            restored.append(signal.SIGTTOU)
        heard, failed = os.pipe()
        # Blocked before there is a child: no handler of ours may run in it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                with _failure_told(failed):
                    os.setpgid(0, 0)
                    on_start(os.getpid())
                    _restore(restored, before)
                    os.execvpe(command[0], list(command), environment)
            os.close(failed)
            _raise_failure(pid, heard)
            self._pid = pid
        finally:
            os.close(heard)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._terminal.give_to(pid)
        for number in self._early:
            self._send(number)

    def wait(self, bell: socket.socket) -> int:
        """Its status, once it has ended."""
        assert self._pid is not None
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                self._pid = None
                return status
            if pid:
                self._stop_too(os.WSTOPSIG(status))
            select.select([bell], [], [])
            with contextlib.suppress(BlockingIOError):
                bell.recv(4096)

    def _stop_too(self, number: int) -> None:
        """It was stopped; where that was from the terminal, so is our group, for the
        shell that waits for it.
        """
        assert self._pid is not None
        if not self._terminal.is_used:
            return
        if number in (signal.SIGTTIN, signal.SIGTTOU) and (
            self._terminal.has_in_front(self._pid)
        ):
            # It looked at the terminal a moment before that was given to it.
            self._send(signal.SIGCONT)
            return
        own_group = os.getpgrp()
        self._terminal.give_to(own_group)
        os.killpg(own_group, signal.SIGSTOP)


def _tell_nobody(group: int) -> None:
    """Nobody waits for the process group."""


def _restore(numbers: Sequence[int], mask: Iterable[int]) -> None:
    """In a new process, before its program: hear signals as if we had never been."""
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _failure_told(pipe: int) -> Iterator[None]:
    """In a new process: what runs ends in a program, or in its end; the number of the
    error is written, and nothing of its parent's runs on.
    """
    number = errno.ECANCELED
    try:
        yield
    except OSError as error:
        number = error.errno or number
    finally:
        os.write(pipe, str(number).encode())
        os._exit(NOT_STARTED)


def _raise_failure(pid: int, pipe: int) -> None:
    """Wait until a new process runs its program. Raises `OSError`: it cannot."""
    told = os.read(pipe, 32)  # nothing, once the program has taken its place
    if told:
        os.waitpid(pid, 0)
        number = int(told)
        raise OSError(number, os.strerror(number))


def _wake(number: int, frame: FrameType | None) -> None:
    """Nothing: that it is handled wakes who waits."""
