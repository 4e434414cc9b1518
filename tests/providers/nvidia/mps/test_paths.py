"""Where the folders of the daemons lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.mps.paths import file_system, runtime_root
from tests.fakes.mps.host import Stand

pytestmark = pytest.mark.service


def test_pipes_lie_in_the_runtime_folder_where_its_path_is_short_enough(
    tmp_path: Path,
) -> None:
    assert runtime_root({"XDG_RUNTIME_DIR": "/tmp"}) == Path("/tmp/aistack-mps")
    long = tmp_path / ("x" * 80)
    long.mkdir()
    assert runtime_root({"XDG_RUNTIME_DIR": str(long)}) == Path(
        f"/tmp/aistack-mps-{os.getuid()}"
    )


def test_pipes_never_lie_on_a_network_file_system_or_in_a_folder_others_may_enter(
    tmp_path: Path,
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\nserver:/tmp /tmp nfs4 rw 0 0\n")
    assert file_system(Path("/tmp/x"), mounts) == "nfs4"
    with pytest.raises(
        ProviderError, match="is on a nfs4 file system, which cannot hold sockets"
    ):
        runtime_root({}, mounts=mounts)


def test_a_folder_of_somebody_else_is_not_used(stand: Stand) -> None:
    stand.root.mkdir(mode=0o755)
    with pytest.raises(ProviderError, match="others may enter it"):
        stand.hold(stand.manager())
