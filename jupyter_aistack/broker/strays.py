"""The strays of a host: who uses a GPU without a lease, and what is done about it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from jupyter_aistack.core.enforcement.strays import (
    Sighting,
    StrayFacts,
    StrayStep,
    due_step,
    end_of,
    exemption_of,
)
from jupyter_aistack.core.model.device import Device, ProcessUse
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.request import Holder
from jupyter_aistack.core.model.stray import Stray, StrayAction, StrayPolicy
from jupyter_aistack.core.model.units import format_bytes, format_duration
from jupyter_aistack.exceptions import LedgerError
from jupyter_aistack.system.command_lines import command_of
from jupyter_aistack.system.process_exit import ProcessExit
from jupyter_aistack.system.process_origin import installed_program_of, kernel_named_by
from jupyter_aistack.system.process_users import uid_of, uid_of_same
from jupyter_aistack.system.processes import (
    ancestors,
    program_of,
    started_at,
)
from jupyter_aistack.system.users import groups_of, is_root, login_of, uid_of_login

from .host_state import HostState
from .liveness import root_pid
from .processes import HolderProcesses, processes_by_device
from .stray_record import StrayKey, StrayRecord

log = logging.getLogger("jupyter_aistack")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A stray, with what it is known and judged by."""

    stray: Stray
    started: float | None

    @property
    def key(self) -> StrayKey | None:
        """None where it cannot be told from a later process of its number."""
        if self.started is None or self.stray.pid is None:
            return None
        return (self.stray.device_id, self.stray.pid, self.started)


@dataclass(frozen=True, kw_only=True)
class StrayOptions:
    """How a broker sees to strays.

    Attributes:
        policy: what is done about them.
        record: what is remembered of them beyond the end of this process.
        serves_host: this is the broker of all users of the host, whose ledger knows all
            leases: without that another user's process may have a lease elsewhere.
        seconds: a clock that nobody sets.
    """

    policy: StrayPolicy = field(default_factory=StrayPolicy)
    record: StrayRecord = field(default_factory=StrayRecord)
    serves_host: bool = False
    seconds: Callable[[], float] = time.monotonic


class StrayMonitor:
    """Finds strays on the lists of processes that the inventory has anyway, tells of
    them, and ends them where the policy says so.

    Args:
        host_state: provides devices, leases and the ledger.
        processes: finds which processes use the leases.
        options: how that is seen to.
        uptime: seconds since the machine started, as starts of processes are counted.
    """

    def __init__(
        self,
        host_state: HostState,
        processes: HolderProcesses,
        options: StrayOptions,
        *,
        uptime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._host_state = host_state
        self._processes = processes
        self.policy = options.policy
        self._record = options.record
        self._ends_all = options.serves_host and is_root()
        self._seconds = options.seconds
        self._uptime = uptime
        self._lock = threading.Lock()
        self._sightings = options.record.read()

    @property
    def is_on_watch(self) -> bool:
        """Whether anything is to be done about strays, also while nothing is leased."""
        return self.policy.action is not StrayAction.NOTHING

    def current(self) -> tuple[Stray, ...]:
        """The strays of the host by the inventory, which is at most two seconds old."""
        return tuple(seen.stray for seen in self._look())

    def check(self) -> None:
        """Remember who is new, forget who has gone, and do what is due."""
        with self._lock:
            seen = [each for each in self._look() if each.key is not None]
            now = self._seconds()
            known = self._sightings
            self._sightings = {
                each.key: known.get(each.key, Sighting(seen=now))
                for each in seen
                if each.key is not None
            }
            for each in seen:
                self._act(each, now)
            if self._sightings != known:
                self._record.write(self._sightings)

    # -- what is seen ------------------------------------------------------------------

    def _look(self) -> list[_Seen]:
        devices = [d for d in self._host_state.inventory().devices if d.strays]
        if not devices:
            return []
        leases = self._host_state.leases()
        return [
            self._seen(device, use, leases)
            for device in devices
            if not device.simulated
            for use in device.strays
        ]

    def _seen(self, device: Device, use: ProcessUse, leases: Sequence[Lease]) -> _Seen:
        facts = self._facts(device, use.pid, leases)
        services = self._host_state.devices.services
        exemption = exemption_of(facts, self.policy.exempt, services)
        since = None
        if facts.started is not None:
            since = self._host_state.now() - (self._uptime() - facts.started)
        program = printable(facts.program or use.name)
        command = printable(command_of(use.pid)) or program
        stray = Stray(
            device_id=device.id,
            pid=use.pid,
            user=facts.user,
            program=program,
            command=command,
            memory_bytes=use.memory_bytes,
            since=since,
            kernel_id=kernel_named_by(use.pid),
            exemption=exemption,
        )
        seen = _Seen(stray=stray, started=facts.started)
        return replace(seen, stray=replace(stray, ends_at=self._ends_at(seen)))

    def _facts(self, device: Device, pid: int, leases: Sequence[Lease]) -> StrayFacts:
        uid = uid_of(pid)
        user = "" if uid is None else login_of(uid)
        is_needed = any(name.startswith("@") for name in self.policy.exempt)
        own = [lease for lease in leases if _may_be_of(lease.holder, uid, user)]
        return StrayFacts(
            uid=uid,
            started=started_at(pid),
            user=user,
            groups=groups_of(user) if is_needed else frozenset(),
            program=program_of(pid),
            installed=installed_program_of(pid),
            is_broker=_is_of_broker(pid),
            is_holder=self._is_holder(pid, own),
            may_hold=self._may_hold(device, own),
            is_within_reach=self._ends_all or uid == os.getuid(),
        )

    def _is_holder(self, pid: int, own: Sequence[Lease]) -> bool:
        """Whether a process has one of its user's leases, whatever that is of."""
        roots = {root_pid(lease.holder) for lease in own}
        return bool(own) and not roots.isdisjoint(ancestors(pid))

    def _may_hold(self, device: Device, own: Sequence[Lease]) -> bool:
        """Whether it cannot be ruled out that a process has a lease of a device, among
        those of its user.
        """
        is_sure = self._host_state.devices.names_processes
        return not is_sure or any(_is_unseen(lease, device) for lease in own)

    def _ends_at(self, seen: _Seen) -> float | None:
        sighting = None if seen.key is None else self._sightings.get(seen.key)
        if sighting is None:
            return None
        end = end_of(sighting, seen.stray.exemption, self.policy)
        if end is None:
            return None
        return self._host_state.now() + max(0.0, end - self._seconds())

    # -- what is done ------------------------------------------------------------------

    def _act(self, seen: _Seen, now: float) -> None:
        key = seen.key
        assert key is not None
        sighting = self._sightings[key]
        step = due_step(sighting, seen.stray.exemption, self.policy, now)
        if step is StrayStep.TELL:
            self._tell(EventKind.STRAY_SEEN, seen.stray, _sentence(seen.stray))
            self._sightings[key] = replace(sighting, is_told=True)
        elif step is StrayStep.ASK and self._signal(seen, signal.SIGTERM):
            self._sightings[key] = replace(sighting, asked=now)
            self._tell(EventKind.STRAY_ENDED, seen.stray, _end_sentence(seen.stray))
        elif step is StrayStep.KILL:
            self._signal(seen, signal.SIGKILL)

    def _signal(self, seen: _Seen, number: signal.Signals) -> bool:
        """Signal a stray, if it is one still: it may have been granted a lease since
        the inventory was taken. Whether it was signalled.
        """
        pid = seen.stray.pid
        started = seen.started
        assert pid is not None
        assert started is not None
        if self._has_lease(pid, seen.stray.device_id):
            return False
        try:
            with ProcessExit(pid, started) as process:
                process.send(number)
        except OSError as error:
            log.warning("process %s cannot be ended: %s", pid, error.strerror)
            return False
        return True

    def _has_lease(self, pid: int, device_id: str) -> bool:
        leases = self._host_state.leases()
        holding = processes_by_device(leases, self._processes.pids(leases))
        return pid in holding.get(device_id, frozenset())

    def _tell(self, kind: EventKind, stray: Stray, sentence: str) -> None:
        log.warning("%s: %s", stray.device_id, sentence)
        event = Event(
            kind=kind,
            at=self._host_state.now(),
            device_id=stray.device_id,
            detail=sentence,
            owner=stray.user,
        )
        try:
            self._host_state.ledger.record(event)
        except LedgerError as error:
            log.warning("that is not written down: %s", error.message)


def _may_be_of(holder: Holder, uid: int | None, user: str) -> bool:
    """Whether a lease is a user's, or may be: a user of a hub runs under an account that
    is called otherwise, which only a process that can be seen tells.
    """
    if holder.user == user:
        return True
    process = holder.process
    behind = None if process is None else uid_of_same(process)
    if behind is None:
        return uid_of_login(holder.user) is None
    return behind == uid


def _is_of_broker(pid: int) -> bool:
    """Whether a process is this one, or was started by it to look at a device. What it
    starts for people, kernels and terminals, has a session of its own.
    """
    if pid == os.getpid():
        return True
    try:
        is_of_session = os.getsid(pid) == os.getsid(0)
    except OSError:
        return False
    return is_of_session and os.getpid() in ancestors(pid)


def _is_unseen(lease: Lease, device: Device) -> bool:
    """Whether a lease is of a device, and its processes cannot be seen: any process of
    its user there may be its.
    """
    if device.id not in {slice_.device_id for slice_ in lease.slices}:
        return False
    root = root_pid(lease.holder)
    return root is None or started_at(root) is None


def _words(stray: Stray) -> Iterator[str]:
    yield f"process {stray.pid} of {stray.user or 'an unknown user'}"
    if stray.program:
        yield f"({stray.program})"


def _sentence(stray: Stray) -> str:
    memory = "n/a" if stray.memory_bytes is None else format_bytes(stray.memory_bytes)
    return f"{' '.join(_words(stray))} uses it without a lease; memory: {memory}"


def _end_sentence(stray: Stray) -> str:
    age = ""
    if stray.since is not None and stray.ends_at is not None:
        age = f", started {format_duration(stray.ends_at - stray.since)} ago"
    return (
        f"{' '.join(_words(stray))} was asked to end: it used it without a lease{age}"
    )
