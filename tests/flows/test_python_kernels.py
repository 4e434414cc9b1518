"""What code in a real Python kernel finds."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.kernel.environment import SECRETS
from tests.fakes.kernel_server import (
    ALL,
    IPYKERNEL,
    WriteKernel,
    active,
    client_of,
    evaluate,
)
from tests.fakes.scripted import exchange_providers
from tests.fakes.waiting import until


async def test_process_and_its_children_run_on_the_granted_cores_with_as_many_threads(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("one", slice="cpu:1", argv=IPYKERNEL)
    )
    lease = await active(broker, kernel_id)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        cores = list(lease.slices[0].cores)
        assert len(cores) == 1
        threads = "[sorted(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')]"
        assert set(map(tuple, await evaluate(client, threads))) == {tuple(cores)}
        assert await evaluate(client, "os.environ['OMP_NUM_THREADS']") == "1"
        seen = (
            "json.loads(__import__('subprocess').check_output("
            "[sys.executable, '-m', 'jupyter_aistack.system.verify.probe']))"
        )
        assert (await evaluate(client, seen))["cores"] == cores
    assert (lease.verified, conditions_text(lease.conditions)) == (True, "")


def _exchange(broker: Broker, provider: Any) -> None:
    """Put another provider in."""
    exchange_providers(broker, provider)


@pytest.mark.parametrize(
    "promise", [{"cores": (0, 1, 2, 3)}, {"threads": "7"}], ids=str
)
async def test_promise_that_is_not_kept_is_found_out_and_said(
    kernels: Any, broker: Broker, kernelspec: WriteKernel, promise: dict[str, Any]
) -> None:
    (provider,) = broker.devices.providers
    _exchange(broker, Boastful(provider, promise))
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = await active(broker, kernel_id)
    assert lease.verified is False
    assert conditions_text(lease.conditions).startswith(
        "not enforced: the process sees "
    )
    assert "LeaseNotEnforced" in {event.kind.value for event in broker.events()}


async def test_promise_of_a_gpu_that_cannot_be_checked_is_not_called_verified(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    (provider,) = broker.devices.providers
    _exchange(broker, Boastful(provider, {"visible": ("GPU-0",)}))
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = await active(broker, kernel_id)
    assert lease.verified is not True
    assert conditions_text(lease.conditions)


class Boastful:
    """A provider that promises more than it sets."""

    def __init__(self, provider: Any, promise: dict[str, Any]) -> None:
        self._provider, self._promise = provider, promise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def prepare(self, lease: Lease, devices: Any) -> Any:

        prepared = self._provider.prepare(lease, devices)
        environment = {
            k: v
            for k, v in prepared.environment.items()
            if "threads" not in self._promise
        }
        return replace(
            prepared,
            environment=environment,
            expects=replace(prepared.expects, **self._promise),
        )


async def test_secrets_of_the_server_do_not_reach_the_kernel(
    kernels: Any, kernelspec: WriteKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "s3cret-of-the-server")
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("plain", argv=IPYKERNEL)
    )
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        assert (
            await evaluate(
                client, "[k for k, v in os.environ.items() if 's3cret' in v]"
            )
            == []
        )


async def test_secret_that_is_wanted_in_notebooks_can_be_let_through(
    kernels: Any, kernelspec: WriteKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "for-dask-gateway")
    monkeypatch.setenv("JUPYTER_TOKEN", "s3cret")
    name = kernelspec("plain", argv=IPYKERNEL, drop_environment=["JUPYTER_TOKEN"])
    kernel_id = await kernels.start_kernel(kernel_name=name)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        result = (
            "[os.environ.get('JUPYTERHUB_API_TOKEN'), os.environ.get('JUPYTER_TOKEN')]"
        )
        assert await evaluate(client, result) == ["for-dask-gateway", None]


async def test_settings_of_the_kernelspec_are_kept_where_they_ask_for_less(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    name = kernelspec(
        "all",
        slice=f"cpu:{ALL}",
        argv=IPYKERNEL,
        env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "512"},
    )
    kernel_id = await kernels.start_kernel(kernel_name=name)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        threads = await evaluate(
            client, "[os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS']]"
        )
        assert threads == ["1", str(ALL)]
    assert (await active(broker, kernel_id)).verified is True


async def test_kernel_can_ask_its_server_for_a_slice(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("plain", argv=IPYKERNEL)
    )
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        ask = "[(held := __import__('jupyter_aistack').request('cpu:1')).id, held.verified]"
        lease_id, verified = await evaluate(client, ask)
        assert verified is True
        holder = broker.lease(lease_id).holder
        assert (holder.id, holder.pid) == (
            kernel_id,
            kernels.get_kernel(kernel_id).provisioner.pid,
        )
        await kernels.restart_kernel(kernel_id)
    kept = await until(
        lambda: (
            broker.lease(lease_id)
            if broker.lease(lease_id).holder.pid != os.getpid()
            else None
        )
    )
    assert kept.state is LeaseState.ACTIVE
