"""Kernels launched by programs without a Jupyter server: nbclient, papermill, a plain
kernel manager.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.manager import AsyncKernelManager, KernelManager
from nbclient import NotebookClient

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.kernel import lease_monitor
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.providers.registry import build_providers
from jupyter_aistack.system.sqlite_files import sqlite_url
from tests.fakes.kernel_server import (
    IPYKERNEL,
    WriteKernel,
    active,
    environment_of,
    is_ready,
)
from tests.fakes.waiting import until, wait_until
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "cpu")


@pytest.fixture
def broker(own_ledger: str) -> Iterator[Broker]:
    """Another process's broker on the same ledger."""
    broker = Broker(open_ledger(own_ledger), build_providers("cpu"))
    yield broker
    broker.close()


def test_notebook_runs_on_its_slice_and_gives_it_back(
    kernelspec: WriteKernel, broker: Broker
) -> None:
    name = kernelspec("one", slice="cpu:1", argv=IPYKERNEL)
    code = "import os; print(os.environ['AISTACK_LEASE'], len(os.sched_getaffinity(0)), 'AISTACK_SOCKET' in os.environ)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name=name, timeout=60).execute()
    lease_id, cores, has_socket = notebook.cells[0].outputs[0]["text"].split()
    assert (cores, has_socket) == ("1", "False")
    assert broker.lease(lease_id).outcome is Outcome.RELEASED
    assert broker.leases() == ()


def test_synchronous_kernel_manager_works_too(
    kernelspec: WriteKernel, broker: Broker
) -> None:
    manager = KernelManager(kernel_name=kernelspec("one", slice="cpu:1"))
    manager.start_kernel()
    (lease,) = broker.leases()
    assert lease.holder.pid == manager.provisioner.pid
    manager.restart_kernel()
    assert [lease.id for lease in broker.leases()] == [lease.id]
    manager.shutdown_kernel()
    assert broker.lease(lease.id).outcome is Outcome.RELEASED


async def test_lease_is_renewed_with_nobody_else_around(
    kernelspec: WriteKernel,
    monkeypatch: pytest.MonkeyPatch,
    jp_config_dir: Path,
    tmp_path: Path,
) -> None:
    (jp_config_dir / "jupyter_aistack_config.json").write_text(
        '{"AIStack": {"lease_ttl_seconds": 2}}'
    )
    # Named only now: a thread of an earlier kernel may end late, and would have opened
    # the test's ledger by the settings of before.
    url = sqlite_url(tmp_path / "short.sqlite")
    monkeypatch.setenv("AISTACK_LEDGER", url)
    broker = Broker(open_ledger(url), build_providers("cpu"))
    monkeypatch.setattr(lease_monitor, "ALONE_SECONDS", 0.1)
    manager = AsyncKernelManager(kernel_name=kernelspec("one", slice="cpu:1"))
    await manager.start_kernel()
    lease = await active(broker, str(manager.kernel_id))
    assert lease.expires_at - lease.granted_at <= 3
    await until(lambda: broker.lease(lease.id).expires_at > lease.expires_at)
    await manager.shutdown_kernel()
    broker.close()


async def test_kernel_of_a_kernel_shares_its_slice(
    kernelspec: WriteKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = {
        "AISTACK_LEASE": "l-1",
        "AISTACK_SOCKET": "/s",
        "AISTACK_KERNEL": "k",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
    }
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    manager = AsyncKernelManager(kernel_name=kernelspec("plain"))
    await manager.start_kernel()
    environment = environment_of(manager.provisioner.pid)
    await manager.shutdown_kernel()
    assert {name: environment.get(name) for name in inherited} == inherited


@pytest.mark.parametrize("slice_", ["", "cpu:1"], ids=["plain", "with slice"])
async def test_setting_that_makes_no_sense_stops_no_kernel(
    kernelspec: WriteKernel, monkeypatch: pytest.MonkeyPatch, slice_: str
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "abacus")
    manager = AsyncKernelManager(kernel_name=kernelspec("any", slice=slice_))
    await manager.start_kernel()
    environment = environment_of(manager.provisioner.pid)
    await manager.shutdown_kernel()
    assert "AISTACK_LEASE" not in environment
    assert environment.get("CUDA_VISIBLE_DEVICES") == (
        "" if slice_ else os.environ.get("CUDA_VISIBLE_DEVICES")
    )


async def test_plain_kernel_sees_no_gpu_where_gpus_are_leased_out(
    kernelspec: WriteKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_aistack.core.enforcement.device_visibility import hidden_environment
    from jupyter_aistack.kernel import provisioner
    from jupyter_aistack.system.runtimes import installed_visibilities

    monkeypatch.setattr(
        provisioner,
        "configured_hidden_environment",
        lambda: hidden_environment(installed_visibilities()),
    )
    manager: Any = AsyncKernelManager(kernel_name=kernelspec("plain"))
    await manager.start_kernel()
    environment = environment_of(manager.provisioner.pid)
    await manager.shutdown_kernel()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == (
        "",
        "PCI_BUS_ID",
    )
    assert (
        environment["ROCR_VISIBLE_DEVICES"],
        environment["HIP_VISIBLE_DEVICES"],
    ) == ("", "")


def test_jupyter_run_gives_the_slice_back_though_it_ends_with_the_interpreter(
    kernelspec: WriteKernel, broker: Broker, jp_data_dir: Path, tmp_path: Path
) -> None:
    name = kernelspec("one", slice="cpu:1", argv=IPYKERNEL)
    script = tmp_path / "script.py"
    script.write_text("import os; print(os.environ['AISTACK_LEASE'])")
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_client.runapp", "--kernel", name, str(script)],
        env={**os.environ, "JUPYTER_DATA_DIR": str(jp_data_dir)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "schedule new futures" not in done.stderr
    assert broker.lease(done.stdout.strip()).outcome is Outcome.RELEASED


def test_a_kernelspec_whose_command_alone_is_started_gets_its_slice(
    own_ledger: str, tmp_path: Path
) -> None:
    """As VS Code does: it passes the provisioner over, and signals the kernel alone."""
    spec = json.loads(
        (ROOT / "kernels" / "aistack-quarter" / "kernel.json").read_text()
    )
    file, _ = write_connection_file(str(tmp_path / "kernel.json"))
    words = [word.replace("{connection_file}", file) for word in spec["argv"][1:]]
    gpu = {"AISTACK_PROVIDERS": "simulated:1xH100-80GB"}
    broker = Broker(open_ledger(own_ledger), build_providers(gpu["AISTACK_PROVIDERS"]))
    broker.leases()  # that a ledger is new would be said first
    kernel = subprocess.Popen(
        [sys.executable, *words], env={**os.environ, **spec["env"], **gpu}
    )
    client = BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    client.start_channels()
    shown: list[str] = []

    def show(message: Any) -> None:
        shown.append(message["content"].get("text", ""))

    try:
        wait_until(lambda: is_ready(client))
        code = "import os; print('AISTACK_SLICE' in os.environ)"
        client.execute_interactive(code, timeout=60, output_hook=show)
        (lease,) = broker.leases()
        told = "".join(shown).splitlines()
        assert told[0].startswith(f"This kernel now holds 1/4 ({lease.id})")
        assert (told[1], lease.holder.pid) == ("False", kernel.pid)

        def interrupt(message: Any) -> None:
            if message["msg_type"] == "stream":
                kernel.send_signal(signal.SIGINT)

        waiting = "import time; print('on', flush=True); time.sleep(600)"
        reply = client.execute_interactive(waiting, timeout=60, output_hook=interrupt)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert broker.lease(lease.id).is_live
    finally:
        client.shutdown()
        client.stop_channels()
        kernel.wait(timeout=60)
        broker.maintain()
    assert broker.leases() == ()
    broker.close()


def test_each_kernelspec_says_its_slice_to_both_who_may_start_it() -> None:
    specs = [
        json.loads(path.read_text()) for path in ROOT.glob("kernels/*/kernel.json")
    ]
    slices = {
        spec["metadata"]["kernel_provisioner"]["config"].get("slice", ""): spec.get(
            "env", {}
        ).get("AISTACK_SLICE", "")
        for spec in specs
    }
    assert slices == {"": "", "1": "1", "1/4": "1/4"}
