"""Commands that run in the place of a launcher: what they hear, and how that ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from jupyter_aistack.system.launched_command import check_program
from jupyter_aistack.system.processes import state_of
from tests.fakes.waiting import wait_until

COUNTING = """
import os, signal, sys
def count(number, frame):
    print(f"<{number}>", flush=True)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, count)
print(f"<pid {os.getpid()}>", flush=True)
print(f"<read {sys.stdin.readline().strip()}>", flush=True)
sys.exit(7)
"""
"""Says what it hears, and ends once it has read a line."""

LAUNCH = """
import os, sys
from jupyter_aistack.system.launched_command import run_command
sys.exit(run_command(sys.argv[1:], os.environ))
"""


def launcher(*command: str) -> list[str]:
    """The command line that launches another."""
    return [sys.executable, "-c", LAUNCH, *command]


COUNTER = launcher(sys.executable, "-S", "-c", COUNTING)

KILLED_AT_ONCE = """
import os, signal, sys
from jupyter_aistack.system.command_guard import CommandGuard
from jupyter_aistack.system.launched_command import run_command
launcher = os.getpid()
with CommandGuard() as guard:
    def tell(group):
        print(f"<pid {group}>", flush=True)
        os.kill(launcher, signal.SIGKILL)
        guard.watch(group)
    run_command(sys.argv[1:], os.environ, on_start=tell)
"""
"""A launcher that nobody can hear any more by the time its command is known of."""


@pytest.mark.parametrize(
    "program", ["true", sys.executable], ids=["by name", "by path"]
)
def test_a_program_that_is_there_can_be_run(program: str) -> None:
    check_program(program, os.environ)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("no-such-program", FileNotFoundError),
        ("/no/such/program", FileNotFoundError),
        ("", FileNotFoundError),
        ("/", PermissionError),
        pytest.param(__file__, PermissionError, id="a file"),
    ],
)
def test_a_program_that_cannot_be_run_is_known_beforehand(
    program: str, problem: type[OSError]
) -> None:
    with pytest.raises(problem):
        check_program(program, os.environ)


class Launched:
    """A launcher with a terminal of its own, or with pipes."""

    def __init__(self, process: int, read: int, write: int) -> None:
        self.pid = process
        self._read = read
        self._write = write
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self._write, text.encode())

    def read_until(self, text: str) -> str:
        """All output so far, once it holds a text."""
        while text not in self.output:
            self.output += os.read(self._read, 4096).decode()
        return self.output

    def command_pid(self) -> int:
        self.read_until("<pid ")
        self.read_until(">")
        return int(self.output.partition("<pid ")[2].partition(">")[0])

    def is_stopped(self, pid: int) -> bool:
        return state_of(pid) == "T"

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def on_pipes() -> Iterator[Callable[..., Launched]]:
    """Starts a launcher without a terminal, in a group of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str] = COUNTER) -> Launched:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        return Launched(process.pid, process.stdout.fileno(), process.stdin.fileno())

    yield start
    for process in started:
        process.returncode = 0  # the test has waited for it
        process.communicate()


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Launched]]:
    """Starts a launcher in front of a terminal of its own."""
    terminals: list[int] = []

    def start(command: list[str] = COUNTER) -> Launched:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(command[0], command)
        terminals.append(terminal)
        return Launched(pid, terminal, terminal)

    yield start
    for terminal in terminals:
        os.close(terminal)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ],
)
@pytest.mark.parametrize("to_group", [False, True])
def test_a_command_hears_each_signal_once_and_ends_as_it_likes(
    on_pipes: Callable[..., Launched], number: signal.Signals, to_group: bool
) -> None:
    launched = on_pipes()
    launched.command_pid()
    (os.killpg if to_group else os.kill)(launched.pid, number)
    launched.read_until(f"<{number.value}>")
    launched.type("saved\n")
    output = launched.read_until("<read saved>")
    assert output.count(f"<{number.value}>") == 1
    assert launched.exit_code() == 7


def test_a_command_whose_launcher_is_killed_while_it_starts_is_asked_to_end(
    on_pipes: Callable[..., Launched],
) -> None:
    launched = on_pipes([sys.executable, "-c", KILLED_AT_ONCE, "cat"])
    command = launched.command_pid()
    assert launched.exit_code() == -signal.SIGKILL
    wait_until(lambda: state_of(command) in ("", "Z"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_by_a_signal_is_said_as_shells_do(
    on_pipes: Callable[..., Launched], number: signal.Signals
) -> None:
    launched = on_pipes(launcher("sh", "-c", f"kill -{number.value} $$"))
    assert launched.exit_code() == 128 + number


def test_ctrl_c_in_a_terminal_reaches_the_command_once(
    on_terminal: Callable[..., Launched],
) -> None:
    launched = on_terminal()
    launched.command_pid()
    launched.type("\x03")
    launched.read_until(f"<{signal.SIGINT.value}>")
    launched.type("saved\n")
    output = launched.read_until("<read saved>")
    assert output.count(f"<{signal.SIGINT.value}>") == 1
    assert launched.exit_code() == 7


def test_a_signal_from_elsewhere_reaches_a_command_in_a_terminal_once(
    on_terminal: Callable[..., Launched],
) -> None:
    launched = on_terminal()
    launched.command_pid()
    os.kill(launched.pid, signal.SIGINT)
    launched.read_until(f"<{signal.SIGINT.value}>")
    launched.type("saved\n")
    output = launched.read_until("<read saved>")
    assert output.count(f"<{signal.SIGINT.value}>") == 1
    assert launched.exit_code() == 7


@pytest.mark.parametrize("in_terminal", [False, True])
def test_a_stop_stops_both_and_a_continuation_continues_both(
    on_pipes: Callable[..., Launched],
    on_terminal: Callable[..., Launched],
    in_terminal: bool,
) -> None:
    launched = on_terminal() if in_terminal else on_pipes()
    command = launched.command_pid()
    if in_terminal:
        launched.type("\x1a")
    else:
        os.kill(launched.pid, signal.SIGTSTP)
    wait_until(lambda: launched.is_stopped(command))
    wait_until(lambda: launched.is_stopped(launched.pid))
    os.kill(launched.pid, signal.SIGCONT)
    wait_until(lambda: not launched.is_stopped(command))
    launched.type("on\n")
    launched.read_until("<read on>")
    assert launched.exit_code() == 7


def test_what_was_ignored_stays_ignored(on_pipes: Callable[..., Launched]) -> None:
    child = "import signal; print(signal.getsignal(signal.SIGHUP).name, flush=True)"
    inner = launcher(sys.executable, "-S", "-c", child)
    ignoring = f"import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv({inner[0]!r}, {inner!r})"
    launched = on_pipes([sys.executable, "-S", "-c", ignoring])
    assert "SIG_IGN" in launched.read_until("\n")
    assert launched.exit_code() == 0


def test_a_pipe_that_closes_ends_the_command_as_without_a_launcher(
    on_pipes: Callable[..., Launched],
) -> None:
    launched = on_pipes(launcher("sh", "-c", "kill -PIPE $$; exit 3"))
    assert launched.exit_code() == 128 + signal.SIGPIPE


def test_a_command_that_is_not_there_is_an_error_and_the_handlers_are_as_before() -> (
    None
):
    from jupyter_aistack.system.launched_command import run_command

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(FileNotFoundError):
        run_command(["/there/is/no/such/program"], os.environ)
    assert [signal.getsignal(number) for number in numbers] == before
