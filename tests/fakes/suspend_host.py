"""A host that does not exist, down to the byte: GPUs, kernels whose state is a number,
and movers that fail as told.

Everything happens in steps of a second of a clock that is moved by hand; the brokers
and the ledger are the real ones.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model import device_state as steps
from jupyter_aistack.core.model.device import Device, DeviceKind, ProcessUse
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.testing import ManualClock, holder

from .bare_provider import BareProvider

GPU_BYTES = 80 * GIB
KEPT_BY_DRIVER = GIB // 2
FIRST_PID = 10**8
"""No process of this machine has such an id."""
SPECS = ("1/4", "1/4", "1/3", "1/2", "1/2", "1")


@dataclass
class Kernel:
    """A kernel: what it holds on a device, and a number that must survive.

    Attributes:
        server: which of the brokers is its server's.
        number: its state where it is; None while it is in a vault, or lost.
        expected: what the number must be.
        runs_until: when its cell ends; None while none runs.
        waits: a cell of it waits for the device.
    """

    name: str
    server: int
    pid: int
    held_bytes: int = 0
    number: int | None = 0
    expected: int = 0
    runs_until: float | None = None
    waits: bool = False
    is_alive: bool = True
    is_lost: bool = False


@dataclass
class Work:
    """A move on its way: of which kernel, where, until when, and what becomes of it."""

    lease: Lease
    kernel: Kernel
    pid: int
    devices: tuple[str, ...]
    ends_at: float
    outcome: str
    reserved: int = 0


@dataclass
class Faults:
    """How likely what is, each time it could happen."""

    lock_timeout: float = 0.15
    helper_crash: float = 0.1
    out_of_memory: float = 0.05
    kill: float = 0.0004
    restart: float = 0.0008
    slow: tuple[float, ...] = (1.0, 2.0, 3.0, 20.0, 60.0)


NO_FAULTS = Faults(
    lock_timeout=0.0,
    helper_crash=0.0,
    out_of_memory=0.0,
    kill=0.0,
    restart=0.0,
    slow=(1.0, 3.0),
)


class FakeGPUs(BareProvider):
    """The GPUs of a machine, with what is free on them to the byte."""

    name = "gpu"

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def discover(self, host: str) -> tuple[Device, ...]:
        return tuple(
            Device(
                id=device_id,
                host=host,
                kind=DeviceKind.GPU,
                index=index,
                name="NVIDIA H100 80GB",
                memory_bytes=GPU_BYTES,
                free_bytes=self.machine.free(device_id),
                processes=self.machine.processes(device_id),
            )
            for index, device_id in enumerate(self.machine.held)
        )


@dataclass
class Machine:
    """Two GPUs, kernels, and a mover for each server.

    Attributes:
        held: for each device, the bytes of each process there.
        vaults: for each parked process, its number and its bytes.
        told: kernels whose state was lost, and that were said to be.
    """

    random: random.Random
    clock: ManualClock
    faults: Faults = field(default_factory=Faults)
    held: dict[str, dict[int, int]] = field(
        default_factory=lambda: {"GPU-0": {}, "GPU-1": {}}
    )
    vaults: dict[int, tuple[int, int]] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    brokers: list[Broker] = field(default_factory=list)
    lost: int = 0
    moves: dict[str, int] = field(default_factory=dict)

    # -- the hardware ------------------------------------------------------------------

    def free(self, device_id: str) -> int:
        return GPU_BYTES - KEPT_BY_DRIVER - sum(self.held[device_id].values())

    def processes(self, device_id: str) -> tuple[ProcessUse, ...]:
        return ()  # as in a container, where they cannot be seen

    def is_alive(self, pid: int, since: float | None) -> bool:
        return any(
            kernel.pid == pid and kernel.is_alive for kernel in self.kernels.values()
        )

    def take(self, pid: int, devices: tuple[str, ...], each: int) -> None:
        """A process holds so much on each of these; more than there is must never be
        tried.
        """
        for device_id in devices:
            self.held[device_id][pid] = each
            assert self.free(device_id) >= 0, f"{device_id} would hold more than it has"

    def leave(self, pid: int) -> None:
        for processes in self.held.values():
            processes.pop(pid, None)

    # -- users -------------------------------------------------------------------------

    def start(self, name: str) -> Kernel:
        """A new kernel asks for its slice."""
        pid = FIRST_PID + self.random.randrange(10**8)
        kernel = self.kernels[name] = Kernel(
            name, self.random.randrange(len(self.brokers)), pid
        )
        self._broker(kernel).submit(
            self.random.choice(SPECS), holder(name, pid=pid, pid_started_at=1.0)
        )
        return kernel

    def lease_of(self, kernel: Kernel) -> Lease | None:
        leases = (
            lease
            for lease in self._broker(kernel).leases()
            if lease.holder.id == kernel.name
        )
        return next(leases, None)

    def _broker(self, kernel: Kernel) -> Broker:
        return self.brokers[kernel.server]

    def settle_in(self, kernel: Kernel, lease: Lease) -> None:
        """Its server has looked at a kernel that nobody has looked at yet."""
        if lease.residence is not None and not lease.residence.is_checked:
            broker = self._broker(kernel)
            broker.prepare(lease)
            broker.activate(lease.id, lease.token, verified=True)
            broker.update_device_state(
                lease.id, lease.token, lambda item: steps.with_pin_reason(item, "")
            )

    def use(self, kernel: Kernel, lease: Lease, home: DeviceState) -> None:
        """What its user does in this second."""
        draw = self.random.random()
        if draw < 0.02:
            self._broker(kernel).begin_cell(lease.id)
            kernel.waits = True
        elif draw < 0.024:
            with contextlib.suppress(LeaseError):  # it is told why not
                self._broker(kernel).request_action(
                    lease.id,
                    self.random.choice(
                        [RequestedAction.SUSPEND, RequestedAction.RESUME]
                    ),
                )
        elif draw < 0.026:
            self._broker(kernel).set_pinned(
                lease.id, not home.is_kept and self.random.random() < 0.3
            )

    def cell(self, kernel: Kernel, lease: Lease, home: DeviceState) -> None:
        """A cell that waits begins once its state is there, and one that runs ends in
        time.
        """
        now = self.clock.now
        if (
            kernel.waits
            and kernel.runs_until is None
            and home.phase is StatePhase.RESIDENT
        ):
            assert home.is_busy
            assert kernel.number == kernel.expected, (
                f"{kernel.name} has {kernel.number}, not {kernel.expected}"
            )
            kernel.number = kernel.expected = self.random.randrange(10**9)
            each = min(slice_.memory_bytes for slice_ in lease.slices)
            kernel.held_bytes = int(each * self.random.uniform(0.05, 0.95))
            self.take(kernel.pid, devices_of(lease), kernel.held_bytes)
            kernel.runs_until = now + self.random.choice([1.0, 5.0, 30.0, 90.0])
        elif kernel.runs_until is not None and now >= kernel.runs_until:
            kernel.runs_until, kernel.waits = None, False
            self._broker(kernel).end_cell(lease.id)

    def restart(self, kernel: Kernel, lease: Lease) -> None:
        """Another process takes the kernel's place; what the old one had is gone, as
        its user wants it.
        """
        self.leave(kernel.pid)
        self.vaults.pop(kernel.pid, None)
        kernel.pid = FIRST_PID + self.random.randrange(10**8)
        kernel.number = kernel.expected = kernel.held_bytes = 0
        kernel.runs_until, kernel.waits, kernel.is_lost = None, False, False
        broker, now = self._broker(kernel), self.clock.now
        broker.bind(lease.id, lease.token, pid=kernel.pid)
        broker.update_device_state(
            lease.id, lease.token, lambda item: steps.reset_for_new_process(item, now)
        )

    def kill(self, kernel: Kernel) -> None:
        kernel.is_alive = False
        self.leave(kernel.pid)
        self.vaults.pop(kernel.pid, None)

    # -- movers ------------------------------------------------------------------------

    def begin_moves(self, server: int) -> None:
        """The mover of a server takes up what its own kernels are to do."""
        for lease in self.brokers[server].transfers():
            kernel = self.kernels.get(lease.holder.id)
            if (
                kernel is None
                or not kernel.is_alive
                or kernel.server != server
                or lease.id in self.works
            ):
                continue
            assert lease.residence is not None
            work = self.works[lease.id] = self._work(kernel, lease, lease.residence)
            if (
                work.outcome == "returned"
            ):  # the driver takes the memory at once, and fills it
                self.take(
                    kernel.pid, work.devices, self.vaults.get(kernel.pid, (0, 0))[1]
                )

    def _work(self, kernel: Kernel, lease: Lease, home: DeviceState) -> Work:
        draw, faults = self.random.random(), self.faults
        if home.phase is StatePhase.PARKING:
            failing = draw < faults.lock_timeout + faults.helper_crash
            outcome = "stayed" if failing or kernel.runs_until is not None else "left"
        elif draw < faults.out_of_memory and kernel.pid in self.vaults:
            outcome = "lost"
        else:
            outcome = (
                "not returned"
                if draw < faults.out_of_memory + faults.helper_crash
                else "returned"
            )
        ends_at = self.clock.now + self.random.choice(faults.slow)
        return Work(lease, kernel, kernel.pid, devices_of(lease), ends_at, outcome)

    def end_moves(self) -> None:
        for lease_id, work in list(self.works.items()):
            if self.clock.now >= work.ends_at:
                del self.works[lease_id]
                if work.kernel.is_alive and work.kernel.pid == work.pid:
                    self._end(work)

    def _end(self, work: Work) -> None:
        """What a move comes to, first in the hardware and then in the ledger."""
        kernel, now, outcome = work.kernel, self.clock.now, work.outcome
        self.moves[outcome] = self.moves.get(outcome, 0) + 1
        if outcome == "left":
            assert kernel.number is not None
            self.vaults[work.pid], kernel.number = (
                (kernel.number, kernel.held_bytes),
                None,
            )
            self.leave(work.pid)
            size = kernel.held_bytes
            self._tell(
                work,
                lambda item: steps.suspended(
                    item, state_bytes=size, tier=SuspendMethod.CHECKPOINT
                ),
            )
        elif outcome == "stayed":
            self._tell(
                work,
                lambda item: steps.suspend_failed(
                    item, now, "the kernel could not be locked"
                ),
            )
        elif outcome == "returned":
            if work.pid in self.vaults:  # a new process has nothing to bring back
                kernel.number, _ = self.vaults.pop(work.pid)
            self._tell(work, lambda item: steps.resumed(item, now))
        elif outcome == "not returned":
            self._tell(
                work, lambda item: steps.resume_failed(item, "the helper has ended")
            )
        else:
            del self.vaults[work.pid]
            kernel.is_lost, self.lost = True, self.lost + 1
            self._tell(
                work,
                lambda item: steps.mark_lost(item, "the driver met too little memory"),
            )

    def _tell(self, work: Work, change: object) -> None:
        broker = self._broker(work.kernel)
        broker.update_device_state(work.lease.id, work.lease.token, change)  # type: ignore[arg-type]
        broker.cycle()

    # -- time --------------------------------------------------------------------------

    def second(self, *, is_used: bool = True) -> None:
        """One second passes."""
        self.clock.advance(1.0)
        self.end_moves()
        leases = {lease.holder.id: lease for lease in self.brokers[0].leases()}
        for kernel in list(self.kernels.values()):
            if kernel.is_alive:
                self._live(kernel, leases.get(kernel.name), is_used)
        for number, broker in enumerate(self.brokers):
            if int(self.clock.now) % 2 == number % 2:
                broker.maintain()
            self.begin_moves(number)

    def _live(self, kernel: Kernel, lease: Lease | None, is_used: bool) -> None:
        if lease is None or lease.residence is None:
            return
        self.settle_in(kernel, lease)
        draw = self.random.random()
        if draw < self.faults.kill:
            self.kill(kernel)
            self.start(f"{kernel.name}'")
        elif draw < self.faults.kill + self.faults.restart or kernel.is_lost:
            self.restart(kernel, lease)
        elif kernel.waits:
            self.cell(kernel, lease, lease.residence)
        elif is_used:
            self.use(kernel, lease, lease.residence)


def devices_of(lease: Lease) -> tuple[str, ...]:
    return tuple(slice_.device_id for slice_ in lease.slices)
