"""Where the folders of the daemons lie."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.mps.paths import (
    DaemonPaths,
    Places,
    default_places,
    file_system,
    runtime_root,
    short,
)
from tests.fakes.mps.host import Stand

pytestmark = pytest.mark.service


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="m") as folder:
        yield Path(folder)


@pytest.fixture
def places(short_folder: Path, tmp_path: Path) -> Places:
    """A temporary folder, and no folder of the system's for this user."""
    notes = tmp_path / "data" / "aistack"
    return Places(runtime=None, temporary=short_folder, notes=notes)


def test_pipes_lie_in_the_runtime_folder_where_its_path_is_short_enough(
    places: Places, tmp_path: Path
) -> None:
    given = places.temporary / "run"
    given.mkdir()
    assert runtime_root(replace(places, runtime=given)) == given / "aistack-mps"
    long = tmp_path / ("x" * 80)
    long.mkdir()
    known = places.temporary / f"aistack-mps-{os.getuid()}"
    assert runtime_root(replace(places, runtime=long)) == known


def test_the_runtime_folder_is_the_sessions() -> None:
    assert default_places({}).runtime is None
    assert default_places({"XDG_RUNTIME_DIR": "/x"}).runtime == Path("/x")


def test_pipes_never_lie_on_a_network_file_system_or_in_a_folder_others_may_enter(
    places: Places, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\nserver:/tmp /tmp nfs4 rw 0 0\n")
    assert file_system(Path("/tmp/x"), mounts) == "nfs4"
    with pytest.raises(
        ProviderError, match="is on a nfs4 file system, which cannot hold sockets"
    ):
        runtime_root(places, mounts=mounts)


def squat(folder: Path, how: str) -> None:
    """Take a name before its user does."""
    if how == "a folder that others may enter":
        folder.mkdir()
        folder.chmod(0o777)
    elif how == "a link":
        folder.symlink_to("/nowhere")
    elif how == "a folder of another user":
        folder.mkdir(mode=0o700)
        os.chown(folder, 65534, 65534)


@pytest.mark.parametrize(
    "how",
    [
        "a folder that others may enter",
        "a link",
        pytest.param(
            "a folder of another user",
            marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root"),
        ),
    ],
)
def test_a_name_that_somebody_else_has_taken_does_not_turn_mps_off(
    places: Places, how: str
) -> None:
    squat(places.temporary / f"aistack-mps-{os.getuid()}", how)
    root = runtime_root(places)
    assert root.parent == places.temporary
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert root.stat().st_uid == os.getuid()
    (places.temporary / f"aistack-mps-{os.getuid()}").rename(places.temporary / "off")
    assert runtime_root(places) == root, "all servers of a user agree on it"
    DaemonPaths(root / short("daemon")).create()


def test_a_noted_folder_that_is_gone_or_taken_is_replaced(places: Places) -> None:
    squat(places.temporary / f"aistack-mps-{os.getuid()}", "a link")
    first = runtime_root(places)
    first.rmdir()
    squat(first, "a folder that others may enter")
    second = runtime_root(places)
    assert second != first
    assert runtime_root(places) == second


def test_servers_that_start_together_agree_on_a_folder(places: Places) -> None:
    squat(places.temporary / f"aistack-mps-{os.getuid()}", "a link")
    with ThreadPoolExecutor(8) as pool:
        roots = set(pool.map(lambda _: runtime_root(places), range(32)))
    assert len(roots) == 1


def test_a_folder_of_somebody_else_is_not_used(stand: Stand) -> None:
    stand.root.mkdir(mode=0o755)
    with pytest.raises(ProviderError, match="others may enter it"):
        stand.hold(stand.manager())
