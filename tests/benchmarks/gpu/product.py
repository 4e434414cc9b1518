"""The package's own way out and back: its self-test, its preflight, and one real kernel
that is suspended and resumed through a real server.

The other sections call the driver as the package does; this one lets the package do it,
so that what stands between a user and the driver is tried too. The kernel keeps a
pattern on the GPU; it is looked at after it has come back. It ends through its server,
which takes its state away before it is killed (NVIDIA/cuda-checkpoint#53).
"""

from __future__ import annotations

import math
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.device_state import (
    NOT_CHECKED,
    DisplayState,
    SuspendMethod,
)
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.server.suspend.capability import find_out
from jupyter_aistack.server.suspend.selftest import Results
from jupyter_aistack.system.memory import available_bytes
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    broker,
    gpus,
    used_bytes,
)
from tests.benchmarks.gpu.notebooks import (
    Notebook,
    opened,
    run_cell,
    words_after,
    write_kernelspec,
)
from tests.benchmarks.gpu.rehearsal import fake_helper, rehearsed_driver, seen_by_nvml
from tests.benchmarks.gpu.units import GIB, MIB
from tests.benchmarks.gpu.work import pattern_sum

SECONDS = 40.0
STATE_BYTES, MOVE_SECONDS = 2 * GIB, 20.0
LEAST_PARTS, HOST_SHARE = 8, 0.5
"""A share of an eighth of the GPU; less of it where the host's memory, half of which it
may take, is too small for that.
"""
SUSPEND = {"warm": 0.1, "retry": 1.0}
GONE = 0.95
"""Of what it holds must have left the GPU."""
API = "aistack/api/v1/"
RESULTS = "suspend-tested.json"
"""Where a server remembers self-tests, beside its ledger."""

HELPER = """
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
CheckpointClient.__init__.__defaults__ = ({command!r},)
"""
CONFIG = """
c.AIStack.providers = "gpu"
c.AIStack.enforcement = "advisory"
c.AIStack.cycle_seconds = 0.2
c.AIStack.suspend = {suspend!r}
c.AIStack.queues = {{"default": {{"suspend": True}}}}
"""
"""Advisory: a client of MPS cannot be suspended."""
SETUP = """
import ctypes, torch
driver = ctypes.CDLL("libcuda.so.1")
data = torch.arange({count}, dtype=torch.int32, device={device!r})
print("ready")
"""
CHECK = """
print("right", int((data % 251).sum(dtype=torch.int64)), len(data))
"""


class NotMoved(Exception):
    """The kernel's state did not get where it was sent; says where it is and why."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a server, with a lease that may be suspended."""

    server: Any
    notebook: Notebook

    def lease(self) -> dict[str, Any]:
        """Its lease as the server tells it."""
        leases = self.server.get(f"{API}leases")["leases"]
        kernel_id = self.notebook.kernel_id
        return next(lease for lease in leases if lease["holder"]["id"] == kernel_id)

    def until(self, is_there: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        """Where its state is, once that is so.

        Raises:
            NotMoved: it was not so in time.
        """
        deadline = time.monotonic() + MOVE_SECONDS
        while True:
            state: dict[str, Any] = self.lease().get("residence") or {}
            if is_there(state):
                return state
            if time.monotonic() > deadline:
                standing = state.get("standing", "no state that could move")
                raise NotMoved(f"{standing}: {state.get('why', '')}".rstrip(": "))
            time.sleep(0.02)

    def ask(self, action: str) -> None:
        """Have its lease suspended or resumed."""
        self.server_answer("POST", f"{API}leases/{self.lease()['id']}/{action}")

    def end(self) -> None:
        """End it through its server."""
        self.server_answer("DELETE", f"api/kernels/{self.notebook.kernel_id}")

    def server_answer(self, method: str, path: str) -> None:
        from tests.fakes.live_server import TOKEN

        headers = {"Authorization": f"token {TOKEN}"}
        body = b"{}" if method == "POST" else None
        asked = urllib.request.Request(
            self.server.url + path, data=body, headers=headers, method=method
        )
        urllib.request.urlopen(asked, timeout=60).close()


def rows(bench: Bench) -> Iterator[Row]:
    with rehearsed_driver(bench):
        (bench.folder / "server").mkdir()
        capability, seconds = self_tested(bench)
        yield from judged(capability, seconds)
        if capability is None or capability.tier is not SuspendMethod.CHECKPOINT:
            return
        yield from through_a_kernel(bench)


def helper_command(bench: Bench) -> tuple[str, ...]:
    """The helper of a rehearsal; empty for the package's own."""
    return fake_helper(bench.folder) if bench.device == "cpu" else ()


def self_tested(bench: Bench) -> tuple[SuspendCapability | None, float]:
    """What the package's self-test finds, and its seconds; None without a GPU. A
    rehearsal has no driver to try, and takes it for passed.
    """
    command = helper_command(bench)
    helper = CheckpointClient(command) if command else CheckpointClient()
    results = Results(bench.folder / "server" / RESULTS)
    begin = time.monotonic()
    try:
        with broker(suspend=SUSPEND, enforcement="advisory") as made:
            if not gpus(made):
                return None, 0.0
            version = made.devices.driver_version()
            if command:
                results.note(version, gpus(made)[0].id, has_passed=True)
            found_out = find_out(made, helper, results, lambda: version)
    finally:
        helper.close()
    return found_out, time.monotonic() - begin


def judged(capability: SuspendCapability | None, seconds: float) -> Iterator[Row]:
    """What the self-test says: off is no success."""
    if capability is None:
        yield Row(name="self_test", says="no GPU here can be shared")
        return
    has_passed = capability.tier is SuspendMethod.CHECKPOINT
    says = f"{capability.tier.value} {capability.why}".strip()
    yield Row(name="self_test.passed", value=float(has_passed), says=says, least=1.0)
    yield Row(name="self_test.seconds", value=seconds)


def through_a_kernel(bench: Bench) -> Iterator[Row]:
    """One kernel from its start to its end."""
    with started(bench) as kernel:
        try:
            yield from out_and_back(bench, kernel)
        except (NotMoved, RuntimeError, TimeoutError) as error:
            yield Row(name="kernel.moved", value=0.0, says=str(error), least=1.0)
        begin = time.monotonic()
        kernel.end()
        yield Row(name="kernel.end_seconds", value=time.monotonic() - begin)


@contextmanager
def started(bench: Bench) -> Iterator[Kernel]:
    """A kernel with a share, on a server of its own."""
    from tests.fakes.live_server import live_server

    folder = bench.folder / "server"
    with live_server(folder, f"--config={settings(bench)}") as server:
        host = server.get(f"{API}host")
        write_kernelspec(folder / "data", "product", share(host), "default")
        notebook = opened(server, "product")
        try:
            yield Kernel(server=server, notebook=notebook)
        finally:
            notebook.client.stop_channels()


def share(host: Mapping[str, Any]) -> str:
    """What the kernel asks for."""
    gpu = next(device for device in host["devices"] if device["kind"] == "gpu")
    parts = int(gpu["memory_bytes"]) / (HOST_SHARE * available_bytes())
    return f"gpu:1/{max(LEAST_PARTS, math.ceil(parts))}"


def settings(bench: Bench) -> Path:
    """The server's configuration."""
    command = helper_command(bench)
    file = bench.folder / "product_config.py"
    helper = HELPER.format(command=command) if command else ""
    file.write_text(helper + CONFIG.format(suspend=SUSPEND))
    return file


def out_and_back(bench: Bench, kernel: Kernel) -> Iterator[Row]:
    """The preflight's word, both ways with their seconds, and the data after it."""
    size = bench.pick(STATE_BYTES, 4 * MIB)
    words = {"count": size // 4, "device": bench.device}
    with seen_by_nvml(bench, int(kernel.lease()["holder"]["root_pid"]), size):
        run_cell(kernel.notebook, SETUP.format(**words))
        checked = kernel.until(is_checked)
        may_leave = checked["standing"] == DisplayState.WARM
        yield Row(
            name="preflight.passed",
            value=float(may_leave),
            says=str(checked.get("why", "")),
            least=1.0,
        )
        if not may_leave:
            return
        yield from out(bench, kernel, size)
        begin = time.monotonic()
        text = run_cell(kernel.notebook, CHECK)
        yield Row(name="kernel.back_seconds", value=time.monotonic() - begin)
        kernel.until(is_back)
        expected = [str(pattern_sum(size // 4)), str(size // 4)]
        is_right = words_after("right", text) == expected
        yield Row(name="kernel.data_right", value=float(is_right), least=1.0)


def out(bench: Bench, kernel: Kernel, size: int) -> Iterator[Row]:
    """The way out: how it was done, its seconds, and whether the memory is free."""
    before, begin = used_bytes(bench.device), time.monotonic()
    kernel.ask("suspend")
    state = kernel.until(is_suspended)
    seconds, after = time.monotonic() - begin, used_bytes(bench.device)
    yield Row(
        name="kernel.out_seconds",
        value=seconds,
        says=f"{state.get('tier')}, {(state.get('state_bytes') or 0) / MIB:,.0f} MiB",
    )
    if before is None or after is None:
        yield Row(name="kernel.memory_gone", says="n/a: the GPU does not tell")
        return
    yield Row(
        name="kernel.memory_gone",
        value=(before - after) / size,
        least=GONE,
        says="share",
    )


def is_checked(state: Mapping[str, Any]) -> bool:
    """Whether the preflight was made since the last cell."""
    standing, why = state.get("standing"), state.get("why")
    is_refused = standing == DisplayState.PINNED and why != NOT_CHECKED
    return standing == DisplayState.WARM or is_refused


def is_back(state: Mapping[str, Any]) -> bool:
    """Whether it is on its device."""
    away = {DisplayState.SUSPENDED, DisplayState.LOST}
    return "standing" in state and state["standing"] not in away


def is_suspended(state: Mapping[str, Any]) -> bool:
    return state.get("standing") == DisplayState.SUSPENDED
