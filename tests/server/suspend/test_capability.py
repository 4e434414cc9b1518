"""Whether a host can suspend, by its driver and its GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.units import MIB
from jupyter_aistack.core.suspend.capability import NO_GPU, SWITCHED_OFF
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.base import Provider
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.server.suspend import selftest
from jupyter_aistack.server.suspend.capability import SIMULATED, find_out
from jupyter_aistack.server.suspend.selftest import Results
from jupyter_aistack.testing import ManualClock
from tests.fakes.fake_gpu import FakeGPU
from tests.paths import FAKES

FAKE = FAKES / "fake_checkpoint.py"


Make = Callable[..., CheckpointClient]


def broker(*providers: Provider, is_on: bool = True) -> Broker:
    return Broker(
        MemoryLedger(),
        providers,
        host="box",
        suspend=SuspendPolicy() if is_on else None,
    )


def test_a_context_is_measured_for_each_gpu_and_sizes_follow_it(
    helper: Make, states: Path, tmp_path: Path
) -> None:
    sizes = {"GPU-a": 700 * MIB, "GPU-b": None}
    host = broker(FakeGPU(states))
    before = {gpu.id: gpu.context_bytes for gpu in host.inventory().devices}
    assert set(before.values()) == {None}
    result = find_out(
        host,
        helper(),
        Results(tmp_path / "tested.json"),
        lambda: "580.126.09",
        lambda uuid, client, measure: "",
        lambda uuid, measure: sizes[uuid],
    )
    assert result.context_bytes == 700 * MIB
    host.devices.forget()
    after = {gpu.id: gpu.context_bytes for gpu in host.inventory().devices}
    assert after == sizes


def test_a_host_is_as_ready_as_its_driver_and_its_gpus(
    helper: Make, states: Path, tmp_path: Path
) -> None:
    clock, tried = ManualClock(), list[str]()
    results = Results(tmp_path / "deep" / "tested.json", clock)

    def test(uuid: str, client: CheckpointClient, measure: selftest.Measure) -> str:
        tried.append(uuid)
        assert measure(os.getpid()).held_bytes == 0, "it is not on the GPU"
        return answers[uuid]

    def ready(
        version: str = "580.126.09", is_on: bool = True
    ) -> tuple[SuspendMethod, str]:
        result = find_out(
            broker(FakeGPU(states), is_on=is_on),
            helper(),
            results,
            lambda: version,
            test,
            lambda uuid, measure: None,
        )
        return result.tier, result.why

    answers = {"GPU-a": "", "GPU-b": "memory stayed"}
    assert ready(is_on=False) == (SuspendMethod.OFF, SWITCHED_OFF.why)
    assert ready("570.1")[0] is SuspendMethod.OFFLOAD
    assert tried == [], "a driver that is known to be bad is not tried"
    assert ready() == (SuspendMethod.OFFLOAD, "GPU b: memory stayed")
    answers["GPU-b"] = ""
    tried.clear()
    assert ready() == (SuspendMethod.CHECKPOINT, "")
    assert tried == ["GPU-b"], (
        "what has passed is remembered, what has failed is tried again"
    )
    tried.clear()
    assert ready() == (SuspendMethod.CHECKPOINT, "")
    assert tried == []
    assert ready("590.1") == (SuspendMethod.CHECKPOINT, "")
    assert tried == ["GPU-a", "GPU-b"], "another driver is another matter"
    clock.advance(8 * 86400)
    tried.clear()
    assert ready() == (SuspendMethod.CHECKPOINT, "")
    assert tried == ["GPU-a", "GPU-b"]


def test_what_nvml_lists_with_nothing_is_told_from_what_it_keeps_back(
    helper: Make, states: Path, tmp_path: Path
) -> None:
    gpu, seen = FakeGPU(states), list[int | None]()
    gpu.held = {1: 5, 2: 0}

    def test(uuid: str, client: CheckpointClient, measure: selftest.Measure) -> str:
        if uuid == "GPU-a":
            seen.extend(measure(pid).held_bytes for pid in (1, 2, 3))
            states.write_text(json.dumps({"1": "checkpointed"}))
            gpu.stuck = None
            seen.append(measure(1).held_bytes)
        return ""

    results = Results(tmp_path / "tested.json")
    measured = {"GPU-a": 400, "GPU-b": 500}
    capability = find_out(
        broker(gpu),
        helper(),
        results,
        lambda: "580.126.09",
        test,
        lambda uuid, measure: measured[uuid],
    )
    assert seen == [5, 0, 0, None]
    assert capability.context_bytes == 500
    assert results.context_bytes("580.126.09", "GPU a") == 400


def test_without_a_gpu_or_with_simulated_ones_nothing_is_tried(
    helper: Make, tmp_path: Path
) -> None:
    results = Results(tmp_path / "tested.json")
    assert find_out(broker(), helper(), results, lambda: "580.1") == NO_GPU
    simulated = broker(SimulatedProvider("1xH100-80GB"))
    assert find_out(simulated, helper(), results, lambda: "") == SIMULATED
    cut = broker(SimulatedProvider("1xH200-141GB:mig=1g.18gb*7"))
    assert find_out(cut, helper(), results, lambda: "") == SIMULATED
