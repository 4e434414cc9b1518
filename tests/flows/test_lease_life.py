"""The provisioner contract, event by event: what happens to the lease when something
happens to the kernel.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from dataclasses import replace
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.policy import Queue
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.system.processes import boot_id, started_at
from jupyter_aistack.system.users import current_user
from tests.fakes.kernel_server import (
    ALL,
    WriteKernel,
    active,
    environment_of,
    lease_of,
    pid_of,
)
from tests.fakes.waiting import until


def holder(name: str, pid: int | None = None) -> Holder:
    return Holder(
        kind=HolderKind.KERNEL,
        id=name,
        user=current_user(),
        host=boot_id(),
        pid=pid or os.getpid(),
    )


async def test_start_grants_a_lease_tied_to_the_process(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease, pid = lease_of(broker, kernel_id), pid_of(kernels, kernel_id)
    assert lease is not None
    assert (lease.holder.pid, lease.holder.root_pid) == (pid, pid)
    assert lease.holder.pid_started_at == started_at(pid)
    assert environment_of(pid)["AISTACK_LEASE"] == lease.id
    assert environment_of(pid)["AISTACK_KERNEL"] == kernel_id


async def test_kernel_without_a_queue_of_its_own_waits_in_its_users(
    kernels: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = Queue(name="lab", members=frozenset({"@painters"}))
    policy = broker.host_state.policy
    broker.host_state.policy = replace(policy, queues=(lab, *policy.queues))
    monkeypatch.setattr(
        "jupyter_aistack.broker.remote.embedded.groups_of",
        lambda user: frozenset({"painters"}),
    )
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = lease_of(broker, kernel_id)
    assert lease is not None
    assert lease.queue == "lab"


async def test_user_restart_keeps_the_lease(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    before, pid = await active(broker, kernel_id), pid_of(kernels, kernel_id)
    restarting = asyncio.ensure_future(kernels.restart_kernel(kernel_id))
    while not restarting.done():
        broker.maintain()  # whoever looks meanwhile finds the lease held
        await asyncio.sleep(0.001)
    after = lease_of(broker, kernel_id)
    assert after is not None
    assert (after.id, after.token) == (before.id, before.token)
    assert after.holder.pid == pid_of(kernels, kernel_id) != pid
    assert environment_of(after.holder.pid)["AISTACK_LEASE"] == before.id


async def test_crash_and_automatic_restart_keep_the_lease(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    before, pid = await active(broker, kernel_id), pid_of(kernels, kernel_id)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid_of(kernels, kernel_id) != pid)
    await until(
        lambda: (
            (lease_of(broker, kernel_id) or before).holder.pid
            == pid_of(kernels, kernel_id)
        )
    )
    after = lease_of(broker, kernel_id)
    assert after is not None
    assert after.id == before.id


async def test_shutdown_releases(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = await active(broker, kernel_id)
    await kernels.shutdown_kernel(kernel_id)
    assert broker.lease(lease.id).outcome is Outcome.RELEASED


async def test_shutdown_at_once_releases_too(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = lease_of(broker, kernel_id)
    assert lease is not None
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert broker.lease(lease.id).outcome is Outcome.RELEASED


async def test_cleaning_up_twice_is_cleaning_up_once(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    provisioner, lease = (
        kernels.get_kernel(kernel_id).provisioner,
        await active(broker, kernel_id),
    )
    await kernels.shutdown_kernel(kernel_id)
    await provisioner.cleanup(restart=False)
    assert broker.lease(lease.id).outcome is Outcome.RELEASED


async def test_interrupt_changes_nothing(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    stubborn = "import signal, time; signal.signal(2, lambda *a: None); [time.sleep(1) for _ in range(600)]"
    name = kernelspec("one", slice="cpu:1", argv=["python", "-S", "-c", stubborn])
    kernel_id = await kernels.start_kernel(kernel_name=name)
    before = await active(broker, kernel_id)
    await kernels.interrupt_kernel(kernel_id)
    assert lease_of(broker, kernel_id) == before


async def test_failed_launch_releases_and_leaves_nothing_pending(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    name = kernelspec("broken", slice="cpu:1", argv=["/there/is/no/such/program"])
    with pytest.raises(FileNotFoundError):
        await kernels.start_kernel(kernel_name=name)
    assert broker.leases() == ()
    assert [lease.outcome for lease in broker.leases(live=False)] == [Outcome.RELEASED]
    assert not kernels._pending_kernels


async def test_launch_that_fails_before_the_process_releases_too(
    kernels: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = kernelspec("one", slice="cpu:1")
    monkeypatch.setattr(KernelManager, "format_kernel_cmd", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await kernels.start_kernel(kernel_name=name)
    assert [lease.outcome for lease in broker.leases(live=False)] == [Outcome.RELEASED]
    assert not kernels._pending_kernels


async def test_kernel_given_up_on_releases_at_once(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    name = kernelspec(
        "dying", slice="cpu:1", argv=["python", "-S", "-c", "raise SystemExit(1)"]
    )
    kernel_id = await kernels.start_kernel(kernel_name=name)
    lease = lease_of(broker, kernel_id)
    assert lease is not None
    await until(lambda: not broker.lease(lease.id).is_live, seconds=20)
    # By the restarter's word, long before the grace is over.
    assert broker.lease(lease.id).outcome is Outcome.RELEASED
    assert kernel_id not in kernels


async def test_dead_kernel_that_nobody_restarts_keeps_its_lease_for_the_grace_only(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("one", slice="cpu:1", grace_seconds=1.0)
    )
    lease, manager = await active(broker, kernel_id), kernels.get_kernel(kernel_id)
    manager.stop_restarter()
    os.kill(pid_of(kernels, kernel_id), signal.SIGKILL)
    held = await until(lambda: broker.lease(lease.id).holder.pid == os.getpid())
    assert held
    await until(lambda: broker.lease(lease.id).outcome is Outcome.RELEASED)


async def test_relaunch_whose_lease_is_lost_starts_without_and_waits(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("all", slice=f"cpu:{ALL}", wait_seconds=0.1)
    )
    lease = await active(broker, kernel_id)
    broker.release(lease.id, lease.token)
    broker.submit(f"cpu:{ALL}", holder("somebody-else"))
    await kernels.restart_kernel(kernel_id)
    assert lease_of(broker, kernel_id) is None
    (waiting,) = broker.queue()
    assert waiting.holder.id == kernel_id
    environment = environment_of(pid_of(kernels, kernel_id))
    assert environment["AISTACK_REQUEST"] == waiting.id
    assert "AISTACK_LEASE" not in environment


async def test_relaunch_is_not_refused_even_when_the_request_now_would_be(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("all", slice=f"cpu:{ALL}")
    )
    lease, pid = await active(broker, kernel_id), pid_of(kernels, kernel_id)
    broker.release(lease.id, lease.token)
    kernels.get_kernel(kernel_id).provisioner.slice = "cpu:1000"
    await kernels.restart_kernel(kernel_id)
    assert pid_of(kernels, kernel_id) != pid
    assert lease_of(broker, kernel_id) is None


async def test_lease_given_back_by_hand_is_asked_for_again_at_restart(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = await active(broker, kernel_id)
    broker.release(lease.id, lease.token)
    await kernels.restart_kernel(kernel_id)
    again = lease_of(broker, kernel_id)
    assert again is not None
    assert again.id != lease.id


async def test_lease_taken_in_the_notebook_is_there_from_the_start_after_a_restart(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("plain"))
    request = broker.submit("cpu:1", holder(kernel_id, pid_of(kernels, kernel_id)))
    await kernels.restart_kernel(kernel_id)
    lease, pid = lease_of(broker, kernel_id), pid_of(kernels, kernel_id)
    assert lease is not None
    assert (lease.id, lease.holder.pid) == (request.lease_id, pid)
    assert environment_of(pid)["AISTACK_LEASE"] == lease.id
    assert os.sched_getaffinity(pid) == set(lease.slices[0].cores)


async def test_lease_reserved_for_a_kernel_id_is_its_own(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = str(uuid.uuid4())
    request = broker.submit("cpu:1", holder(kernel_id))
    await kernels.start_kernel(kernel_name=kernelspec("plain"), kernel_id=kernel_id)
    lease = lease_of(broker, kernel_id)
    assert lease is not None
    assert (lease.id, lease.holder.pid) == (
        request.lease_id,
        pid_of(kernels, kernel_id),
    )


async def test_full_host_starts_the_kernel_without_a_device_and_grants_later(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    first = broker.submit(f"cpu:{ALL}", holder("somebody-else"))
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("all", slice=f"cpu:{ALL}", wait_seconds=0.1)
    )
    (waiting,) = broker.queue()
    assert environment_of(pid_of(kernels, kernel_id))["AISTACK_REQUEST"] == waiting.id
    broker.release(first.lease_id, broker.lease(first.lease_id).token)
    await until(lambda: broker.request(waiting.id).state is RequestState.GRANTED)
    lease = await until(lambda: lease_of(broker, kernel_id))
    await until(lambda: broker.lease(lease.id).holder.pid == pid_of(kernels, kernel_id))


async def test_slice_that_comes_free_within_the_wait_is_there_from_the_start(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    first = broker.submit(f"cpu:{ALL}", holder("somebody-else"))
    name = kernelspec("all", slice=f"cpu:{ALL}", wait_seconds=30)

    task = asyncio.ensure_future(kernels.start_kernel(kernel_name=name))
    await until(broker.queue)
    broker.release(first.lease_id, broker.lease(first.lease_id).token)
    kernel_id = await task
    assert lease_of(broker, kernel_id) is not None
    assert "AISTACK_LEASE" in environment_of(pid_of(kernels, kernel_id))


async def test_waiting_request_goes_with_its_kernel(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    broker.submit(f"cpu:{ALL}", holder("somebody-else"))
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("all", slice=f"cpu:{ALL}", wait_seconds=0)
    )
    (waiting,) = broker.queue()
    await kernels.shutdown_kernel(kernel_id)
    assert broker.request(waiting.id).state is RequestState.CANCELLED


async def test_waiting_request_keeps_its_place_over_a_restart(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    broker.submit(f"cpu:{ALL}", holder("somebody-else"))
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("all", slice=f"cpu:{ALL}", wait_seconds=0)
    )
    before = broker.queue()
    await kernels.restart_kernel(kernel_id)
    assert [request.id for request in broker.queue()] == [
        request.id for request in before
    ]


async def test_worker_leases_of_a_kernel_go_with_it(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("plain"))
    worker = Holder(
        kind=HolderKind.WORKER,
        id="w-0",
        user=current_user(),
        host=boot_id(),
        pid=os.getpid(),
        parent=kernel_id,
    )
    request = broker.submit("cpu:1", worker)
    await kernels.shutdown_kernel(kernel_id)
    assert broker.lease(request.lease_id).outcome is Outcome.RELEASED


async def test_kernel_can_be_handed_to_another_manager(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    manager, lease = kernels.get_kernel(kernel_id), await active(broker, kernel_id)
    info = await manager.provisioner.get_provisioner_info()
    assert info["aistack"] == {"leases": {lease.id: lease.token}}
    revived = type(manager.provisioner)(
        parent=manager, kernel_id="", kernel_spec=manager.kernel_spec
    )
    await revived.load_provisioner_info(info)
    assert await revived.get_provisioner_info() == info
    await revived.cleanup(restart=False)
    assert broker.lease(lease.id).outcome is Outcome.RELEASED
