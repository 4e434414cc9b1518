"""The stub of MPS's control program speaks as the real program does, and our side
understands both.

The real program's control daemon needs no GPU: its server ends with status 1 then, the
failure that is reported most. It is in Debian's non-free component
(``nvidia-cuda-mps``); the answers here are those of 555.58.02.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.capability_probe import known_protocols
from jupyter_aistack.providers.nvidia.mps.control import PROGRAM, MPSLimit
from jupyter_aistack.providers.nvidia.mps.limits import SLOTS
from jupyter_aistack.providers.nvidia.mps.manager import MPSManager
from jupyter_aistack.providers.nvidia.mps.paths import DaemonPaths
from jupyter_aistack.providers.nvidia.mps.protocol2 import Protocol2
from tests.fakes.mps import host
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.service

GPU = "GPU-00000000-0000-0000-0000-000000000000"
"""No host has it, so that the real server fails on each."""


@dataclass(frozen=True)
class Program:
    """A control program, and a short folder for one daemon.

    Attributes:
        path: where it is.
        control: how our side speaks to its daemon.
    """

    path: str
    control: Protocol2

    def ask(self, *lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path],
            input="".join(f"{line}\n" for line in lines),
            env=self.control.environment(),
            capture_output=True,
            text=True,
            timeout=30,
        )

    @property
    def log(self) -> Path:
        return self.control.folder.logs / "control.log"

    def texts(self) -> list[str]:
        """The lines of the daemon's log, without their stamps."""
        return [line.partition("] ")[2] for line in self.log.read_text().splitlines()]


@pytest.fixture(params=["stub", "real"])
def root(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder for daemons, with one of the programs on the PATH."""
    if request.param == "real":
        if shutil.which(PROGRAM) is None:
            pytest.skip(f"{PROGRAM} is not installed")
    else:
        script = {"gpus": {}, "protocols": 2, "server_fails": []}
        for name, value in host.install(tmp_path, script).items():
            monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        yield Path(folder) / "mps"


@pytest.fixture
def program(root: Path) -> Iterator[Program]:
    """A daemon that was started by the program."""
    path = shutil.which(PROGRAM)
    assert path is not None
    folder = DaemonPaths(root / "d")
    folder.create()
    started = Program(path, Protocol2(folder, GPU, 0))
    started.control.start()
    yield started
    started.ask("quit -t 1")


NO_SERVER = "Server 1234 not found\n"
ANSWERS = [
    ("get_server_list", ""),
    ("get_default_active_thread_percentage", "100.0\n"),
    ("set_default_active_thread_percentage 50", "50.0\n"),
    ("set_default_active_thread_percentage 150", "50.0\n"),
    ("get_default_active_thread_percentage", "50.0\n"),
    ("get_server_status 1234", NO_SERVER),
    ("get_client_list 1234", NO_SERVER),
    ("set_active_thread_percentage 1234 50", NO_SERVER),
    ("set_device_pinned_mem_limit 1234 0 1G", NO_SERVER),
    ("terminate_client 1234 99", f"{NO_SERVER}Server 1234 not found!\n1\n"),
    ("get_default_device_pinned_mem_limit 0", ""),
    ("set_default_device_pinned_mem_limit 0 35942M", ""),
    ("get_default_device_pinned_mem_limit 0", "35G\n"),
    ("set_default_device_pinned_mem_limit 0 512M", ""),
    ("get_default_device_pinned_mem_limit 0", "512M\n"),
    ("set_default_device_pinned_mem_limit 7 1G", ""),
    ("get_default_device_pinned_mem_limit 7", "1G\n"),
    ("set_default_device_pinned_mem_limit GPU-x 2G", ""),
    ("get_default_device_pinned_mem_limit 0", ""),
    ("set_default_device_pinned_mem_limit 0 2G", ""),
    ("set_default_device_pinned_mem_limit 0 rubbish", ""),
    ("get_default_device_pinned_mem_limit 0", ""),
    ("nonsense", 'Unknown command "nonsense"\n'),
]


def test_each_question_has_the_answer_of_the_real_program(program: Program) -> None:
    answers = []
    for question, _ in ANSWERS:
        done = program.ask(question)
        assert done.returncode == 0, "a refusal, too"
        answers.append((question, done.stdout))
    assert answers == ANSWERS


def test_several_questions_are_answered_one_after_the_other(program: Program) -> None:
    done = program.ask(
        "set_default_active_thread_percentage 25",
        "set_default_device_pinned_mem_limit 0 1500M",
        "get_default_device_pinned_mem_limit 0",
        "get_server_list",
    )
    assert (done.returncode, done.stdout) == (0, "25.0\n1G\n")


def test_each_question_is_written_to_a_log_that_may_be_emptied(
    program: Program,
) -> None:
    program.ask("get_server_list")
    chatter = [
        "Accepting connection...",
        "NEW UI",
        "Cmd:get_server_list",
        "UI closed",
    ]
    wait_until(lambda: program.texts()[-4:] == chatter)
    os.truncate(program.log, 0)
    program.ask("get_server_list")
    wait_until(lambda: program.texts()[-4:] == chatter)
    assert program.log.read_bytes().startswith(b"["), "the daemon appends"


def test_a_server_that_fails_is_told_of_by_the_log_alone(program: Program) -> None:
    done = program.ask(f"start_server -uid {os.getuid()}")
    assert (done.returncode, done.stdout) == (0, "")
    wait_until(lambda: program.ask("get_server_list").stdout == "")
    wait_until(lambda: program.texts()[-1] == "UI closed")
    assert "exited with status 1\n" in program.log.read_text()


def test_a_daemon_that_quits_leaves_its_socket_alone(program: Program) -> None:
    folder = program.control.folder.pipes
    assert program.ask("quit").returncode == 0
    left = {entry.name for entry in folder.iterdir()}
    assert "control" in left
    assert "nvidia-cuda-mps-control.pid" not in left
    done = program.ask("get_server_list")
    assert done.returncode == 1
    assert "Cannot find MPS control daemon process" in done.stdout + done.stderr


def test_a_second_daemon_is_refused(program: Program) -> None:
    with pytest.raises(ProviderError, match="instance of this daemon is already"):
        program.control.start()


def test_the_program_tells_what_it_speaks(program: Program) -> None:
    assert 2 in known_protocols(program.path)


# -- our side --------------------------------------------------------------------------


def test_a_daemon_without_a_server_has_no_clients(program: Program) -> None:
    assert program.control.servers() == ()
    assert program.control.clients() == frozenset()
    with pytest.raises(ProviderError, match="is no client of the MPS server"):
        program.control.terminate(1234)


@pytest.mark.parametrize("mib", [35942, 1024, 512])
def test_a_limit_is_set_and_read_back(program: Program, mib: int) -> None:
    limit = MPSLimit(name="l1", percent=25, mib=mib)
    assert program.control.hold(limit, []) == program.control.folder.pipes
    assert program.ask("get_default_active_thread_percentage").stdout == "25.0\n"


def test_a_server_that_fails_is_told_of_in_the_driver_s_words_and_leaves_nothing(
    root: Path,
) -> None:
    manager = MPSManager(root=lambda: root, interval=None)
    for lease in ("l-1", "l-2"):
        with pytest.raises(
            ProviderError, match=r"\(Server \d+ exited with status 1\)$"
        ):
            manager.prepare(
                lease, GPU, 0, percent=50, mib=1024, protocol=2, slots=SLOTS
            )
    assert "exited with status 1" in manager.failure(GPU)
    assert manager.own_pids() == frozenset()
