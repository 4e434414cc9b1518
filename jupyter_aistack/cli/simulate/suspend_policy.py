"""Leases that are suspended when their session is idle: warm while there is capacity,
resumed by the next task.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.lease import LeaseState, LeaseTransition, advance
from jupyter_aistack.core.model.plan import Grant
from jupyter_aistack.core.model.policy import IdlePolicy
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.scheduling.idle import IdleStage, idle_stage

from .costs import Costs
from .hosts import HostPool
from .lease_policies import LeaseSimulation
from .replay import Notebook


class SuspensionPolicy(LeaseSimulation):
    """Sessions share GPUs under a memory budget; the state of idle sessions is suspended
    to the host's memory.

    A session gets its home, GPUs of one host, when it opens, where fewest others are,
    and is resumed nowhere else: the driver does not promise more. It stays resident
    after a task, and is suspended when it has been idle for long, or, least recently
    used first, when another session with the same home needs the memory. A task that
    waits has a claim on its GPUs: later tasks wait behind it.

    Args:
        pool: the machines.
        costs: what suspending and resuming takes.
        park_seconds: a session that has been idle for so long is suspended though its
            capacity is not needed.
        side_by_side: how many sessions may run a task on one GPU at once.
        host_bytes: the most that may be suspended in the memory of one host.
    """

    name = "suspend"

    def __init__(
        self,
        pool: HostPool,
        costs: Costs,
        *,
        park_seconds: float,
        side_by_side: int,
        host_bytes: float,
    ) -> None:
        idle = IdlePolicy(
            badge_seconds=park_seconds,
            notice_seconds=park_seconds,
            reclaim_seconds=math.inf,
        )
        super().__init__(pool, costs, idle)
        self.park_seconds = park_seconds
        self.side_by_side = side_by_side
        self.host_bytes = host_bytes
        self._homes: dict[str, dict[Notebook, None]] = {
            device: {} for device in pool.host_of
        }
        self._resident: defaultdict[str, int] = defaultdict(int)
        self._running: defaultdict[str, int] = defaultdict(int)
        self._queues: dict[str, list[Notebook]] = {host: [] for host in pool.hosts}
        self._copied_at: dict[str, float] = {}

    # -- opening and closing -----------------------------------------------------------

    def _submit(self, notebook: Notebook, now: float) -> None:
        self.broker.submit(notebook, self._spec(notebook), now)
        self._serve_requests(now)

    def _spec(self, notebook: Notebook) -> Spec:
        budget = self.costs.budget(notebook.session.memory_bytes)
        size = min(math.ceil(budget / GIB), self.pool.memory_bytes // GIB)
        return parse_spec(f"gpu:{size}GiBx{notebook.session.gpus}")

    def _serve_requests(self, now: float) -> None:
        """Sessions that wait for a home get theirs, as long as there is capacity for the
        first of them.
        """
        while self.broker.waiting:
            notebook = next(iter(self.broker.waiting.values()))
            devices = self._home_for(notebook)
            needed = self._requested_bytes(notebook)
            if not self._free_memory(notebook, devices, needed, now):
                return
            before = len(self.broker.waiting)
            self._grant_home(devices, now)
            if len(self.broker.waiting) == before:
                return

    def _home_for(self, notebook: Notebook) -> Sequence[str]:
        """The GPUs, of one host, where fewest are resident and fewest at home; of equal
        GPUs, where it fits best.
        """
        gpus = notebook.session.gpus
        best: tuple[tuple[int, int], int, str] | None = None
        chosen: Sequence[str] = ()
        for host, inventory in self.pool.inventories.items():
            ranked = sorted(
                (self._crowd(device.id), device.id) for device in inventory.devices
            )
            if len(ranked) < gpus:
                continue
            level = ranked[gpus - 1][0]
            rank = level, sum(crowd <= level for crowd, _ in ranked), host
            if best is None or rank < best:
                best = rank
                chosen = [device for _, device in ranked[:gpus]]
        return chosen

    def _crowd(self, device: str) -> tuple[int, int]:
        return self._resident[device], len(self._homes[device])

    def _requested_bytes(self, notebook: Notebook) -> int:
        assert notebook.request is not None
        return int(notebook.request.spec.amount)

    def _grant_home(self, devices: Sequence[str], now: float) -> None:
        host = self.pool.host_of[devices[0]]
        whole_host = self.pool.inventories[host]
        own = tuple(device for device in whole_host.devices if device.id in devices)
        inventory = replace(whole_host, devices=own)
        residents = self._residents(devices)
        for notebook in residents:
            if notebook.is_running:
                self._record_activity(notebook, now)
        leases = [
            replace(notebook.lease, notice=None)
            for notebook in residents
            if notebook.lease is not None
        ]
        for action in self.broker.plan_cycle(inventory, leases, now, most=len(devices)):
            if isinstance(action, Grant):
                self._assign_home(self.broker.grant(action, now), host, now)

    def _assign_home(self, notebook: Notebook, host: str, now: float) -> None:
        notebook.host = host
        for slice_ in notebook.slices:
            self._homes[slice_.device_id][notebook] = None
        self._move_in(notebook, now)
        if notebook.is_waiting:
            self.submitted(notebook, now)

    def closed(self, notebook: Notebook, now: float) -> None:
        self.broker.withdraw(notebook)
        if notebook.lease is None:
            return
        host = notebook.host
        if notebook.lease.state is LeaseState.SUSPENDED:
            self._drop_suspended(notebook, now)
        else:
            self._move_out(notebook, now)
        self.broker.end(notebook, LeaseTransition.RELEASE, now)
        for slice_ in notebook.slices:
            del self._homes[slice_.device_id][notebook]
        notebook.slices = ()
        notebook.host = ""
        self._serve_queue(host, now)
        self._serve_requests(now)

    # -- running -----------------------------------------------------------------------

    def submitted(self, notebook: Notebook, now: float) -> None:
        if notebook.lease is None:
            return  # it still waits for a home
        queue = self._queues[notebook.host]
        claimed = {device for other in queue for device in self._claim(other)}
        is_free = claimed.isdisjoint(_devices(notebook))
        if not is_free or not self._try_start(notebook, now):
            queue.append(notebook)

    def _try_start(self, notebook: Notebook, now: float) -> bool:
        """Run the present task if its GPUs are not busy and its state is there or can
        be brought back.
        """
        assert notebook.lease is not None
        devices = _devices(notebook)
        used = devices[: notebook.task.gpus]
        if any(self._running[device] >= self.side_by_side for device in used):
            return False
        at = now if notebook.has_state else self._copied(devices, now)
        if notebook.lease.state is LeaseState.SUSPENDED:
            needed = notebook.slices[0].memory_bytes
            if not self._free_memory(notebook, devices, needed, now):
                return False
            at = self._resume(notebook, now)
        for device in used:
            self._running[device] += 1
        self._run(notebook, now, at)
        return True

    def finished(self, notebook: Notebook, now: float) -> None:
        self._record_activity(notebook, now)
        for device in _devices(notebook)[: notebook.task.gpus]:
            self._running[device] -= 1
        self._serve_queue(notebook.host, now)
        self._serve_requests(now)

    def _claim(self, notebook: Notebook) -> list[str]:
        """The GPUs that later sessions leave to a waiting session: none if nothing runs
        there.

        Then it is memory of the host that is short, to suspend others in. They must be
        let go on, or all would wait for each other.
        """
        devices = _devices(notebook)
        return devices if any(self._running[device] for device in devices) else []

    def _serve_queue(self, host: str, now: float) -> None:
        """Start sessions that wait for busy GPUs or for memory, first come first served
        on each GPU.
        """
        queue = self._queues[host]
        if not queue:
            return
        claimed = set[str]()
        self._queues[host] = []
        for notebook in queue:
            devices = _devices(notebook)
            if not claimed.isdisjoint(devices) or not self._try_start(notebook, now):
                claimed.update(self._claim(notebook))
                self._queues[host].append(notebook)

    # -- memory ------------------------------------------------------------------------

    def _free_memory(
        self, notebook: Notebook, devices: Sequence[str], needed: int, now: float
    ) -> bool:
        """Suspend others, least recently used first, until each GPU has `needed` bytes
        free; none if that would not do.
        """
        free = {device: self.pool.capacity.memory(device) for device in devices}
        victims: list[Notebook] = []
        if any(bytes_ < needed for bytes_ in free.values()):
            victims = self._victims(notebook, devices, needed, free)
        if any(bytes_ < needed for bytes_ in free.values()):
            return False
        for victim in victims:
            self._suspend(victim, now)
        return True

    def _victims(
        self,
        notebook: Notebook,
        devices: Sequence[str],
        needed: int,
        free: dict[str, int],
    ) -> list[Notebook]:
        """Sessions whose memory makes up what is missing on the devices, as far as the
        host's memory holds them; adds it to `free`.
        """
        host = self.pool.host_of[devices[0]]
        suspended_bytes = self.meter.host_parked.get(host, 0)
        victims = []
        for other in self._suspendable(notebook, devices):
            size = _suspended_bytes(other)
            helps = any(free.get(device, needed) < needed for device in _devices(other))
            if not helps or suspended_bytes + size > self.host_bytes:
                continue
            suspended_bytes += size
            victims.append(other)
            for slice_ in other.slices:
                if slice_.device_id in free:
                    free[slice_.device_id] += slice_.memory_bytes
        return victims

    def _suspendable(
        self, notebook: Notebook, devices: Sequence[str]
    ) -> list[Notebook]:
        """Idle sessions with memory there, least recently used first; those that wait
        to run come last.
        """
        idle = [
            other
            for other in self._residents(devices)
            if not other.is_running and other is not notebook
        ]
        return sorted(idle, key=_suspend_rank)

    def _residents(self, devices: Iterable[str]) -> list[Notebook]:
        """Sessions with memory on these GPUs, in the order in which they came."""
        at_home = [notebook for device in devices for notebook in self._homes[device]]
        return [
            notebook
            for notebook in dict.fromkeys(at_home)
            if notebook.lease is not None
            and notebook.lease.state is not LeaseState.SUSPENDED
        ]

    def _suspend(self, notebook: Notebook, now: float) -> float:
        """Its state goes to the host's memory; how many seconds that takes, from when
        its GPUs are free to copy.
        """
        assert notebook.lease is not None
        notebook.lease = advance(notebook.lease, LeaseTransition.SUSPEND, now)
        seconds = self.costs.checkpoint(notebook.state_bytes)
        self._copy(notebook, seconds, now)
        self._move_out(notebook, now)
        self.meter.add_parked(_suspended_bytes(notebook), notebook.host, now)
        return seconds

    def _resume(self, notebook: Notebook, now: float) -> float:
        """Its state comes back to its GPUs; when it will be there."""
        assert notebook.lease is not None
        notebook.lease = advance(notebook.lease, LeaseTransition.RESUME, now)
        self._drop_suspended(notebook, now)
        self._move_in(notebook, now)
        self.meter.resumes += 1
        return self._copy(notebook, self.costs.restore(notebook.state_bytes), now)

    def _drop_suspended(self, notebook: Notebook, now: float) -> None:
        self.meter.add_parked(-_suspended_bytes(notebook), notebook.host, now)

    def _copy(self, notebook: Notebook, seconds: float, now: float) -> float:
        """When this state is copied; each GPU copies one state at a time."""
        devices = _devices(notebook)
        end = self._copied(devices, now) + seconds
        self._copied_at.update(dict.fromkeys(devices, end))
        return end

    def _copied(self, devices: Iterable[str], now: float) -> float:
        """When all that is being copied from or to these GPUs has been."""
        return max(now, *(self._copied_at.get(device, 0.0) for device in devices))

    def _move_in(self, notebook: Notebook, now: float) -> None:
        self._occupy(notebook, 1, now)
        self._watch_idle(notebook, now)

    def _move_out(self, notebook: Notebook, now: float) -> None:
        self._occupy(notebook, -1, now)

    def _occupy(self, notebook: Notebook, sign: int, now: float) -> None:
        """The session's slices are held (1) or held no longer (-1)."""
        capacity = self.pool.capacity
        change = capacity.allocate if sign > 0 else capacity.release
        change(notebook.slices)
        self.meter.held.change(sign * len(notebook.slices), now)
        newly_occupied = 0
        for device in _devices(notebook):
            was_occupied = self._resident[device] > 0
            self._resident[device] += sign
            newly_occupied += (self._resident[device] > 0) - was_occupied
        if newly_occupied:
            self.meter.occupied.change(newly_occupied, now)

    # -- idleness ----------------------------------------------------------------------

    def _check_idle(self, notebook: Notebook, now: float) -> None:
        if notebook.is_running or notebook.is_waiting:
            self._record_activity(notebook, now)
        lease = notebook.lease
        is_resident = lease is not None and lease.state is LeaseState.ACTIVE
        is_idle = (
            lease is not None
            and idle_stage(lease, self.broker.queue, now) is IdleStage.NOTICED
        )
        if is_resident and is_idle:
            size = self.meter.host_parked.get(notebook.host, 0)
            if size + _suspended_bytes(notebook) > self.host_bytes:
                # It stays, for want of memory to suspend it to.
                self.events.at(now + self.park_seconds, self._check_idle, notebook)
                return
            self._suspend_idle(notebook, now)
        self._schedule_idle_check(notebook, now)

    def _suspend_idle(self, notebook: Notebook, now: float) -> None:
        seconds = self._suspend(notebook, now)
        # Its GPUs are held until all has been copied.
        copying = seconds * len(notebook.slices)
        self.meter.held.total += copying
        self.meter.occupied.total += copying
        self._serve_queue(notebook.host, now)
        self._serve_requests(now)


def _devices(notebook: Notebook) -> list[str]:
    return [slice_.device_id for slice_ in notebook.slices]


def _suspended_bytes(notebook: Notebook) -> int:
    return notebook.state_bytes * len(notebook.slices)


def _suspend_rank(notebook: Notebook) -> tuple[bool, float, int]:
    """Sessions with the lowest are suspended first."""
    lease = notebook.lease
    active_at = (lease.active_at if lease else 0.0) or 0.0
    return notebook.is_waiting, active_at, notebook.session.number
