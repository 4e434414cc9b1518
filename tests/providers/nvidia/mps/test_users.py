"""Daemons of root for several users, with real users: what is a lease's can be reached
by its user alone.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.mps.manager import MPSManager
from jupyter_aistack.providers.nvidia.mps.paths import DaemonPaths, short
from jupyter_aistack.providers.nvidia.mps.records import DaemonRecords
from jupyter_aistack.providers.nvidia.mps.users import (
    give_to,
    shared_root,
    uid_behind,
    user_of,
    user_suffix,
)
from jupyter_aistack.system.processes import started_at
from tests.fakes.mps.host import GPU, Stand
from tests.fakes.user_processes import BOB, EVE, NEEDS_ROOT, Processes
from tests.fakes.user_processes import processes as processes

pytestmark = [pytest.mark.service, NEEDS_ROOT]


@pytest.fixture
def passable() -> Iterator[Path]:
    """A short folder through which every user may pass."""
    with tempfile.TemporaryDirectory(prefix="am", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def stand(
    tmp_path: Path, passable: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stand]:
    made = Stand(tmp_path, shared_root(passable / "m"))
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def manager(stand: Stand) -> Iterator[MPSManager]:
    made = stand.manager()
    yield made
    for lease_id in ("l-1", "l-2"):
        made.unprepare(lease_id, GPU, 0)


def may(uid: int, *command: str) -> bool:
    """Whether a process of a user succeeds."""
    done = subprocess.run(
        command, user=uid, group=uid, extra_groups=[], capture_output=True
    )
    return done.returncode == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_pipes_of_a_lease_are_its_user_s_alone(
    stand: Stand, manager: MPSManager, protocol: int
) -> None:
    bobs = stand.hold(manager, "l-1", percent=25, uid=BOB, protocol=protocol)
    eves = stand.hold(manager, "l-2", percent=25, uid=EVE, protocol=protocol)
    assert bobs.protocol == protocol
    assert bobs.directory != eves.directory
    assert (bobs.directory.stat().st_uid, mode_of(bobs.directory)) == (BOB, 0o700)
    for uid, own, other in ((BOB, bobs, eves), (EVE, eves, bobs)):
        assert may(uid, "test", "-e", str(own.directory / "control"))
        assert may(uid, "ls", str(own.directory))
        assert not may(uid, "test", "-e", str(other.directory / "control"))
        assert not may(uid, "ls", str(other.directory))


def test_who_may_pass_through_a_folder_sees_nothing_of_others_in_it(
    stand: Stand, manager: MPSManager
) -> None:
    held = stand.hold(manager, "l-1", uid=BOB)
    daemon = stand.root / short(GPU)
    for folder in (stand.root, daemon, daemon / "p", held.directory.parent):
        assert not may(EVE, "ls", str(folder))
    for private in (daemon / "leases", daemon / "log"):
        assert mode_of(private) == 0o700


def test_protocol_3_has_one_daemon_for_all_with_a_server_for_several_users(
    stand: Stand, manager: MPSManager
) -> None:
    stand.hold(manager, "l-1", percent=25, uid=BOB)
    stand.hold(manager, "l-2", percent=25, uid=EVE)
    running = stand.running()
    assert running is not None
    words = Path(f"/proc/{running.pid}/cmdline").read_bytes().split(b"\0")
    assert b"-m" in words
    assert len(list(stand.root.glob("*/daemon.json"))) == 1


def test_in_protocol_2_each_user_has_a_daemon_with_a_server_of_that_user(
    stand: Stand, manager: MPSManager
) -> None:
    stand.hold(manager, "l-1", percent=25, uid=BOB, protocol=2)
    stand.hold(manager, "l-2", percent=25, uid=EVE, protocol=2)
    for uid in (BOB, EVE):
        folder = stand.root / f"{short(GPU)}-u{uid}"
        assert DaemonRecords(DaemonPaths(folder)).running() is not None
        log = (folder / "log" / "control.log").read_text()
        assert f"Cmd:start_server -uid {uid}\n" in log


def test_a_daemon_that_is_started_again_gives_the_pipes_back_to_their_users(
    stand: Stand, manager: MPSManager
) -> None:
    held = stand.hold(manager, "l-1", percent=25, uid=BOB)
    running = stand.running()
    assert running is not None
    stand.tell(kill_server=running.pid)
    manager.check()
    stand.tell(kill_server=0)
    manager.check()
    assert (held.directory.stat().st_uid, mode_of(held.directory)) == (BOB, 0o700)
    assert may(BOB, "test", "-e", str(held.directory / "control"))


def test_the_root_of_somebody_else_is_refused(passable: Path) -> None:
    other = passable / "other"
    other.mkdir()
    os.chown(other, EVE, EVE)
    with pytest.raises(ProviderError, match="belongs to another user"):
        shared_root(other)
    link = passable / "link"
    link.symlink_to("/tmp")
    with pytest.raises(ProviderError, match="belongs to another user"):
        shared_root(link)


def test_what_cannot_be_given_is_said(passable: Path) -> None:
    with pytest.raises(ProviderError, match="cannot be given to user 23001"):
        give_to(passable / "gone", BOB)


def test_a_folder_tells_whose_daemon_is_in_it(passable: Path) -> None:
    assert user_of(passable / f"0123{user_suffix(BOB)}-ab") == BOB
    assert user_of(passable / f"0123{user_suffix(None)}") is None


def test_pipes_are_of_the_account_that_a_hub_s_user_runs_under(
    processes: Processes,
) -> None:
    """The user of the hub is called as another login of this host is."""
    process = processes.start(BOB)
    holder = Holder(
        kind=HolderKind.KERNEL,
        id="k-1",
        user=f"uid-{EVE}",
        host="box",
        pid=process.pid,
        pid_started_at=started_at(process.pid),
    )
    assert uid_behind(holder) == BOB
    process.kill()
    process.wait()
    assert uid_behind(holder) == EVE
