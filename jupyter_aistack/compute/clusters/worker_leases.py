"""The leases of a cluster's workers: the only place here that speaks to a broker.

Where workers get their slices from another place than this host's broker, this class is
what changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from jupyter_aistack.client.client import Client, LeaseHandle
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import AcquireTimeout, ClusterError
from jupyter_aistack.system.completion import in_thread
from jupyter_aistack.system.memory import total_bytes

FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 1.0
POLL_GROWTH = 1.5
SELF_BLOCKED_SECONDS = 1.0
"""How long only this notebook's own leases must stand in the way before waiting is given
up.
"""


class WorkerLeases:
    """Requests, watches and releases the leases of one cluster's workers, on this host.

    Args:
        client: to ask for leases.
        spec: the slice each worker gets.
        queue: where to ask for it; empty for the user's own.
        timeout: seconds to wait for it; None for as long as another holder's lease
            stands in the way.
        cluster: name of the cluster, in the names of the holders.
    """

    def __init__(
        self,
        client: Client,
        spec: str,
        *,
        queue: str,
        timeout: float | None,
        cluster: str,
    ) -> None:
        self.client = client
        self.spec = spec
        self.queue = queue
        self.timeout = timeout
        self.cluster = cluster

    async def request(
        self, worker: object, keep: Callable[[LeaseHandle], None]
    ) -> LeaseHandle:
        """Queue for a worker's slice; it may be granted at once.

        Args:
            worker: its name.
            keep: takes the handle in any case, also of a caller that was cancelled
                meanwhile: what was asked for has to be given back.
        """

        def ask() -> LeaseHandle:
            lease = self.client.request(
                self.spec,
                wait=False,
                queue=self.queue,
                label=f"Dask worker {worker}",
                holder={"kind": "worker", "id": f"{self.cluster}-{worker}"},
                attach=False,
            )
            keep(lease)
            return lease

        return await in_thread(ask)

    async def await_grant(
        self,
        lease: LeaseHandle,
        *,
        pause: Callable[[float], Awaitable[None]],
        on_wait: Callable[[str], None],
    ) -> None:
        """Wait until a request is granted.

        Args:
            lease: as :meth:`request` gave it.
            pause: waits so many seconds; raises what ends the wait.
            on_wait: called with the reason of the wait, before each pause.

        Raises:
            AcquireTimeout: it takes too long, or only this notebook's own leases stand
                in the way.
            ClusterError: the request has ended.
        """
        patience = _Patience(self.timeout)
        seconds = FIRST_POLL_SECONDS
        while not lease.is_granted:
            on_wait(lease.reason)
            await pause(seconds)
            seconds = min(LAST_POLL_SECONDS, seconds * POLL_GROWTH)
            if lease.request["state"] != RequestState.QUEUED.value:
                raise ClusterError(
                    f"the request for {lease.spec} was {lease.state}: {lease.reason}"
                )
            patience.check(lease.reason, is_self_blocked=await self._is_self_blocked())
            await in_thread(lease.refresh)

    async def _is_self_blocked(self) -> bool:
        """Whether only leases of this notebook stand in the way, so that waiting would
        be for ourselves.
        """
        all_leases = await asyncio.to_thread(self.client.leases)
        mine = await asyncio.to_thread(self.client.mine)
        own = {lease["id"] for lease in mine["leases"]}
        return bool(own) and {lease["id"] for lease in all_leases} <= own

    async def live_ids(self) -> set[str]:
        """Ids of all live leases of this host. Raises `AIStackError`."""
        leases = await asyncio.to_thread(self.client.leases)
        return {lease["id"] for lease in leases}

    async def host_memory_bytes(self, lease: LeaseHandle) -> int:
        """Host memory that goes with a lease: the same share of the host's, or of the
        container's, as it has of all devices of its kind.
        """
        return await asyncio.to_thread(self.share_of_host_memory, lease.slices)

    def share_of_host_memory(self, slices: Sequence[Slice]) -> int:
        """Host memory that goes with slices; see :meth:`host_memory_bytes`."""
        kinds = {
            device["id"]: device["kind"] for device in self.client.host()["devices"]
        }
        peers = [kinds.get(slice_.device_id) for slice_ in slices[:1]]
        count = sum(kind in peers for kind in kinds.values())
        share = sum(slice_.fraction for slice_ in slices) / max(1, count)
        return int(total_bytes() * share)

    async def release(self, lease: LeaseHandle) -> None:
        """Give a slice back, or leave the queue. Raises `AIStackError`."""
        await in_thread(lambda: _release(lease))


def _release(lease: LeaseHandle) -> None:
    lease.release()
    was_granted = lease.request["state"] == RequestState.GRANTED.value
    if was_granted and not lease.is_granted:  # granted while leaving the queue
        lease.refresh().release()


class _Patience:
    """How long a request is waited for."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._began = time.monotonic()
        self._self_blocked_since: float | None = None

    def check(self, reason: str, *, is_self_blocked: bool) -> None:
        """Raises `AcquireTimeout` when it has been long enough."""
        now = time.monotonic()
        if self._timeout is not None:
            if now - self._began >= self._timeout:
                raise AcquireTimeout(reason)
            return

        if not is_self_blocked:
            self._self_blocked_since = None
            return
        if self._self_blocked_since is None:
            self._self_blocked_since = now
        if now - self._self_blocked_since >= SELF_BLOCKED_SECONDS:
            raise AcquireTimeout(
                f"{reason}, and everything leased on this host is held by this notebook itself"
            )
