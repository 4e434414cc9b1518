"""Leases that are parked when their session is idle: warm while there is room, brought
back by the next task.
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
from jupyter_aistack.core.scheduling.idle import NOTICED, stage

from .costs import Costs
from .hosts import HostPool
from .lease_policies import LeaseSimulation
from .replay import Notebook


class Suspend(LeaseSimulation):
    """Sessions share GPUs under a memory budget; the state of idle ones is parked in
    the host's memory.

    A session gets its home, GPUs of one host, when it opens, where fewest others are,
    and is resumed nowhere else: the driver does not promise more. It stays resident
    after a task, and is parked when it has been idle for long, or, least recently used
    first, when another one at home there needs the memory. A task that waits has a
    claim on its
    GPUs: who comes later waits behind it.

    Args:
        floor: the machines.
        costs: what parking and resuming takes.
        park_seconds: a session that has been idle for so long is parked though nobody
            needs its room.
        side_by_side: how many sessions may run a task on one GPU at once.
        host_bytes: the most that may be parked in the memory of one host.
    """

    name = "suspend"

    def __init__(
        self,
        floor: HostPool,
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
        super().__init__(floor, costs, idle)
        self.park_seconds = park_seconds
        self.side_by_side = side_by_side
        self.host_bytes = host_bytes
        self._homes: dict[str, dict[Notebook, None]] = {
            device: {} for device in floor.host_of
        }
        self._resident: defaultdict[str, int] = defaultdict(int)
        self._running: defaultdict[str, int] = defaultdict(int)
        self._lines: dict[str, list[Notebook]] = {host: [] for host in floor.hosts}
        self._copied_at: dict[str, float] = {}

    # -- opening and closing -----------------------------------------------------------

    def _ask(self, notebook: Notebook, now: float) -> None:
        self.desk.ask(notebook, self._spec(notebook), now)
        self._serve_desk(now)

    def _spec(self, notebook: Notebook) -> Spec:
        budget = self.costs.budget(notebook.session.memory_bytes)
        size = min(math.ceil(budget / GIB), self.floor.memory_bytes // GIB)
        return parse_spec(f"gpu:{size}GiBx{notebook.session.gpus}")

    def _serve_desk(self, now: float) -> None:
        """Whoever waits for a home gets one, as long as there is room for the first of
        them.
        """
        while self.desk.waiting:
            notebook = next(iter(self.desk.waiting.values()))
            devices = self._home_for(notebook)
            if not self._make_room(notebook, devices, self._wanted(notebook), now):
                return
            before = len(self.desk.waiting)
            self._serve_home(devices, now)
            if len(self.desk.waiting) == before:
                return

    def _home_for(self, notebook: Notebook) -> Sequence[str]:
        """The GPUs, of one host, where fewest are resident and fewest at home; of equal
        ones, where it fits best.
        """
        gpus = notebook.session.gpus
        best: tuple[tuple[int, int], int, str] | None = None
        chosen: Sequence[str] = ()
        for host, inventory in self.floor.inventories.items():
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

    def _wanted(self, notebook: Notebook) -> int:
        assert notebook.request is not None
        return int(notebook.request.spec.amount)

    def _serve_home(self, devices: Sequence[str], now: float) -> None:
        host = self.floor.host_of[devices[0]]
        whole_host = self.floor.inventories[host]
        inventory = replace(
            whole_host, devices=tuple(d for d in whole_host.devices if d.id in devices)
        )
        there = self._residents(devices)
        for notebook in there:
            if notebook.is_running:
                self._touch(notebook, now)
        leases = [replace(n.lease, notice=None) for n in there if n.lease is not None]
        for action in self.desk.decide(inventory, leases, now, most=len(devices)):
            if isinstance(action, Grant):
                self._settle(self.desk.grant(action, now), host, now)

    def _settle(self, notebook: Notebook, host: str, now: float) -> None:
        notebook.host = host
        for piece in notebook.slices:
            self._homes[piece.device_id][notebook] = None
        self._move_in(notebook, now)
        if notebook.is_waiting:
            self.submitted(notebook, now)

    def closed(self, notebook: Notebook, now: float) -> None:
        self.desk.withdraw(notebook)
        if notebook.lease is None:
            return
        host = notebook.host
        if notebook.lease.state is LeaseState.SUSPENDED:
            self._unpark(notebook, now)
        else:
            self._move_out(notebook, now)
        self.desk.end(notebook, LeaseTransition.RELEASE, now)
        for piece in notebook.slices:
            del self._homes[piece.device_id][notebook]
        notebook.slices = ()
        notebook.host = ""
        self._serve_line(host, now)
        self._serve_desk(now)

    # -- running -----------------------------------------------------------------------

    def submitted(self, notebook: Notebook, now: float) -> None:
        if notebook.lease is None:
            return  # it is still in the line for a home
        line = self._lines[notebook.host]
        claimed = (
            {device for other in line for device in self._claim(other)}
            if line
            else set()
        )
        if not claimed.isdisjoint(_devices(notebook)) or not self._try(notebook, now):
            line.append(notebook)

    def _try(self, notebook: Notebook, now: float) -> bool:
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
            if not self._make_room(
                notebook, devices, notebook.slices[0].memory_bytes, now
            ):
                return False
            at = self._resume(notebook, now)
        for device in used:
            self._running[device] += 1
        self._run(notebook, now, at)
        return True

    def finished(self, notebook: Notebook, now: float) -> None:
        self._touch(notebook, now)
        for device in _devices(notebook)[: notebook.task.gpus]:
            self._running[device] -= 1
        self._serve_line(notebook.host, now)
        self._serve_desk(now)

    def _claim(self, notebook: Notebook) -> list[str]:
        """The GPUs that who comes later leaves to a waiting one: none if nothing runs
        there.

        Then it is memory of the host that is short, to park others in. They must be let
        go on, or all would wait for each other.
        """
        devices = _devices(notebook)
        return devices if any(self._running[device] for device in devices) else []

    def _serve_line(self, host: str, now: float) -> None:
        """Whoever waits for busy GPUs or for memory, first come first served on each
        GPU.
        """
        line = self._lines[host]
        claimed = set[str]()
        if not line:
            return
        self._lines[host] = []
        for notebook in line:
            devices = _devices(notebook)
            if not claimed.isdisjoint(devices) or not self._try(notebook, now):
                claimed.update(self._claim(notebook))
                self._lines[host].append(notebook)

    # -- memory ------------------------------------------------------------------------

    def _make_room(
        self, notebook: Notebook, devices: Sequence[str], wanted: int, now: float
    ) -> bool:
        """Park others, least recently used first, until each GPU has `wanted` bytes
        free; nobody if that is vain.
        """
        free = {device: self.floor.room.memory(device) for device in devices}
        if all(have >= wanted for have in free.values()):
            return True
        victims = []
        parked = self.meter.host_parked.get(self.floor.host_of[devices[0]], 0)
        for other in self._parkable(notebook, devices):
            there = [d for d in _devices(other) if free.get(d, wanted) < wanted]
            size = _parked_bytes(other)
            if there and parked + size <= self.host_bytes:
                parked += size
                victims.append(other)
                for piece in other.slices:
                    if piece.device_id in free:
                        free[piece.device_id] += piece.memory_bytes
        if any(have < wanted for have in free.values()):
            return False
        for other in victims:
            self._park(other, now)
        return True

    def _parkable(self, notebook: Notebook, devices: Sequence[str]) -> list[Notebook]:
        """Idle sessions with memory there, least recently used first; those that wait
        to run come last.
        """
        idle = [
            n
            for n in self._residents(devices)
            if not n.is_running and n is not notebook
        ]
        return sorted(
            idle,
            key=lambda n: (
                n.is_waiting,
                n.lease.active_at if n.lease else 0.0,
                n.session.number,
            ),
        )

    def _residents(self, devices: Iterable[str]) -> list[Notebook]:
        there = dict.fromkeys(n for device in devices for n in self._homes[device])
        return [
            n
            for n in there
            if n.lease is not None and n.lease.state is not LeaseState.SUSPENDED
        ]

    def _park(self, notebook: Notebook, now: float) -> float:
        """Its state goes to the host's memory; how many seconds that takes, from when
        its GPUs are free to copy.
        """
        assert notebook.lease is not None
        notebook.lease = advance(notebook.lease, LeaseTransition.SUSPEND, now)
        seconds = self.costs.checkpoint(notebook.state_bytes)
        self._copy(notebook, seconds, now)
        self._move_out(notebook, now)
        self.meter.park(_parked_bytes(notebook), notebook.host, now)
        return seconds

    def _resume(self, notebook: Notebook, now: float) -> float:
        """Its state comes back to its GPUs; when it will be there."""
        assert notebook.lease is not None
        notebook.lease = advance(notebook.lease, LeaseTransition.RESUME, now)
        self._unpark(notebook, now)
        self._move_in(notebook, now)
        self.meter.resumes += 1
        return self._copy(notebook, self.costs.restore(notebook.state_bytes), now)

    def _unpark(self, notebook: Notebook, now: float) -> None:
        self.meter.park(-_parked_bytes(notebook), notebook.host, now)

    def _copy(self, notebook: Notebook, seconds: float, now: float) -> float:
        """Each GPU copies one state at a time; when this one is done."""
        devices = _devices(notebook)
        end = self._copied(devices, now) + seconds
        self._copied_at.update(dict.fromkeys(devices, end))
        return end

    def _copied(self, devices: Iterable[str], now: float) -> float:
        """When all that is being copied from or to these GPUs has been."""
        return max(now, *(self._copied_at.get(device, 0.0) for device in devices))

    def _move_in(self, notebook: Notebook, now: float) -> None:
        self._occupy(notebook, 1, now)
        self._watch(notebook, now)

    def _move_out(self, notebook: Notebook, now: float) -> None:
        self._occupy(notebook, -1, now)

    def _occupy(self, notebook: Notebook, sign: int, now: float) -> None:
        (self.floor.room.take if sign > 0 else self.floor.room.give)(notebook.slices)
        self.meter.held.change(sign * len(notebook.slices), now)
        new = 0
        for device in _devices(notebook):
            before = self._resident[device]
            self._resident[device] = before + sign
            new += (before + sign > 0) - (before > 0)
        if new:
            self.meter.occupied.change(new, now)

    # -- idleness ----------------------------------------------------------------------

    def _look(self, notebook: Notebook, now: float) -> None:
        if notebook.is_running or notebook.is_waiting:
            self._touch(notebook, now)
        lease = notebook.lease
        is_resident = lease is not None and lease.state is LeaseState.ACTIVE
        if (
            lease is not None
            and is_resident
            and stage(lease, self.desk.queue, now) == NOTICED
        ):
            if (
                self.meter.host_parked.get(notebook.host, 0) + _parked_bytes(notebook)
                > self.host_bytes
            ):
                self.agenda.at(
                    now + self.park_seconds, self._look, notebook
                )  # it stays, for want of memory to park it
                return
            self._park_idle(notebook, now)
        self._look_again(notebook, now)

    def _park_idle(self, notebook: Notebook, now: float) -> None:
        seconds = self._park(notebook, now)
        copying = seconds * len(notebook.slices)  # it is held until it has been copied
        self.meter.held.total += copying
        self.meter.occupied.total += copying
        self._serve_line(notebook.host, now)
        self._serve_desk(now)


def _devices(notebook: Notebook) -> list[str]:
    return [piece.device_id for piece in notebook.slices]


def _parked_bytes(notebook: Notebook) -> int:
    return notebook.state_bytes * len(notebook.slices)
