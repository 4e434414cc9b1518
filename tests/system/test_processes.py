from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import psutil
import pytest

from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.system import processes
from jupyter_aistack.system.processes import (
    ancestors,
    boot_id,
    identity_of,
    is_alive,
    is_local,
    liveness,
    parents,
    started_at,
    state_of,
    tree,
)
from tests.fakes.first_thread import first_thread_over, needs_first_thread_to_end
from tests.fakes.namespaces import container, first_child, needs_namespaces
from tests.fakes.waiting import wait_until

IMPORTS = (
    "import os, sys",
    "from jupyter_aistack.system.processes import *",
    "from jupyter_aistack.core.model.process import *",
    "from dataclasses import asdict",
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process with a child of its own; both wait to be told."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    yield process
    for below in (
        psutil.Process(process.pid).children() if process.poll() is None else []
    ):
        below.kill()
    process.kill()
    process.wait()


def test_a_process_is_known_by_its_pid_and_its_start() -> None:
    since = started_at(os.getpid())
    assert since is not None
    assert is_alive(os.getpid(), since)
    assert is_alive(os.getpid(), None)
    assert not is_alive(os.getpid(), since + 60)
    # The tick after, or before: a container that was started again at once.
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert not is_alive(os.getpid(), since + tick)
    assert not is_alive(os.getpid(), since - tick)


def test_setting_the_clock_makes_nobody_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    since = started_at(os.getpid())
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert started_at(os.getpid()) == since


@needs_first_thread_to_end
def test_a_process_lives_as_long_as_any_of_its_threads() -> None:
    with first_thread_over() as process:
        since = started_at(process.pid)
        assert state_of(process.pid) == "Z"
        assert is_alive(process.pid, since)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid, since)


def test_the_dead_and_the_undead_do_not_live(child: subprocess.Popen[str]) -> None:
    since = started_at(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid, since), "it is a zombie now"
    child.wait()
    assert not is_alive(child.pid, since)
    assert started_at(child.pid) is None


def test_a_tree_holds_all_below_its_root_and_the_nearer_root_has_them(
    child: subprocess.Popen[str],
) -> None:
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    assert parents()[grandchild] == child.pid
    assert ancestors(grandchild)[:3] == [grandchild, child.pid, os.getpid()]
    result = tree({"ours": os.getpid(), "theirs": child.pid, "theirs too": child.pid})
    assert result["theirs"] == result["theirs too"] == {child.pid, grandchild}
    assert os.getpid() in result["ours"]
    assert grandchild not in result["ours"]


def test_a_process_of_another_machine_or_run_is_unknown() -> None:
    own = identity_of(os.getpid())
    assert (liveness(own), is_local(own)) == (Liveness.ALIVE, True)
    elsewhere = replace(own, boot_id="37485774-6d4a-4074-9b66-000000000000")
    assert (liveness(elsewhere), is_local(elsewhere)) == (Liveness.UNKNOWN, False)
    unmarked = ProcessIdentity(pid=own.pid, started=own.started)
    assert liveness(unmarked) is Liveness.ALIVE, "its fields say no more than its pid"
    assert liveness(replace(own, started=1.0)) is Liveness.GONE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to look as another user")
def test_a_process_that_proc_hides_is_not_gone(child: subprocess.Popen[str]) -> None:
    """As with ``hidepid``: another user's process cannot be read and not be signalled."""
    code = (
        "import os, sys; from jupyter_aistack.system import processes as p;"
        "os.setgid(65534); os.setuid(65534);"
        "pid = int(sys.argv[1]); real = p._read;"
        "p._read = lambda path: None if f'/{pid}/' in path else real(path);"
        "print(p.is_alive(pid, 1.0), p.started_at(pid), p.tree({'lease': pid}))"
    )
    command = [sys.executable, "-c", code]
    seen = subprocess.run(
        [*command, str(child.pid)], capture_output=True, text=True, check=True
    )
    assert seen.stdout.split() == ["True", "None", "{}"]
    child.kill()
    child.wait()
    gone = subprocess.run(
        [*command, str(child.pid)], capture_output=True, text=True, check=True
    )
    assert gone.stdout.split() == ["False", "None", "{'lease':", "frozenset()}"]


@needs_namespaces
def test_a_process_in_a_namespace_below_is_found_by_its_number_there() -> None:
    with container(*IMPORTS) as inside:
        told = ProcessIdentity(**inside.ask("asdict(identity_of(os.getpid()))"))
        assert told.pid == 1
        assert told.boot_id == boot_id()
        assert not is_local(told)
        assert liveness(told) is Liveness.ALIVE
        assert liveness(replace(told, started=1.0)) is Liveness.GONE
        _, is_whole = processes._members_of(told.pid_namespace)
        unseen = Liveness.GONE if is_whole else Liveness.UNKNOWN
        assert liveness(replace(told, pid=4711)) is unseen
        pid = first_child(inside.process.pid)
        os.kill(pid, signal.SIGSTOP)
        assert liveness(told) is Liveness.ALIVE, "stopped is not gone"
    # Its whole namespace is gone with it, and cannot be told from one beside this.
    wait_until(lambda: liveness(told) is Liveness.UNKNOWN)


@needs_namespaces
def test_what_is_outside_a_namespace_is_unknown_in_it() -> None:
    own = asdict(identity_of(os.getpid()))
    with container(*IMPORTS) as inside:
        assert inside.ask(f"liveness(ProcessIdentity(**{own})).value") == "unknown"
        assert inside.ask("is_local(identity_of(1))") is True


@needs_namespaces
def test_the_proc_of_another_namespace_is_not_read() -> None:
    """``unshare -Upf`` leaves the old ``/proc``, where pid 1 is another process."""
    with container(*IMPORTS, options=("--map-root-user",)) as inside:
        assert inside.ask("os.getpid()") == 1
        assert inside.ask("started_at(1)") > started_at(os.getpid())
        assert inside.ask("is_alive(1, started_at(1))") is True
        assert inside.ask("is_alive(4711, None)") is False
        assert inside.ask("parents()") == {}
        assert inside.ask("ancestors(1)") == [1]


def test_a_machine_without_boot_ids_is_known_by_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_read", lambda path: None)
    monkeypatch.setattr(psutil, "boot_time", lambda: 6000.0)
    assert processes.boot_id.__wrapped__().endswith("-100")
