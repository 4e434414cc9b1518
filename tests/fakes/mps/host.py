"""A stand for tests with MPS daemons: the stub on the PATH, its script, and managers
that are looked at by hand.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from jupyter_aistack.providers.nvidia.mps.limits import SLOTS
from jupyter_aistack.providers.nvidia.mps.manager import MPSAssignment, MPSManager
from jupyter_aistack.providers.nvidia.mps.paths import DaemonPaths, short
from jupyter_aistack.providers.nvidia.mps.records import DaemonRecord, DaemonRecords
from jupyter_aistack.system.processes import is_alive
from jupyter_aistack.testing import ManualClock
from tests.fakes.mps import stub_mps

GPU = "GPU-0"
H200 = {"multiprocessors": 132, "mib": 143771}


def install(folder: Path, script: dict[str, Any]) -> dict[str, str]:
    """Put the stub into ``folder/bin``; the variables that make processes find it, and
    not the machine's own.
    """
    program = folder / "bin" / "nvidia-cuda-mps-control"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!{sys.executable} -IS\n{Path(stub_mps.__file__).read_text()}")
    program.chmod(0o755)
    (folder / "stub.json").write_text(json.dumps(script))
    return {
        "PATH": f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "STUB_MPS": str(folder / "stub.json"),
    }


class Stand:
    """One host with the stub, and one GPU unless told otherwise."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.script: dict[str, Any] = {"gpus": {GPU: H200}}
        self.environment = install(folder, self.script)
        self.clock = ManualClock()

    def tell(self, **changes: Any) -> None:
        """Change the script under the running daemon."""
        self.script.update(changes)
        fresh = self.folder / "stub.new"
        fresh.write_text(json.dumps(self.script))
        fresh.replace(self.folder / "stub.json")

    def manager(self, **options: Any) -> MPSManager:
        options.setdefault("interval", None)
        options.setdefault("answer_seconds", 5.0)
        return MPSManager(
            root=lambda: self.root, clock=self.clock, pause=lambda _: None, **options
        )

    def hold(
        self, manager: MPSManager, lease_id: str = "l-1", **more: Any
    ) -> MPSAssignment:
        """Half a GPU for a lease."""
        wanted: dict[str, Any] = {
            "percent": 50,
            "mib": 71885,
            "protocol": 3,
            "slots": SLOTS,
            **more,
        }
        return manager.prepare(
            lease_id, wanted.pop("gpu", GPU), wanted.pop("index", 0), **wanted
        )

    def view(self, held: MPSAssignment, **environment: str) -> dict[str, Any]:
        """What a CUDA process that is given the lease gets."""
        given = {
            "CUDA_VISIBLE_DEVICES": GPU,
            "CUDA_MPS_PIPE_DIRECTORY": str(held.directory),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(held.limit.percent),
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={held.limit.mib}M",
        }
        return stub_mps.client_view({**given, **environment}, self.script)

    def seen_by(
        self, environment: dict[str, str], *, multiprocessors: int, mib: int
    ) -> dict[str, Any] | None:
        """What a CUDA process with an environment gets now, where it is that much."""
        seen = stub_mps.client_view(environment, self.script)
        is_as_much = (seen["multiprocessors"], seen["mib"]) == (multiprocessors, mib)
        return seen if is_as_much else None

    def running(self, gpu: str = GPU) -> DaemonRecord | None:
        return DaemonRecords(DaemonPaths(self.root / short(gpu))).running()

    def dump(self, gpu: str = GPU) -> dict[str, Any]:
        """What the daemon has in its head."""
        messages: list[str] = []
        stub_mps.ask(self.root / short(gpu) / "p", ["dump"], messages.append)
        known: dict[str, Any] = json.loads(messages[0])
        return known

    def log(self, text: str, gpu: str = GPU) -> None:
        """Have the daemon's log say something."""
        with (self.root / short(gpu) / "log" / "control.log").open("a") as file:
            file.write(f"[2026-04-28 18:20:41.704 Server 9] {text}\n")

    def close(self) -> None:
        """End the daemons that are left."""
        for record in self.root.glob("*/daemon.json"):
            running = DaemonRecords(DaemonPaths(record.parent)).running()
            if running is not None and is_alive(running.pid, running.started_at):
                os.kill(running.pid, signal.SIGKILL)
        for pid in self.servers():
            os.kill(pid, signal.SIGKILL)

    def servers(self) -> list[int]:
        """The processes of servers that were started here and still run, in the order
        of their start.
        """
        started = self.folder / "servers"
        pids = map(int, started.read_text().split() if started.exists() else ())
        return [pid for pid in pids if self._is_server(pid)]

    def _is_server(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        # The number may be another process's by now; a zombie has no environment.
        return os.fsencode(self.environment["STUB_MPS"]) in environment
