"""The shell that turns snapshots into plans and plans into fact. It holds no rule of
its own.

A broker is cheap and there may be many over one ledger, one per Jupyter server or
script; fencing tokens and the ledger's version keep them honest. All methods are
synchronous and short; call them from a thread in async code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.device import Fault, Inventory
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    LeaseTransition,
    NoticeKind,
)
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import Policy, Queue, SuspendPolicy
from jupyter_aistack.core.model.request import Holder, HolderKind, Request, RequestState
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.scheduling.admission import admit, queue_for
from jupyter_aistack.core.scheduling.cycle import plan
from jupyter_aistack.core.scheduling.forecast import QueuedForecast, forecast
from jupyter_aistack.core.scheduling.reservations import conflict
from jupyter_aistack.core.suspend.capability import UNTESTED, SuspendCapability
from jupyter_aistack.exceptions import (
    AIStackError,
    LeaseError,
    LeaseLost,
    LedgerConflict,
    NotEnforced,
    PrepareFailed,
    ProviderError,
    Refused,
    UnknownQueue,
    error_from_dict,
)
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.providers.base import Provider, Usage
from jupyter_aistack.system.processes import is_alive, started_at, tree

from .devices import DeviceManager
from .fault_monitor import FaultMonitor
from .memory_watchdog import MemoryWatchdog
from .mig import MIGReconfigurer
from .suspension import Suspension
from .usage_meter import UsageMeter

log = logging.getLogger("jupyter_aistack")

REAP_SECONDS = 1.0
"""How long a holder must have been found dead: a kernel that crashed is put in its
server's name within milliseconds, and must not lose its slice to a cycle that happens
to run in between."""
MAX_CONFLICTS = 200


_OF_PREPARATION = frozenset({ConditionKind.ENFORCEMENT_REDUCED})
_OF_CHECK = frozenset(
    {
        ConditionKind.DEVICE_FAULT,
        ConditionKind.NOT_ENFORCED,
        ConditionKind.NOT_VERIFIED,
    }
)
"""What a preparation and a check find out; either replaces what an earlier one found."""


class Broker(Suspension):
    """Grants slices of this host.

    Args:
        ledger: where everything is written down.
        providers: what finds and prepares devices; the one that found a device owns it.
        policy: how slices are shared out: queues, limits, fairness.
        host: name of this machine.
        clock: seconds since the epoch.
        ttl_seconds: how long a lease lives without renewal.
        is_alive: whether a process (pid, start time) still runs.
        suspend: when idle kernels are suspended; None for never.
        suspend_ready: why this host cannot suspend a process, in one sentence; empty
            when it can.
        host_memory: bytes of the host's memory that could be used now; None for what
            the system says, or for no bound where devices are simulated: their state
            takes none.

    Attributes:
        suspend_ready: as given; whoever tests the host sets it anew.
        not_enforced_action: what becomes of a lease whose process finds more than was
            granted.
        memory_action: what is done about processes that hold more of a GPU's memory
            than their lease has.
        show_names: whether users are told the names of others.
        readiness: how well the host can suspend; set with it.
    """

    def __init__(
        self,
        ledger: Ledger,
        providers: Sequence[Provider],
        *,
        policy: Policy | None = None,
        host: str | None = None,
        clock: Callable[[], float] = time.time,
        ttl_seconds: float = 60.0,
        is_alive: Callable[[int, float | None], bool] = is_alive,
        suspend: SuspendPolicy | None = None,
        suspend_ready: Callable[[], str] = lambda: UNTESTED.why,
        host_memory: Callable[[], int] | None = None,
        not_enforced_action: NotEnforcedAction = NotEnforcedAction.WARN,
        memory_action: MemoryAction = MemoryAction.INTERRUPT,
        show_names: bool = True,
    ) -> None:
        self.ledger = ledger
        self.policy = policy or Policy()
        self.host = host or socket.gethostname()
        self.clock = clock
        self.ttl_seconds = ttl_seconds
        self._is_alive = is_alive
        self.not_enforced_action = not_enforced_action
        self.devices = DeviceManager(
            providers, host=self.host, clock=clock, ours=self._own_processes
        )
        self.suspend = suspend
        self.suspend_ready = suspend_ready
        self._host_memory = host_memory or self._available_bytes
        self.cutting = MIGReconfigurer(self.devices, clock)
        self.books = UsageMeter(
            ledger, self.devices, host=self.host, clock=clock, pids=self._pids
        )
        self.readiness: Callable[[], SuspendCapability] = self._untested
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._fault_watch = FaultMonitor(
            lambda: self.devices, ledger, lambda: self.clock(), show_names=show_names
        )
        self.memory = MemoryWatchdog(
            lambda: self.devices, ledger, lambda: self.clock(), memory_action
        )
        self._found_dead: dict[str, float] = {}
        self._admitted_to: Inventory | None = None
        self._admitted: set[tuple[Spec, str]] = set()

    # -- what there is -----------------------------------------------------------------

    @property
    def queues(self) -> tuple[Queue, ...]:
        """All queues."""
        return self.policy.queues

    def inventory(self) -> Inventory:
        """The devices of this host, at most two seconds old, with the memory of
        strangers marked.
        """
        return self.devices.inventory()

    def leases(self, *, live: bool = True) -> tuple[Lease, ...]:
        """This host's leases, newest first."""
        return self.ledger.leases(self.clock(), host=self.host, live=live)

    def lease(self, lease_id: str) -> Lease:
        """One lease, live or ended. Raises `LeaseNotFound`."""
        return self.ledger.lease(lease_id, self.clock())

    def request(self, request_id: str) -> Request:
        """One request. Raises `LeaseNotFound`."""
        return self.ledger.request(request_id)

    def waiting(self, limit: int = 100) -> tuple[QueuedForecast, ...]:
        """The waiting requests of this host, first served first: why they wait and how
        long, for the first `limit`.
        """
        now = self.clock()
        return forecast(self._snapshot(self.inventory(), now), now, limit=limit)

    def queue(self) -> tuple[Request, ...]:
        """The waiting requests of this host, first served first, with the reason that
        names nobody.
        """
        return tuple(
            replace(one.request, reason=one.public_reason) for one in self.waiting()
        )

    def reservations(self) -> tuple[Reservation, ...]:
        """The reservations of this host that are running or to come."""
        return self.ledger.read(self.host, self.clock()).reservations

    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """What has happened after sequence number `after`, in order."""
        return self.ledger.events(after, limit)

    # -- asking ------------------------------------------------------------------------

    def submit(
        self,
        spec: str | Spec,
        holder: Holder,
        *,
        queue: str = "",
        priority: int = 0,
        lease_seconds: float | None = None,
        patience_seconds: float | None = None,
        preemptible: bool = False,
        groups: frozenset[str] = frozenset(),
    ) -> Request:
        """Ask for slices and try to grant them at once.

        Args:
            queue: where to wait; empty for the user's own queue.
            groups: the Unix groups of the holder's user, which may open queues.

        Returns:
            The request: granted (with ``lease_id``), queued (`waiting` tells why), or
                cancelled by someone meanwhile.

        Raises:
            InvalidRequest: the spec or the queue cannot be understood.
            UnknownProfile, Unsatisfiable: no state of this host could ever hold it.
            QuotaExceeded: the limits of the queue or of the user do not allow it; says
                which, and when that ends.
            QueueClosed: the queue takes no requests, or none of this user.
            AcquireTimeout: it was not to wait (``patience_seconds=0``) and would have
                to.
            Refused: its process has ended meanwhile.
        """
        parsed = parse_spec(spec) if isinstance(spec, str) else spec
        request = Request(
            id=f"r-{uuid.uuid4().hex[:12]}",
            spec=parsed,
            holder=self._with_start_time(holder),
            queue=queue_for(self.policy, queue, holder.user, groups).name,
            priority=priority,
            lease_seconds=lease_seconds,
            patience_seconds=patience_seconds,
            preemptible=preemptible,
            submitted_at=self.clock(),
        )
        self._admit(request)
        self.ledger.submit(request)
        try:
            self.cycle()
            decided = self.ledger.request(request.id)
        except BaseException:
            # The caller never learns its id, so nobody else could ever cancel it or
            # release what it becomes.
            self._withdraw(request.id)
            raise
        if decided.state is RequestState.REJECTED:
            raise _rejection(decided)
        return decided

    def _admit(self, request: Request) -> None:
        """Before anything is written; the ledger need only be read where users have
        limits.
        """
        now = self.clock()
        inventory = self.inventory()
        if self.policy.limits:
            admit(request, self._snapshot(inventory, now), now)
            return
        if self._admitted_to is not inventory:
            self._admitted_to = inventory
            self._admitted = set()
        asked = (request.spec, request.queue)
        if asked not in self._admitted:
            admit(request, Snapshot(inventory=inventory, policy=self.policy), now)
            self._admitted.add(asked)

    def _withdraw(self, request_id: str) -> None:
        with contextlib.suppress(AIStackError):
            request = self.ledger.cancel(
                request_id, self.clock(), "it could not be answered"
            )
            if request.lease_id:
                lease = self.lease(request.lease_id)
                self.ledger.step(
                    lease.id, lease.token, LeaseTransition.FAIL, self.clock()
                )

    def _with_start_time(self, holder: Holder) -> Holder:
        if holder.pid is None or holder.pid_started_at is not None:
            return holder
        return replace(holder, pid_started_at=started_at(holder.pid))

    def cancel(self, request_id: str) -> Request:
        """Take a waiting request back; one already decided is returned as it stands."""
        request = self.ledger.cancel(request_id, self.clock(), "taken back")
        self.cycle()
        return request

    # -- holding -----------------------------------------------------------------------

    def prepare(self, lease: Lease) -> Preparation:
        """Make a lease's slices ready before a process starts to use them, and note
        what enforces them.

        Raises:
            PrepareFailed: the lease has been ended as failed. Not so one that was in
                use and whose GPU is closed: it opens as soon as all whose work broke
                have ended, and whoever is started again first must not lose it.
        """
        try:
            prepared = self.preparation(lease)
        except PrepareFailed as error:
            if lease.state is not LeaseState.GRANTED and self._is_on_faulty(lease):
                raise
            self.ledger.step(
                lease.id,
                lease.token,
                LeaseTransition.FAIL,
                self.clock(),
                conditions=self._failed(error.message),
            )
            self.devices.unprepare(lease)
            self.cycle()
            raise
        self._record_enforcement(lease, prepared)
        pid = _running_pid(lease.holder)
        held = None if pid is None else self._enter(lease, pid)
        return held or prepared

    def _is_on_faulty(self, lease: Lease) -> bool:
        faulty = {fault.device_id for fault in self.faults()}
        return any(piece.device_id in faulty for piece in lease.slices)

    def _failed(self, message: str) -> ConditionUpdate:
        failed = new_condition(ConditionKind.FAILED, message, self.clock())
        return ConditionUpdate(put=(failed,))

    def _record_enforcement(self, lease: Lease, prepared: Preparation) -> None:
        """Write down what enforces a lease, and why that is not more."""
        level = prepared.enforced_by
        update = ConditionUpdate(put=prepared.conditions, clear=_OF_PREPARATION)
        is_known = update.apply(lease.conditions) == lease.conditions
        if is_known and lease.enforced_by is level:
            return
        self.ledger.bind(
            lease.id,
            lease.token,
            self.clock(),
            enforced_by=level,
            conditions=update,
        )

    def _enter(self, lease: Lease, pid: int) -> Preparation | None:
        """Put what holds the lease around a process; where that fails, note and give
        what holds it then.
        """
        try:
            self.devices.enter(lease, pid)
        except ProviderError as error:
            log.warning("lease %s: %s", lease.id, error.message)
            with contextlib.suppress(PrepareFailed, LeaseError):
                prepared = self.preparation(lease)
                self._record_enforcement(self.lease(lease.id), prepared)
                return prepared
        return None

    def preparation(self, lease: Lease) -> Preparation:
        """What a process that uses the lease must be given. Asking changes nothing in
        the ledger.

        Raises:
            PrepareFailed: a provider cannot say now.
        """
        prepared = self.devices.prepare(lease)
        return replace(
            prepared, environment={**prepared.environment, "AISTACK_LEASE": lease.id}
        )

    def activate(
        self,
        lease_id: str,
        token: int,
        *,
        verified: bool | None,
        condition: Condition | None = None,
    ) -> Lease:
        """Note that a lease is in use, and whether it was found as granted.

        Args:
            condition: what the check has found; None where all is as granted. It
                replaces what an earlier check has found.

        Raises:
            NotEnforced: it was not, and such leases are revoked here: it has been ended
                as failed.
        """
        put = () if condition is None else (condition,)
        update = ConditionUpdate(put=put, clear=_OF_CHECK)
        if verified is False:
            log.warning("lease %s: %s", lease_id, update.text)
            if self.not_enforced_action is NotEnforcedAction.REVOKE:
                self._revoke(lease_id, token, update)
                raise NotEnforced(
                    f"{update.text}; the lease {lease_id} has been revoked",
                    lease_id=lease_id,
                )
        return self.ledger.step(
            lease_id,
            token,
            LeaseTransition.ACTIVATE,
            self.clock(),
            verified=verified,
            conditions=update,
        )

    def _revoke(self, lease_id: str, token: int, update: ConditionUpdate) -> None:
        ended = self.ledger.step(
            lease_id,
            token,
            LeaseTransition.FAIL,
            self.clock(),
            verified=False,
            conditions=update,
        )
        self.devices.unprepare(ended)
        # Its process may still hold the device, and is a stranger there from now on.
        self.devices.forget()
        self.cycle()

    def bind(
        self, lease_id: str, token: int, *, pid: int, root_pid: int | None = None
    ) -> Lease:
        """Tie a lease's life to process `pid`, and its use to the tree below
        `root_pid`.
        """
        lease = self.lease(lease_id)
        holder = replace(
            lease.holder, pid=pid, pid_started_at=started_at(pid), root_pid=root_pid
        )
        bound = self.ledger.bind(lease_id, token, self.clock(), holder=holder)
        if root_pid is not None:
            self._enter(bound, root_pid)
        return bound

    def renew(self, lease_id: str, token: int) -> Lease:
        """Keep a lease alive for another TTL."""
        now = self.clock()
        return self.ledger.renew(lease_id, token, now, now + self.ttl_seconds)

    def extend(self, lease_id: str, token: int, seconds: float) -> Lease:
        """Move the end of a time-limited lease `seconds` further; one without an end
        stays without.

        It counts as used now: one that was to be reclaimed for being idle is kept.

        Raises:
            Refused: it has been asked back for a request that goes first.
        """
        lease = self.lease(lease_id)
        if lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT:
            raise Refused(
                "the lease cannot be extended: its room is needed by a request that goes first"
            )
        if lease.active_at is not None:
            self.touch([lease_id])
        if lease.ends_at is None:
            return self.lease(lease_id)
        self.ledger.extend(lease_id, token, self.clock(), lease.ends_at + seconds)
        return self.renew(lease_id, token)  # renewals stopped at the old end

    def touch(self, lease_ids: Iterable[str]) -> None:
        """Note that leases are in use now: a cell runs, or a device works. From its
        first touch on, one can be idle.
        """
        self.ledger.touch(tuple(lease_ids), self.clock())

    def release(self, lease_id: str, token: int) -> Lease:
        """Give a lease back. Releasing one that has ended already returns it as it
        ended.
        """
        lease = self.lease(lease_id)
        if not lease.is_live:
            return lease
        try:
            lease = self.ledger.step(
                lease_id, token, LeaseTransition.RELEASE, self.clock()
            )
            self.devices.unprepare(lease)
            lease = self.ledger.step(
                lease_id, token, LeaseTransition.FINISH, self.clock()
            )
        except LeaseLost:  # its time was up just now
            lease = self.lease(lease_id)
        self.devices.forget()  # its processes are no longer ours, and what they still hold is foreign
        self.cycle()
        return lease

    # -- reserving ---------------------------------------------------------------------

    def reserve(
        self,
        *,
        name: str,
        queue: str,
        spec: str | Spec,
        count: int,
        starts_at: float,
        ends_at: float,
        is_weekly: bool = False,
        created_by: str = "",
    ) -> Reservation:
        """Keep `count` slices for the members of a queue between two moments.

        Raises:
            InvalidRequest, UnknownQueue: a field makes no sense; it is named.
            Refused: the host cannot hold it beside the other reservations, not even
                when idle.
        """
        known = self.policy.queue(queue)
        if known is None:
            names = ", ".join(q.name for q in self.queues)
            raise UnknownQueue(
                f"queue: there is no queue {queue!r}; there is {names}", field="queue"
            )
        reservation = Reservation(
            id=f"v-{uuid.uuid4().hex[:12]}",
            name=name,
            queue=queue,
            spec=parse_spec(spec) if isinstance(spec, str) else spec,
            count=count,
            starts_at=starts_at,
            ends_at=ends_at,
            is_weekly=is_weekly,
            created_by=created_by,
            host=self.host,
        )
        reservation.check(self.clock())
        why = conflict(reservation, self.reservations(), self.inventory())
        if why:
            raise Refused(why)
        return self.ledger.reserve(reservation, self.clock())

    def unreserve(self, reservation_id: str) -> Reservation:
        """Take a reservation back. Raises `LeaseNotFound`."""
        reservation = self.ledger.unreserve(reservation_id, self.clock())
        self.cycle()
        return reservation

    # -- the cycle ---------------------------------------------------------------------

    def cycle(self) -> tuple[Event, ...]:
        """End what is over, grant what fits. Returns what happened."""
        with self._turn:  # the plans of two threads would only overtake each other
            return self._take_turn()

    def _take_turn(self) -> tuple[Event, ...]:
        inventory = self.inventory()
        known = self.devices.prepared()
        for _ in range(MAX_CONFLICTS):
            now = self.clock()
            snapshot = self._snapshot(inventory, now)
            todo = plan(snapshot, now, ttl_seconds=self.ttl_seconds)
            if todo.is_empty:
                self._undo(known, {lease.id for lease in snapshot.leases})
                return ()
            try:
                events = self.ledger.apply(todo, now)
            except LedgerConflict:
                continue
            self._undo(known, {lease.id for lease in snapshot.leases} - todo.ended())
            return events
        raise LedgerConflict(
            "the ledger is too busy: other brokers changed it each time a plan was ready; try again"
        )

    def snapshot(self) -> Snapshot:
        """All that a plan is made from, as it is now."""
        return self._snapshot(self.inventory(), self.clock())

    def _undo(self, known: Iterable[Lease], alive: set[str]) -> None:
        """Undo what was prepared for leases that are over, however and through whomever
        they ended.

        `known` were prepared before `alive` was read: one prepared since then is none
            of this cycle's business.
        """
        for lease in known:
            if lease.id not in alive:
                self.devices.unprepare(lease)

    def _snapshot(self, inventory: Inventory, now: float) -> Snapshot:
        state = self.ledger.read(self.host, now)
        return Snapshot(
            inventory=inventory,
            leases=state.leases,
            requests=state.requests,
            policy=self.policy,
            accounts=state.accounts,
            reservations=state.reservations,
            version=state.version,
            dead=self._long_dead(self._dead([*state.leases, *state.requests]), now),
            suspend=None
            if self.suspend is None or self.suspend_ready()
            else self.suspend,
            host_bytes=self._host_bytes(state.leases),
        )

    def _dead(self, everything: Iterable[Lease | Request]) -> set[str]:
        """Ids of those whose process has ended; each process is looked at once."""
        known: dict[tuple[int, float | None], bool] = {}
        dead = set()
        for item in everything:
            holder = item.holder
            if holder.pid is None:
                continue
            process = (holder.pid, holder.pid_started_at)
            is_dead = known.get(process)
            if is_dead is None:
                is_dead = known[process] = self._is_dead(holder)
            if is_dead:
                dead.add(item.id)
        return dead

    def _long_dead(self, dead: set[str], now: float) -> frozenset[str]:
        """Those of `dead` that were so a while ago already."""
        with self._lock:
            self._found_dead = {held: self._found_dead.get(held, now) for held in dead}
            return frozenset(
                held
                for held, since in self._found_dead.items()
                if now - since >= REAP_SECONDS
            )

    def _is_dead(self, holder: Holder) -> bool:
        return holder.pid is not None and not self._is_alive(
            holder.pid, holder.pid_started_at
        )

    def maintain(self) -> tuple[Event, ...]:
        """Renew every lease of this host whose process lives, then run a cycle. Call it
        every few seconds.

        It does not matter which broker granted a lease: any that runs on the host keeps
            it, so a lease outlives the
        process that asked for it on somebody's behalf, and nothing in the holder need
        run to keep it.
        """
        soon = self.clock() + self.ttl_seconds * 2 / 3
        for lease in self.leases():
            if lease.state is LeaseState.RELEASING or lease.holder.pid is None:
                continue  # whoever was tearing it down may be gone, and nobody must wait for them
            if lease.expires_at < soon and not self._is_dead(lease.holder):
                with contextlib.suppress(LeaseError):  # it ended between the two calls
                    self.renew(lease.id, lease.token)
        self._record_usage_or_log()
        leases = self.leases()
        self.memory.look(leases, lambda: self._trees(leases))
        self._fault_watch.look(leases, lambda: self._pids(leases))
        events = self.cycle()
        return (*events, *self.cycle()) if self.cutting.serve(self.snapshot) else events

    # -- what holds the leases ---------------------------------------------------------

    def clients(self, lease: Lease) -> frozenset[int] | None:
        """Processes known to the server that holds a lease; None when nobody says. See
        `Provider.clients`.
        """
        return self.devices.clients(lease)

    def terminate(self, lease: Lease, pid: int) -> None:
        """End one process's work through the server that holds its lease. Raises
        `ProviderError`.
        """
        self.devices.terminate(lease, pid)

    def faults(self) -> tuple[Fault, ...]:
        """What broke the work of those who share a device and is not over."""
        return self.devices.faults()

    # -- measuring ---------------------------------------------------------------------

    def usage(self) -> tuple[dict[str, Usage], dict[str, Usage]]:
        """What is in use now: per lease id, and per device id."""
        leases = self.leases()
        return self.devices.usage(leases, self._pids(leases))

    def record_usage(self, *, settle: bool = False) -> None:
        """Measure what was used and, every ten seconds or at once, write it down; see
        :class:`UsageMeter`.
        """
        self.books.look(self.leases(), settle=settle)

    def _record_usage_or_log(self) -> None:
        """A mistake in the books must cost nobody a lease."""
        try:
            self.record_usage()
        except AIStackError as error:
            log.warning("what was used is written down later: %s", error.message)
        except Exception:
            log.exception("the books cannot be kept")

    def flush_usage(self) -> None:
        """Write down what is left once nothing is leased any more."""
        if self.books.is_open:
            self.record_usage()

    def _own_processes(self) -> Iterable[int]:
        return (pid for pids in self._pids(self.leases()).values() for pid in pids)

    def _pids(self, leases: Iterable[Lease]) -> dict[str, frozenset[int]]:
        """Each lease's processes, where they are known yet; those outside its tree as
        the watchdog last saw them.
        """
        return {
            lease_id: pids | self.memory.orphan_processes(lease_id)
            for lease_id, pids in self._trees(leases).items()
        }

    def _trees(self, leases: Iterable[Lease]) -> dict[str, frozenset[int]]:
        """The processes below each lease's root. A worker's belong to the worker's
        lease, not to its kernel's too.
        """
        roots = {
            lease.id: lease.holder.root_pid or _own_pid(lease.holder)
            for lease in leases
        }
        return tree(
            {lease_id: pid for lease_id, pid in roots.items() if pid is not None}
        )

    def close(self) -> None:
        """Let go of the ledger and the drivers."""
        with contextlib.suppress(AIStackError):
            self.books.transfer_metering()
        self.devices.close()
        self.ledger.close()


def _rejection(request: Request) -> AIStackError:
    """The error that a rejected request means for whoever made it."""
    facts = {"request_id": request.id}
    return error_from_dict(
        {"code": request.code, "message": request.reason, "facts": facts}
    )


def _running_pid(holder: Holder) -> int | None:
    """The process that uses the lease, where it runs already and is not one that stands
    in for a kernel to come.
    """
    pid = holder.root_pid or _own_pid(holder)
    stands_in = (
        pid == os.getpid()
        and holder.kind is HolderKind.KERNEL
        and holder.id != os.environ.get("AISTACK_KERNEL")
    )
    return None if stands_in else pid


def _own_pid(holder: Holder) -> int | None:
    """The process that uses the lease by itself: a worker or a run is another one than
    the holder's.
    """
    return (
        holder.pid if holder.kind in (HolderKind.KERNEL, HolderKind.PROCESS) else None
    )
