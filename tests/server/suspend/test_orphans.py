"""Kernels whose server is gone."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.server.suspend.orphans import is_orphan


def test_a_kernel_is_an_orphan_once_its_server_answers_no_more(
    process: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder = Holder(
        kind=HolderKind.KERNEL,
        id="k",
        user="ann",
        host="box",
        pid=process.pid,
        root_pid=process.pid,
    )
    lease = Lease(
        id="l",
        token=1,
        request_id="r",
        spec=parse_spec("1"),
        holder=holder,
        slices=(),
        granted_at=0,
        expires_at=1,
    )
    assert is_orphan(lease)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        assert not is_orphan(lease)
    assert is_orphan(lease)
    process.kill()
    process.wait()
    assert not is_orphan(lease), "nothing is left to care for"
