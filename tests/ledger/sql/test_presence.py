"""Who lives, for those who cannot see it: by locks that the system gives back."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.ledger.sql.presence import FOLDER, TIDY_SECONDS
from jupyter_aistack.system.processes import identity_of
from tests.fakes.namespaces import (
    Container,
    container,
    first_child,
    needs_namespaces,
)
from tests.fakes.waiting import wait_until

SETUP = (
    "import os",
    "from dataclasses import asdict",
    "from jupyter_aistack.system.processes import identity_of",
    "from jupyter_aistack.ledger.sql.ledger import SQLLedger",
)


@contextmanager
def holding(url: str) -> Iterator[tuple[Container, ProcessIdentity]]:
    """A process in a PID namespace of its own that shows on a ledger that it lives."""
    opening = f"ledger = SQLLedger({url!r})"
    with container(*SETUP, opening) as inside:
        process = ProcessIdentity(**inside.ask("asdict(identity_of(os.getpid()))"))
        assert inside.ask("ledger.hold_presence(identity_of(os.getpid()))") is None
        yield inside, process


def when_dead(url: str) -> Liveness:
    """A connection may break while its process lives, a lock of a file does not."""
    return Liveness.GONE if url.startswith("sqlite") else Liveness.UNKNOWN


@needs_namespaces
@pytest.mark.service
def test_the_stopped_live_and_the_killed_do_not(url: str) -> None:
    ledger = SQLLedger(url)
    with holding(url) as (inside, process):
        assert ledger.presence(process) is Liveness.ALIVE
        assert ledger.has_witness(process)
        pid = first_child(inside.process.pid)
        os.kill(pid, signal.SIGSTOP)
        assert ledger.presence(process) is Liveness.ALIVE
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ledger.presence(process) is when_dead(url))
        assert not ledger.has_witness(process)
    ledger.close()


@needs_namespaces
@pytest.mark.service
def test_who_closes_its_ledger_has_not_ended(url: str) -> None:
    ledger = SQLLedger(url)
    with holding(url) as (inside, process):
        inside.ask("ledger.close()")
        wait_until(lambda: ledger.presence(process) is Liveness.UNKNOWN)
        inside.ask("ledger.hold_presence(identity_of(os.getpid()))")
        assert ledger.presence(process) is Liveness.ALIVE
    ledger.close()


@needs_namespaces
@pytest.mark.service
def test_a_process_may_show_itself_by_two_openings_of_the_ledger(url: str) -> None:
    process = ProcessIdentity(pid=os.getpid(), boot_id="b", pid_namespace=7)
    first, second, other = (SQLLedger(url) for _ in range(3))
    first.hold_presence(process)
    second.hold_presence(process)
    first.close()
    assert other.presence(process) is Liveness.ALIVE
    assert other.has_witness(process)
    second.close()
    wait_until(lambda: other.presence(process) is Liveness.UNKNOWN)
    other.close()


def test_a_forked_child_does_not_live_for_its_parent(url: str) -> None:
    ledger = SQLLedger(url)
    fork = "child = os.fork() or (os.setsid(), __import__('time').sleep(600))"
    with container(*SETUP, f"ledger = SQLLedger({url!r})") as inside:
        # The parent is not the first process there, whose end would be everybody's.
        holder = (
            "parent = os.fork() or (ledger.hold_presence(identity_of(os.getpid())), "
            'exec("' + fork + "\"), __import__('time').sleep(600))"
        )
        inside.ask(holder)
        told = inside.ask("asdict(identity_of(parent))")
        process = ProcessIdentity(**told)
        wait_until(lambda: ledger.presence(process) is Liveness.ALIVE)
        children = (
            f"len(open('/proc/{process.pid}/task/{process.pid}/children').read())"
        )
        wait_until(lambda: inside.ask(children))
        inside.ask(f"(os.kill({process.pid}, 9), os.waitpid({process.pid}, 0))[0]")
        wait_until(lambda: ledger.presence(process) is when_dead(url))
    ledger.close()


def test_who_never_showed_itself_is_unknown(url: str) -> None:
    ledger = SQLLedger(url)
    process = ProcessIdentity(pid=4711, started=1.0, boot_id="b", pid_namespace=7)
    assert ledger.presence(process) is Liveness.UNKNOWN
    assert not ledger.has_witness(process)
    ledger.hold_presence(process)
    ledger.hold_presence(process)
    assert ledger.presence(process) is Liveness.ALIVE
    neighbour = ProcessIdentity(pid=4712, boot_id="b", pid_namespace=7)
    assert ledger.presence(neighbour) is Liveness.UNKNOWN
    assert ledger.has_witness(neighbour), "they see each other"
    outside = ProcessIdentity(pid=4712, boot_id="b", pid_namespace=8)
    assert not ledger.has_witness(outside)
    ledger.close()


@pytest.mark.parametrize(("mode", "folder_mode"), [(0o600, 0o700), (0o660, 0o770)])
def test_locks_are_as_open_as_the_ledger(
    tmp_path: Path, mode: int, folder_mode: int
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SQLLedger(f"sqlite:///{path}")
    ledger.read("box", 0.0)
    path.chmod(mode)
    ledger.hold_presence(ProcessIdentity(pid=os.getpid(), boot_id="b"))
    folder = path.with_name(path.name + FOLDER)
    assert stat.S_IMODE(folder.stat().st_mode) == folder_mode
    (lock,) = folder.iterdir()
    assert stat.S_IMODE(lock.stat().st_mode) == mode
    ledger.close()
    assert list(folder.iterdir()) == []


def test_old_files_of_the_dead_are_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SQLLedger(f"sqlite:///{path}")
    ledger.read("box", 0.0)
    folder = path.with_name(path.name + FOLDER)
    folder.mkdir()
    for name, age in (("old.lock", TIDY_SECONDS + 60), ("new.lock", 0.0)):
        file = folder / name
        file.touch()
        changed = file.stat().st_mtime - age
        os.utime(file, (changed, changed))
    ledger.hold_presence(ProcessIdentity(pid=os.getpid(), boot_id="b"))
    assert {file.name for file in folder.iterdir()} - {"new.lock"} == {
        f"b.0.{os.getpid()}-.lock"
    }
    ledger.close()


@pytest.mark.timeout(30)
def test_two_ledgers_of_one_process_show_it_side_by_side(url: str) -> None:
    first = SQLLedger(url)
    second = SQLLedger(url)
    looking = SQLLedger(url)
    process = identity_of(os.getpid())
    first.hold_presence(process)
    second.hold_presence(process)
    first.close()
    assert looking.presence(process) is Liveness.ALIVE
    second.close()
    # A server lets go of a session's locks once it has seen that the session is over.
    wait_until(lambda: looking.presence(process) is Liveness.UNKNOWN)
    looking.close()


def test_nobody_is_led_or_held_up_by_what_others_put_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SQLLedger(f"sqlite:///{path}")
    ledger.hold_presence(identity_of(os.getpid()))
    folder = tmp_path / (path.name + FOLDER)
    [own] = folder.iterdir()
    stranger = ProcessIdentity(pid=1, started=1.0, boot_id="b", pid_namespace=7)
    os.mkfifo(folder / "b.7.1-1.00.lock")
    (folder / "b.7.2-2.00.lock").symlink_to(own)
    assert ledger.presence(stranger) is Liveness.GONE
    assert not ledger.has_witness(stranger), "a link to a lock is no lock"
    ledger.close()
