"""A host in memory whose plans are carried out at once: what the property tests let
time pass over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    begin_resume,
    begin_suspend,
)
from jupyter_aistack.core.model.lease import Lease, LeaseTransition, Outcome, advance
from jupyter_aistack.core.model.plan import (
    End,
    Grant,
    Notify,
    Plan,
    Reject,
    Snapshot,
    TransferAction,
    TransferDirection,
    WithdrawNotice,
    grant_to_lease,
)
from jupyter_aistack.core.model.policy import Policy, SuspendPolicy
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.model.usage_history import Account, charged
from jupyter_aistack.core.scheduling.cycle import plan
from jupyter_aistack.testing import holder

_STEPS = {
    Outcome.EXPIRED: LeaseTransition.EXPIRE,
    Outcome.PREEMPTED: LeaseTransition.PREEMPT,
    Outcome.RECLAIMED: LeaseTransition.RECLAIM,
}
TTL = 1e9


def gpus(count: int, host: str = "testbox", **fields: object) -> tuple[Device, ...]:
    """Healthy GPUs of 80 GiB."""
    common = {
        "host": host,
        "kind": DeviceKind.GPU,
        "name": "NVIDIA H100 80GB",
        "memory_bytes": 80 * GIB,
        **fields,
    }
    return tuple(Device(id=f"{host}-GPU-{n}", index=n, **common) for n in range(count))  # type: ignore[arg-type]


def ask(
    name: str,
    spec: str = "1/4",
    at: float = 0.0,
    *,
    user: str = "ann",
    **fields: object,
) -> Request:
    """A request of a kernel called `name`."""
    who = holder(name, user=user)
    return Request(
        id=name, spec=parse_spec(spec), holder=who, submitted_at=at, **fields
    )  # type: ignore[arg-type]


class World:
    """Devices, leases and requests at one moment; `turn` makes a plan and carries it
    out.

    Args:
        devices: what there is.
        policy: how it is shared out.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        policy: Policy | None = None,
        reservations: tuple[Reservation, ...] = (),
    ) -> None:
        self.inventory = Inventory(host="testbox", devices=tuple(devices))
        self.policy, self.reservations = policy or Policy(), reservations
        self.suspend: SuspendPolicy | None = None
        self.host_bytes = 0
        self.now = 0.0
        self.leases: dict[str, Lease] = {}
        self.ended: dict[str, Lease] = {}
        self.requests: dict[str, Request] = {}
        self.rejected: dict[str, Reject] = {}
        self.accounts: dict[tuple[str, str], Account] = {}
        self._token = 0

    def snapshot(self) -> Snapshot:
        return Snapshot(
            inventory=self.inventory,
            leases=tuple(self.leases.values()),
            requests=tuple(self.requests.values()),
            policy=self.policy,
            accounts=tuple(self.accounts.values()),
            reservations=self.reservations,
            suspend=self.suspend,
            host_bytes=self.host_bytes,
        )

    def submit(self, *requests: Request) -> None:
        for request in requests:
            self.requests[request.id] = request

    def turn(self, seconds: float = 0.0) -> Plan:
        """Let time pass, then plan and carry out."""
        self.now += seconds
        todo = plan(self.snapshot(), self.now, ttl_seconds=TTL)
        for action in todo.actions:
            self._carry_out(action)
        return todo

    def release(self, name: str) -> None:
        """The holder of the lease that request `name` became gives it back."""
        lease = next(
            lease for lease in self.leases.values() if lease.request_id == name
        )
        self._end(lease, LeaseTransition.RELEASE)

    def use(self, name: str) -> None:
        """That lease is in use now."""
        lease = next(
            lease for lease in self.leases.values() if lease.request_id == name
        )
        self.leases[lease.id] = replace(lease, active_at=self.now)

    def update_device_state(
        self, lease: Lease, change: Callable[[DeviceState], DeviceState]
    ) -> None:
        """The device state of a lease takes a step."""
        assert lease.residence is not None
        self.leases[lease.id] = replace(lease, residence=change(lease.residence))

    def home(self, name: str) -> DeviceState:
        """Where the device state of the lease is that request `name` became."""
        home = self.lease_of(name).residence
        assert home is not None
        return home

    def holds(self) -> dict[str, str]:
        """Request id to spec of what is held."""
        return {lease.request_id: str(lease.spec) for lease in self.leases.values()}

    def lease_of(self, name: str) -> Lease:
        everything = [*self.leases.values(), *self.ended.values()]
        return next(lease for lease in everything if lease.request_id == name)

    def _carry_out(self, action: object) -> None:
        if isinstance(action, Grant):
            self._token += 1
            lease = grant_to_lease(action, f"l{self._token}", self._token, self.now)
            self.leases[lease.id] = lease
            del self.requests[action.request.id]
        elif isinstance(action, Reject):
            self.rejected[action.request_id] = action
            del self.requests[action.request_id]
        elif isinstance(action, End):
            self._end(self.leases[action.lease_id], _STEPS[action.outcome])
        elif isinstance(action, TransferAction):
            self.update_device_state(
                self.leases[action.lease_id],
                begin_suspend
                if action.direction is TransferDirection.SUSPEND
                else begin_resume,
            )
        elif isinstance(action, (Notify, WithdrawNotice)):
            notice = action.notice if isinstance(action, Notify) else None
            self.leases[action.lease_id] = replace(
                self.leases[action.lease_id], notice=notice
            )

    def _end(self, lease: Lease, step: LeaseTransition) -> None:
        ended = advance(lease, step, self.now)
        if step is LeaseTransition.RELEASE:
            ended = advance(ended, LeaseTransition.FINISH, self.now)
        del self.leases[lease.id]
        self.ended[lease.id] = ended
        key = (lease.holder.user, lease.queue)
        account = self.accounts.get(key) or Account(
            user=key[0], queue=key[1], at=self.now
        )
        self.accounts[key] = charged(account, ended, self.policy.half_life_seconds)

    def check_room(self) -> None:
        """No device gives more than it has."""
        for device in self.inventory.devices:
            pieces = [
                p
                for lease in self.leases.values()
                for p in lease.occupied
                if p.device_id == device.id
            ]
            assert sum((p.fraction for p in pieces), Fraction(0)) <= 1
            assert sum(p.memory_bytes for p in pieces) <= device.memory_bytes
