"""The root helper, asked over a real socket by the real client, over a fake driver and
a folder for control groups.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.dmem.client import DmemClient
from jupyter_aistack.providers.nvidia.dmem.listener import MAX_LINE, MOST_CONNECTIONS
from tests.fakes.nvml.states import h200
from tests.fakes.user_processes import BOB, EVE, NEEDS_ROOT, Processes
from tests.fakes.user_processes import processes as processes

NOBODY = 65534
LEASE, OTHER = "l" + "0" * 16, "l" + "1" * 16
SETUP = """
import os, shutil, threading
from pathlib import Path
from jupyter_aistack.providers.nvidia.dmem.client import DmemClient
from jupyter_aistack.providers.nvidia.dmem.groups import Groups
from jupyter_aistack.providers.nvidia.dmem.helper import Helper
from jupyter_aistack.providers.nvidia.dmem.listener import Listener
from jupyter_aistack.providers.nvidia.nvml import NVML
from tests.fakes.user_processes import BOB, EVE, NEEDS_ROOT, Processes
from tests.fakes.user_processes import processes as processes
root = Path(os.environ["FAKE_CGROUP"])
helper = Helper(NVML(), Groups(root, remove=shutil.rmtree))
listener = Listener(root / "dmem.sock", helper)
threading.Thread(target=listener.serve_forever, daemon=True).start()
client = DmemClient(root / "dmem.sock", trusted={os.getuid()})
uid = os.getuid()
"""


WATCHED_REMOVAL = """
seen = []
def remove(path):
    seen.append((path / "dmem.min").read_text())
    shutil.rmtree(path)
helper._groups._remove = remove
"""


class Host:
    """A child process with the helper in it, and the folder that stands for the mount
    of control groups.
    """

    def __init__(self, fake_nvml, root: Path, state: str) -> None:
        (root / "cgroup.controllers").write_text("cpu memory dmem\n")
        self.root = root
        self.ask = fake_nvml.python(state, SETUP)
        self.change = fake_nvml.change

    def group(self, lease: str = LEASE, uid: int | None = None) -> Path:
        return self.root / "aistack" / f"u{os.getuid() if uid is None else uid}" / lease


@pytest.fixture
def root(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    folder = tmp_path_factory.mktemp("cg")
    monkeypatch.setenv("FAKE_CGROUP", str(folder))
    return folder


@pytest.fixture
def host(fake_nvml, root: Path) -> Host:
    return Host(fake_nvml, root, h200(0) + h200(1))


def test_a_leases_group_is_limited_strictly_on_its_gpu_alone(host: Host) -> None:
    host.ask("client.hold(lease, 'GPU-1', size)", lease=LEASE, size=20 * GIB)
    assert (
        host.group() / "dmem.max"
    ).read_text() == f"nvidia/00000000:02:00.0/vidmem {20 * GIB}\n"
    assert reserved(host) == 0, "nobody is kept from memory that is not in use"
    for folder in (host.root, host.root / "aistack", host.group().parent):
        assert (folder / "cgroup.subtree_control").read_text() == "+dmem"


def reserved(host: Host, lease: str = LEASE) -> int:
    """Bytes that are kept for a lease's group."""
    return int((host.group(lease) / "dmem.min").read_text().split()[1])


def test_a_user_reserves_no_more_than_the_administrator_allows(host: Host) -> None:
    host.ask.run("helper._reserve_percent = 50")
    total = host.ask(
        "helper._nvml.query('nvmlDeviceGetMemoryInfo', dict(helper._handles())[0]).total"
    )
    first = total * 3 // 10
    for lease in (LEASE, LEASE, OTHER):
        host.ask("client.hold(lease, 'GPU-0', size)", lease=lease, size=first)
    assert reserved(host, LEASE) == first
    assert reserved(host, OTHER) == total // 2 - first
    host.ask("client.drop(lease)", lease=LEASE)
    host.ask("client.hold(lease, 'GPU-0', size)", lease=OTHER, size=first)
    assert reserved(host, OTHER) == first


def test_a_limit_with_processes_under_it_is_only_lowered(host: Host) -> None:
    host.ask("client.hold(lease, 'GPU-0', 2 << 30)", lease=LEASE)
    host.ask("client.enter(lease, os.getpid())", lease=LEASE)
    with pytest.raises(
        ProviderError, match="under a limit of 2147483648 bytes; it may"
    ):
        host.ask("client.hold(lease, 'GPU-0', 3 << 30)", lease=LEASE)
    host.ask("client.hold(lease, 'GPU-0', 2 << 30)", lease=LEASE)
    host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)
    assert (host.group() / "dmem.max").read_text().split()[1] == str(GIB)


def test_a_process_of_the_user_is_moved_in(host: Host) -> None:
    host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)
    host.ask("client.enter(lease, os.getpid())", lease=LEASE)
    assert (host.group() / "cgroup.procs").read_text() == str(host.ask.pid)


def test_what_a_lease_uses_is_told(host: Host) -> None:
    host.ask("client.hold(lease, 'GPU-1', 1 << 30)", lease=LEASE)
    (host.group() / "dmem.current").write_text("nvidia/00000000:02:00.0/vidmem 4096\n")
    assert host.ask("client.used()") == {LEASE: {"0": 0, "1": 4096}}


def test_the_reservation_is_given_up_before_the_group_goes_and_processes_go_on(
    host: Host,
) -> None:
    host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)
    host.ask("client.enter(lease, os.getpid())", lease=LEASE)
    host.ask.run(WATCHED_REMOVAL)
    host.ask("client.drop(lease)", lease=LEASE)
    assert host.ask("seen") == ["nvidia/00000000:01:00.0/vidmem 0\n"]
    assert not host.group().exists()
    assert (host.group("rest") / "cgroup.procs").read_text() == str(host.ask.pid)
    host.ask("client.drop(lease)", lease=LEASE)  # twice is once


@NEEDS_ROOT
def test_root_holds_what_is_other_users_and_they_hold_nothing_of_root_s(
    host: Host, processes: Processes
) -> None:
    question = "{'op': 'hold', 'lease': lease, 'gpu': 'GPU-0', 'bytes': 1 << 30}"
    for uid in (0, BOB):
        host.ask(f"helper.answer({uid}, {question})", lease=LEASE)
    enter = "{'op': 'enter', 'lease': lease, 'pid': pid}"
    for uid, owner, is_allowed in ((0, BOB, True), (BOB, 0, False), (BOB, EVE, False)):
        pid = processes.start(owner).pid
        answer = host.ask(f"helper.answer({uid}, {enter})", lease=LEASE, pid=pid)
        assert answer["ok"] is is_allowed


def test_each_user_works_in_a_part_of_their_own(host: Host) -> None:
    host.ask(
        "helper.answer(1001, {'op': 'hold', 'lease': lease, 'gpu': 'GPU-0', 'bytes': 1 << 30})",
        lease=LEASE,
    )
    assert host.group(uid=1001).is_dir()
    assert host.ask("client.used()") == {}
    assert host.ask(
        "helper.answer(uid, {'op': 'drop', 'lease': lease})", lease=LEASE
    ) == {"ok": True}
    assert host.group(uid=1001).is_dir()
    entered = host.ask(
        "helper.answer(1001, {'op': 'enter', 'lease': lease, 'pid': os.getpid()})",
        lease=LEASE,
    )
    assert entered["ok"] is False
    assert "is not one of user 1001" in entered["message"]
    assert not (host.group(uid=1001) / "cgroup.procs").exists()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (None, "op: expected one of hello, hold, enter, list, drop"),
        ([], "op: "),
        ({"op": "run"}, "op: "),
        (
            {"op": "hold", "lease": "../../evil", "gpu": "GPU-0", "bytes": 1},
            "lease: expected l and 16",
        ),
        ({"op": "hold", "lease": LEASE + "\n", "gpu": "GPU-0", "bytes": 1}, "lease: "),
        (
            {"op": "hold", "lease": LEASE, "gpu": "../0", "bytes": 1},
            "gpu: expected the UUID",
        ),
        (
            {"op": "hold", "lease": LEASE, "gpu": "GPU-0", "bytes": True},
            "bytes: expected a whole number",
        ),
        ({"op": "hold", "lease": LEASE, "gpu": "GPU-0", "bytes": 0}, "bytes: "),
        ({"op": "hold", "lease": LEASE, "gpu": "GPU-0", "bytes": 1 << 60}, "bytes: "),
        ({"op": "hold", "lease": LEASE, "gpu": "GPU-7", "bytes": 1}, "NVML error 6"),
        ({"op": "enter", "lease": LEASE, "pid": 1}, "there is no group"),
        ({"op": "enter", "lease": LEASE, "pid": -1}, "pid: "),
        ({"op": "drop", "lease": 7}, "lease: "),
    ],
)
def test_a_bad_question_changes_nothing_and_is_answered(
    host: Host, question: object, words: str
) -> None:
    answer = host.ask("helper.answer(uid, question)", question=question)
    assert answer["ok"] is False
    assert words in answer["message"]
    assert not host.group().exists()


def test_noise_on_the_socket_is_answered_and_the_helper_goes_on(host: Host) -> None:
    for noise in (b"\xff\n", b"{\n", b"x" * 10000 + b"\n"):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(host.root / "dmem.sock"))
            line.sendall(noise)
            line.shutdown(socket.SHUT_WR)
            assert json.loads(line.makefile().readline())["ok"] is False
    assert host.ask("client.refusal()") == ""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be two users")
def test_slow_connections_of_a_user_hold_up_nobody_else(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.root.chmod(0o755)
    # The folders above are not for others to enter.
    monkeypatch.chdir(host.root)
    with contextlib.ExitStack() as slow:
        os.seteuid(NOBODY)
        try:
            for _ in range(MOST_CONNECTIONS):
                line = slow.enter_context(socket.socket(socket.AF_UNIX))
                line.connect("dmem.sock")
            refused = slow.enter_context(socket.socket(socket.AF_UNIX))
            refused.connect("dmem.sock")
            answer = json.loads(refused.makefile().readline())
        finally:
            os.seteuid(0)
        assert answer == {
            "ok": False,
            "message": f"user {NOBODY} has {MOST_CONNECTIONS} connections open already",
        }
        assert host.ask("client.refusal()") == ""


def test_a_question_sent_byte_by_byte_has_one_deadline(host: Host) -> None:
    host.ask.run(
        "from jupyter_aistack.providers.nvidia.dmem import listener as module\n"
        "module.PEER_SECONDS = 0.2"
    )
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(host.root / "dmem.sock"))
        sent = 0
        while not select.select([line], [], [], 0.01)[0]:
            line.sendall(b" ")
            sent += 1
        assert json.loads(line.makefile().readline())["ok"] is False
    assert sent < MAX_LINE


def test_a_limit_that_may_not_be_set_leaves_no_group(host: Host) -> None:
    host.change(h200(0) + "fail nvmlDeviceSetMemoryLimits_v1 4\n")
    with pytest.raises(ProviderError, match="the root helper refuses hold"):
        host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)
    assert not host.group().exists()


def test_a_driver_without_memory_limits_says_so(host: Host) -> None:
    host.change(h200(0) + "fail nvmlDeviceSetMemoryLimits_v1 13\n")
    with pytest.raises(ProviderError, match="nvmlDeviceSetMemoryLimits_v1"):
        host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)


def test_a_group_that_a_crash_left_behind_is_removed_when_the_user_makes_another(
    host: Host,
) -> None:
    host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)
    host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=OTHER)
    host.ask("client.enter(lease, os.getpid())", lease=OTHER)
    for lease in (LEASE, OTHER):
        os.utime(host.group(lease), (0, 0))
    host.ask("client.hold(lease, 'GPU-1', 1 << 30)", lease="l" + "2" * 16)
    assert (host.group(LEASE).exists(), host.group(OTHER).exists()) == (False, True)


def test_there_is_an_end_to_the_groups_of_one_user(host: Host) -> None:
    host.ask.run(
        "from jupyter_aistack.providers.nvidia.dmem import groups\ngroups.MOST_GROUPS = 1"
    )
    host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=LEASE)
    with pytest.raises(ProviderError, match="has 1 control groups already"):
        host.ask("client.hold(lease, 'GPU-0', 1 << 30)", lease=OTHER)
    host.ask("client.hold(lease, 'GPU-0', 1 << 31)", lease=LEASE)


# -- the client, and the program -------------------------------------------------------


def test_no_helper_is_a_sentence(tmp_path: Path) -> None:
    client = DmemClient(tmp_path / "none.sock")
    assert "does not listen" in client.refusal()
    with pytest.raises(ProviderError, match="does not answer"):
        client.hold(LEASE, "GPU-0", 1)


def test_a_helper_that_is_not_roots_is_not_believed(host: Host) -> None:
    host.ask.run("doubting = DmemClient(root / 'dmem.sock', trusted={uid + 1})")
    assert f"is run by user {os.getuid()}, not by root" in host.ask(
        "doubting.refusal()"
    )


@pytest.fixture
def program(fake_nvml, root: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    (root / "cgroup.controllers").write_text("dmem\n")
    environment = {**os.environ, **fake_nvml.environment(h200())}
    command = [
        sys.executable,
        "-m",
        "jupyter_aistack.providers.nvidia.dmem",
        "--socket",
        str(root / "s"),
        "--root",
        str(root),
    ]
    started = []

    def start() -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                command, env=environment, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_program_serves_until_it_is_told_to_end(
    program: Callable[[], subprocess.Popen[str]], root: Path
) -> None:
    process, client = program(), DmemClient(root / "s", trusted={os.getuid()})
    while client.refusal():
        assert process.poll() is None
    client.hold(LEASE, "GPU-0", GIB)
    assert (root / "aistack" / f"u{os.getuid()}" / LEASE / "dmem.max").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert not (root / "s").exists()
