"""What stands in the way of moving a kernel's state, as seen from outside its
processes, and which are orphans.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.server.suspend.orphans import is_orphan
from jupyter_aistack.server.suspend.preflight import (
    PreflightReport,
    Process,
    libraries,
    look,
    why_not,
)

ROOT = Process(pid=7, has_context=True, uses=frozenset({"cuda", "nccl"}))
CLEAN = {
    "cuda": True,
    "managed": "",
    "nccl": False,
    "ipc": False,
    "graphs": 0,
    "registered_bytes": 0,
}


def found(*others: Process, root: Process = ROOT, **fields: Any) -> PreflightReport:
    known: dict[str, Any] = {
        "processes": (root, *others),
        "root_pid": 7,
        "report": CLEAN,
    }
    return PreflightReport(**{**known, **fields})


def test_a_plain_kernel_on_its_own_gpu_may_be_moved() -> None:
    assert why_not(found()) == ""
    assert why_not(found(Process(pid=8))) == "", (
        "a child without a context is of no interest"
    )
    assert why_not(PreflightReport()) == "", "nothing is there"


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        (found(is_mig=True), "MIG instance"),
        (
            found(root=Process(pid=7, has_context=True, is_mps_client=True)),
            "runs under MPS",
        ),
        (found(Process(pid=8, is_own=False)), "process 8 belongs to another user"),
        (
            found(root=Process(pid=7, has_context=True, uses=None)),
            "process 7 uses cannot be read",
        ),
        (found(elsewhere=("H200 (1)",)), "holds memory on H200 (1)"),
        (found(report={**CLEAN, "managed": "RMM"}), "RMM has managed memory"),
        (found(report={**CLEAN, "nccl": True}), "NCCL has a communicator"),
        (
            found(report={**CLEAN, "ipc": True}),
            "shares GPU memory with another process",
        ),
        (found(report=None), "process 7 may use NCCL, and there is nobody to ask"),
        (
            found(Process(pid=8, has_context=True, uses=frozenset({"managed"}))),
            "process 8 may use managed memory",
        ),
        (
            found(tier=SuspendMethod.OFF, why_tier="no GPU"),
            "nothing is suspended on this host: no GPU",
        ),
        (
            found(tier=SuspendMethod.OFFLOAD, why_tier="driver 1 is old"),
            "(driver 1 is old), and nothing is",
        ),
        (
            found(tier=SuspendMethod.OFFLOAD, report=None),
            "nothing in its kernel answers",
        ),
        (
            found(
                tier=SuspendMethod.OFFLOAD,
                report={**CLEAN, "graphs": 1, "registered_bytes": 5},
            ),
            "CUDA graph",
        ),
    ],
)
def test_what_the_driver_cannot_do_is_refused_before_it_is_tried(
    findings: PreflightReport, says: str
) -> None:
    assert says in why_not(findings)


def test_cuda_that_the_driver_does_not_list_is_somewhere_else() -> None:
    hidden = Process(pid=7, uses=frozenset({"cuda"}))
    assert "another process namespace" in why_not(found(root=hidden))
    assert why_not(found(root=hidden, report={**CLEAN, "cuda": False})) == "", (
        "the library alone starts nothing"
    )
    assert "another process namespace" in why_not(found(root=hidden, report=None)), (
        "nobody says that it has not"
    )


def test_registered_objects_and_simulated_devices_may_be_moved_without_the_driver() -> (
    None
):
    assert (
        why_not(
            found(
                tier=SuspendMethod.OFFLOAD,
                report={**CLEAN, "nccl": True, "registered_bytes": 5},
            )
        )
        == ""
    )
    assert why_not(found(is_simulated=True, tier=SuspendMethod.OFF)) == ""


@pytest.fixture
def pipes() -> str:
    """Where a process is told to look for an MPS server."""
    return "/tmp/mps"


@pytest.fixture
def process(tmp_path: Path, driver: str, pipes: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened the driver's library, under an MPS server, with the
    socket of a Jupyter server.
    """
    code = f"import ctypes, time; ctypes.CDLL('{driver}/libcuda.so.1'); print(1, flush=True); time.sleep(600)"
    more = {"CUDA_MPS_PIPE_DIRECTORY": pipes, "AISTACK_SOCKET": str(tmp_path / "s")}
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **more},
    )
    assert child.stdout is not None
    assert child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_real_process_is_looked_at(process: subprocess.Popen[str]) -> None:
    (seen,) = look([process.pid, 2**22 + 1], [process.pid])
    assert seen == Process(
        pid=process.pid, has_context=True, uses=frozenset({"cuda"}), is_mps_client=True
    )
    (own,) = look([os.getpid()], [])
    assert (own.is_own, own.has_context, own.is_mps_client) == (True, False, False)


@pytest.mark.parametrize("pipes", [os.devnull])
def test_a_process_that_is_kept_away_from_mps_is_none_of_its_clients(
    process: subprocess.Popen[str],
) -> None:
    (seen,) = look([process.pid], [process.pid])
    assert (seen.has_context, seen.is_mps_client) == (True, False)


def test_libraries_are_told_by_their_files(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/libcudart.so.12\n"
        "7f00-7f01 r-xp 00000000 08:01 1 /venv/lib/nccl/lib/libnccl.so.2\n"
        "7f00-7f01 r-xp 00000000 08:01 1 /venv/bitsandbytes/libbitsandbytes_cuda124.so\n"
    )
    assert libraries(maps) == {"nccl", "managed"}
    assert libraries(tmp_path / "none") is None


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
