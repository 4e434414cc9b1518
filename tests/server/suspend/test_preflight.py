"""What stands in the way of moving a kernel's state, as seen from outside its
processes, and which are orphans.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.providers.nvidia.checkpoint.inspection import (
    Process,
    inspect_processes,
    libraries,
)
from jupyter_aistack.server.suspend.preflight import PreflightReport, why_not

ROOT = Process(pid=7, has_context=True, uses=frozenset({"cuda", "nccl"}))
CLEAN = {
    "cuda": True,
    "managed": "",
    "nccl": False,
    "ipc": False,
    "graphs": 0,
    "registered_bytes": 0,
}


def report_of(*others: Process, root: Process = ROOT, **fields: Any) -> PreflightReport:
    known: dict[str, Any] = {
        "processes": (root, *others),
        "root_pid": 7,
        "report": CLEAN,
    }
    return PreflightReport(**{**known, **fields})


def test_a_plain_kernel_on_its_own_gpu_may_be_moved() -> None:
    assert why_not(report_of()) == ""
    assert why_not(report_of(Process(pid=8))) == "", (
        "a child without a context is of no interest"
    )
    assert why_not(PreflightReport()) == "", "nothing is there"


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        (report_of(is_mig=True), "MIG instance"),
        (
            report_of(root=Process(pid=7, has_context=True, is_mps_client=True)),
            "runs under MPS",
        ),
        (report_of(Process(pid=8, is_own=False)), "process 8 belongs to another user"),
        (
            report_of(root=Process(pid=7, has_context=True, uses=None)),
            "process 7 uses cannot be read",
        ),
        (report_of(elsewhere=("H200 (1)",)), "holds memory on H200 (1)"),
        (report_of(report={**CLEAN, "managed": "RMM"}), "RMM has managed memory"),
        (report_of(report={**CLEAN, "nccl": True}), "NCCL has a communicator"),
        (
            report_of(report={**CLEAN, "ipc": True}),
            "shares GPU memory with another process",
        ),
        (report_of(report=None), "process 7 may use NCCL, and no agent can be asked"),
        (
            report_of(Process(pid=8, has_context=True, uses=frozenset({"managed"}))),
            "process 8 may use managed memory",
        ),
        (
            report_of(report={**CLEAN, "profiler": "torch.profiler"}),
            "torch.profiler runs in it, and the driver cannot suspend what is profiled",
        ),
        (
            report_of(root=Process(pid=7, has_context=True, uses=frozenset({"cupti"}))),
            "process 7 uses CUPTI",
        ),
        (
            report_of(Process(pid=8, has_context=True, uses=frozenset({"profiler"}))),
            "Nsight profiles its process 8",
        ),
        (
            report_of(Process(pid=8, has_context=True, uses=frozenset({"cupti"}))),
            "process 8 may use a profiler, and no agent can be asked",
        ),
        (
            report_of(tier=SuspendMethod.OFF, why_tier="no GPU"),
            "nothing is suspended on this host: no GPU",
        ),
        (
            report_of(tier=SuspendMethod.OFFLOAD, why_tier="driver 1 is old"),
            "(driver 1 is old), and nothing is",
        ),
        (
            report_of(tier=SuspendMethod.OFFLOAD, report=None),
            "nothing in its kernel answers",
        ),
        (
            report_of(
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
    assert "another process namespace" in why_not(report_of(root=hidden))
    assert why_not(report_of(root=hidden, report={**CLEAN, "cuda": False})) == "", (
        "the library alone starts nothing"
    )
    assert "another process namespace" in why_not(
        report_of(root=hidden, report=None)
    ), "nobody says that it has not"


def test_cupti_that_a_framework_brings_along_says_nothing() -> None:
    root = Process(pid=7, has_context=True, uses=frozenset({"cuda", "cupti"}))
    with_torch = {**CLEAN, "links_cupti": True}
    assert why_not(report_of(root=root, report=with_torch)) == ""


def test_a_process_that_is_listed_with_nothing_stands_in_nobodys_way() -> None:
    child = Process(pid=8, is_listed=True, uses=frozenset({"cuda", "nccl"}))
    assert why_not(report_of(child)) == ""
    assert report_of(child).contexts == (7,)
    alone = Process(pid=7, is_listed=True, uses=frozenset({"cuda"}))
    assert why_not(report_of(root=alone)) == ""
    assert why_not(report_of(root=alone, report=None)) == ""


def test_registered_objects_and_simulated_devices_may_be_moved_without_the_driver() -> (
    None
):
    assert (
        why_not(
            report_of(
                tier=SuspendMethod.OFFLOAD,
                report={**CLEAN, "nccl": True, "registered_bytes": 5},
            )
        )
        == ""
    )
    assert why_not(report_of(is_simulated=True, tier=SuspendMethod.OFF)) == ""


def test_a_real_process_is_looked_at(process: subprocess.Popen[str]) -> None:
    (seen,) = inspect_processes([process.pid, 2**22 + 1], [process.pid])
    assert seen == Process(
        pid=process.pid,
        is_listed=True,
        has_context=True,
        uses=frozenset({"cuda"}),
        is_mps_client=True,
    )
    (own,) = inspect_processes([os.getpid()], [])
    assert (own.is_own, own.has_context, own.is_mps_client) == (True, False, False)


@pytest.mark.parametrize("pipes", [os.devnull])
def test_a_process_that_is_kept_away_from_mps_is_none_of_its_clients(
    process: subprocess.Popen[str],
) -> None:
    (seen,) = inspect_processes([process.pid], [process.pid])
    assert (seen.has_context, seen.is_mps_client) == (True, False)


def test_libraries_are_told_by_their_files(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/libcudart.so.12\n"
        "7f00-7f01 r-xp 00000000 08:01 1 /venv/lib/nccl/lib/libnccl.so.2\n"
        "7f00-7f01 r-xp 00000000 08:01 1 /venv/bitsandbytes/libbitsandbytes_cuda124.so\n"
    )
    assert libraries(maps) == {"nccl", "managed"}
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 1 /venv/nvidia/cuda_cupti/lib/libcupti.so.12\n"
        "7f00-7f01 r-xp 00000000 08:01 1 /opt/nsys/target/libToolsInjection64.so\n"
    )
    assert libraries(maps) == {"cupti", "profiler"}
    assert libraries(tmp_path / "none") is None


def test_a_process_that_is_hidden_is_not_left_out(tmp_path: Path) -> None:
    hidden, gone = 42, 43
    (seen,) = inspect_processes(
        [hidden, gone], [hidden], proc=tmp_path, exists=lambda pid: pid == hidden
    )
    assert (seen.pid, seen.is_own, seen.has_context) == (hidden, False, True)
    assert seen.uses is None
