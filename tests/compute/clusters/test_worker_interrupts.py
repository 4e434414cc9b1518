"""Ctrl-C that reaches a worker's own task, as it does in an event loop on the main
thread.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from jupyter_aistack.client.client import Client
from jupyter_aistack.client.embedded import EmbeddedTransport
from jupyter_aistack.compute.clusters.worker import LeasedWorker, WorkerPlan
from jupyter_aistack.compute.clusters.worker_leases import WorkerLeases


def test_ctrl_c_in_a_workers_own_task_stays_ctrl_c_and_keeps_no_lease(
    own_ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    client = Client(EmbeddedTransport())
    held: list[str] = []

    def interrupt() -> None:
        if worker.stage == "starting":
            held.extend(lease["id"] for lease in client.leases())
            signal.raise_signal(signal.SIGINT)

    leases = WorkerLeases(client, "1/4", queue="", timeout=5, cluster="c")
    plan = WorkerPlan(
        leases=leases,
        threads=None,
        nanny={},
        is_wanted=lambda name: True,
        on_change=interrupt,
    )
    worker = LeasedWorker("tcp://127.0.0.1:9", 0, plan=plan)
    loop = asyncio.new_event_loop()
    start = loop.create_task(worker.start())
    with pytest.raises(KeyboardInterrupt):  # it leaves the loop at once
        loop.run_until_complete(start)
    left = client.leases()
    with pytest.raises(KeyboardInterrupt):  # as does what waited for the worker
        loop.run_until_complete(start)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    client.close()
    assert len(held) == 1
    assert left == []
    assert worker.stage == "failed"
