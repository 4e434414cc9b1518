"""The probe of the package itself: its self-test, its check of a share at each level,
and whom its accounts charge.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.probes.children import Child, child
from tests.benchmarks.gpu.probes.reporting import Finding, Findings, Limits, timed

MODES: tuple[dict[str, Any], ...] = ({}, {"enforcement": "advisory"})
LOOKS, PAUSE_SECONDS = 4, 1.5


def finding(name: str, **values: object) -> Finding:
    return Finding(probe="product", name=name, values=values)


def product(limits: Limits) -> Findings:
    """The package's self-test, its own check of a share, and whom its accounts charge."""
    os.environ.update(AISTACK_LEDGER="memory:", AISTACK_PROVIDERS="gpu")
    yield from self_tested()
    for settings in MODES:
        name = settings.get("enforcement", "auto")
        try:
            yield from of_mode(str(name), settings)
        except Exception as error:
            yield finding(str(name), failed=f"{type(error).__name__}: {error}")


def self_tested() -> Findings:
    """What the inventory says of the GPU, and what the self-test does."""
    from jupyter_aistack.core.model.device import DeviceKind
    from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
    from jupyter_aistack.server.suspend.capability import find_out
    from jupyter_aistack.server.suspend.selftest import Results
    from tests.benchmarks.gpu.bench import broker

    helper = CheckpointClient()
    try:
        with broker(suspend="auto", enforcement="advisory") as made:
            inventory = made.inventory()
            for gpu in inventory.of_kind(DeviceKind.GPU):
                yield finding(
                    "device",
                    gpu=gpu.name,
                    level=gpu.level,
                    why_not=dict(gpu.why_not),
                    memory_bytes=gpu.memory_bytes,
                    multiprocessors=gpu.multiprocessors,
                    problems=inventory.problems,
                )
            with tempfile.TemporaryDirectory() as folder:
                results = Results(Path(folder) / "results")
                version = made.devices.driver_version
                capability, seconds = timed(
                    lambda: find_out(made, helper, results, version)
                )
            yield finding(
                "self_test", tier=capability.tier, why=capability.why, s=seconds
            )
    finally:
        helper.close()


def of_mode(name: str, settings: dict[str, Any]) -> Findings:
    """A quarter of the GPU: what holds it, what a process in it finds, who is charged."""
    from jupyter_aistack.system.verify.child import verify
    from tests.benchmarks.gpu.bench import broker, environment, leased

    with broker(**settings) as made:
        begin = time.monotonic()
        with leased(made, "gpu:1/4") as (lease, prepared):

            def is_client(pid: int) -> bool | None:
                known = made.clients(lease)
                return None if known is None else pid in known

            yield finding(
                name,
                level=prepared.enforced_by,
                prepare_s=time.monotonic() - begin,
                conditions=[str(each) for each in prepared.conditions],
                expects=str(prepared.expects),
            )
            verified, condition = verify(
                prepared.expects,
                interpreter=sys.executable,
                environment=environment(prepared),
                is_client=is_client,
            )
            yield finding(f"{name}_check", verified=verified, condition=str(condition))
            with child("burning", **prepared.environment) as tenant:
                answer = tenant.hear()
                charged = {} if "error" in answer else charges(made, lease, tenant)
            yield finding(f"{name}_charges", **answer, joules=charged)


def charges(made: Any, lease: Any, tenant: Child) -> dict[str, float]:
    """Joules by lease and of the system, while the tenant works."""
    made.bind(lease.id, lease.token, pid=os.getpid(), root_pid=tenant.pid)
    for _ in range(LOOKS):
        made.maintain()
        time.sleep(PAUSE_SECONDS)
    made.record_usage(settle=True)
    day = int(time.time() // 86400)
    result: dict[str, float] = {}
    for charge in made.ledger.charges(day - 1, day):
        name = "lease" if charge.lease_id == lease.id else charge.lease_id or "system"
        result[name] = result.get(name, 0.0) + charge.millijoules / 1000
    return result
