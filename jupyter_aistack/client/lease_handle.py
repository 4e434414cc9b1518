"""A lease, or the request that will become a lease: what it is, and what can be done
with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.exceptions import (
    AIStackError,
    LeaseError,
    LeaseLost,
)
from jupyter_aistack.system.interrupts import DeferredInterrupts

from . import notices, process_leases
from .durations import lease_seconds
from .runtime import attach as attaching
from .runtime.attach import OnCheck, unheard
from .text import granted_text
from .transports import JSON
from .waiting import WaitProgress, check_waiting, interruptible, pauses_until
from .wire import condition_dict, is_usable, preparation_of

if TYPE_CHECKING:
    from jupyter_aistack.core.model.condition import Condition, Conditions
    from jupyter_aistack.core.model.device import Slice

OnWait = Callable[[int | None, str], None]
"""Called with the position and the reason of a waiting request, each time either
changes.
"""


class SupportsCall(Protocol):
    """Carries a verb to the granting side: a client."""

    def call(self, verb: str, **payload: Any) -> JSON:
        """The answer, or an `AIStackError`."""


class LeaseHandle:
    """A lease, or the place in the queue that will become a lease.

    Use it as a context manager: it is released at the end. It belongs to the process
    that asked for it: a process that is forked from it may read it and never ends it.

    Attributes:
        request: as on the wire, by the last answer.
        lease: as on the wire, by the last answer; None while it waits.
        prepared: what this process must be given.
        advice: one line when another size would suit this notebook better; it comes
            with the answer to the request only.
    """

    request: JSON
    lease: JSON | None
    prepared: Preparation

    def __init__(self, client: SupportsCall, answer: Mapping[str, Any]) -> None:
        self._client = client
        self._owner_pid = os.getpid()
        self._before: attaching.SavedEnvironment | None = None
        self._slices: tuple[Slice, ...] | None = None
        self.advice: str | None = answer.get("advice")
        self._update(answer)

    def _update(self, answer: Mapping[str, Any]) -> None:
        self.request = dict(answer["request"])
        self.prepared = preparation_of(answer["prepared"])
        self._update_lease(answer["lease"])

    def _update_lease(self, lease: JSON | None) -> None:
        self.lease = lease
        self._slices = None

    # -- what it is --------------------------------------------------------------------

    @property
    def is_granted(self) -> bool:
        return self.lease is not None

    @property
    def id(self) -> str:
        """The lease's id; empty while it waits."""
        return str(self.lease["id"]) if self.lease else ""

    @property
    def spec(self) -> str:
        return str(self.request["spec"])

    @property
    def state(self) -> str:
        """The lease's state, or the request's while it waits."""
        return str((self.lease or self.request)["state"])

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The slices by the last answer; decoded once for each."""
        if self.lease is None:
            return ()
        if self._slices is None:
            from jupyter_aistack.core.wire.records import LEASE

            self._slices = LEASE.from_dict(self.lease).slices
        return self._slices

    @property
    def memory_bytes(self) -> int:
        """Memory that belongs to it, over all its slices."""
        return sum(slice_.memory_bytes for slice_ in self.slices)

    @property
    def enforced_by(self) -> str:
        """The level that holds it to its size: L4 to L0, ``whole``, ``C`` or
        ``simulated``; empty while it waits.
        """
        return str(self.lease["enforced_by"] or "") if self.lease else ""

    @property
    def enforcement(self) -> str:
        """`enforced_by` in words."""
        return str(self.lease["enforcement"]) if self.lease else ""

    @property
    def verified(self) -> bool | None:
        """Whether its process found what was granted; None when that is not known."""
        return self.lease["verified"] if self.lease else None

    @property
    def conditions(self) -> Conditions:
        """What the user should know of it, the gravest first; empty while it waits."""
        from jupyter_aistack.core.wire.preparations import conditions_from_list

        return conditions_from_list(self.lease["conditions"]) if self.lease else ()

    @property
    def reason(self) -> str:
        """Why the request waits or was rejected; empty once it is granted."""
        return str(self.request.get("reason") or "")

    # -- waiting -----------------------------------------------------------------------

    def wait(
        self, timeout: float | None = None, *, on_wait: OnWait | None = None
    ) -> LeaseHandle:
        """Wait until it is granted.

        Args:
            timeout: seconds to wait at most; None waits for ever.
            on_wait: called with position and reason while it waits; None for a line on
                stderr where it takes longer than a moment.

        Raises:
            AcquireTimeout: not within `timeout` seconds; the request has been
                cancelled.
            Refused: it was rejected or withdrawn meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with DeferredInterrupts() as interrupts:
            try:
                self._poll(deadline, interrupts, on_wait)
            except BaseException:
                # Ctrl-C too: a request that is given up must not be granted later.
                self._withdraw()
                raise
        return self

    def _poll(
        self,
        deadline: float | None,
        interrupts: DeferredInterrupts,
        on_wait: OnWait | None,
    ) -> None:
        """Ask again and again; Ctrl-C is heard between two questions only, so that each
        answer is known.
        """
        progress = WaitProgress(self.spec)
        shown: tuple[int | None, str] = (None, "")
        pauses = pauses_until(deadline)
        while not self.is_granted:
            check_waiting(self.request, deadline)
            place = (self.request.get("position"), self.reason)
            if on_wait is None:
                progress.waits(*place)
            elif place != shown:
                on_wait(*place)
            shown = place
            interrupts.sleep(next(pauses))
            self.refresh()
        progress.granted()

    def _withdraw(self) -> None:
        if not self._is_own:
            return
        with contextlib.suppress(AIStackError):
            if not self.is_granted:
                self.refresh()  # it may have been granted just now
            if self.is_granted:
                self.release()
            else:
                self._client.call("cancel", request_id=self.request["id"])

    def refresh(self) -> LeaseHandle:
        """Read it from the granting side again."""
        self._update(self._client.call("wait_for", request_id=self.request["id"]))
        return self

    # -- using it ----------------------------------------------------------------------

    def attach(self, *, on_check: OnCheck = unheard) -> LeaseHandle:
        """Give this process what the lease says, check that it took effect, and report
        that.

        When that fails this process is as it was before, and the lease is released,
        unless this process was launched with it.

        Raises:
            DeviceInUse: this process has already started CUDA.
            NotEnforced: it got more than was granted, and such leases are revoked on
                this host.
        """
        self._granted()
        with process_leases.place_for(self.spec):
            return self.attach_in_place(on_check=on_check)

    def attach_in_place(self, *, on_check: OnCheck = unheard) -> LeaseHandle:
        """As `attach`, by who has taken this process's place already, see
        :func:`.process_leases.place_for`.
        """
        process_leases.settle(self.request["id"])
        with DeferredInterrupts(undo=self._give_up) as interrupts:
            on_slow = interruptible(on_check, interrupts)
            try:
                self._enter()
                verified, condition = attaching.verify(
                    self.prepared.expects, self.is_client, on_slow
                )
                self.activate(verified=verified, condition=condition)
            except BaseException:
                self._give_up()
                raise
        return self

    def _enter(self) -> None:
        """Change this process. Before the check, so that a lease that is revoked then
        is dropped like others.
        """
        with process_leases.changing():
            self._before = attaching.attach(self.prepared)
            process_leases.add(self)

    def _give_up(self) -> None:
        """Leave the process as it was, and give the lease back unless it was launched
        with it.
        """
        self._detach()
        if self.id not in attaching.LAUNCH_LEASES:
            # What cannot be released now ends with this process.
            with contextlib.suppress(AIStackError):
                self.release()

    def activate(
        self, *, verified: bool | None, condition: Condition | None = None
    ) -> LeaseHandle:
        """Report that a holder elsewhere (a worker) uses it, and whether it found what
        was granted.
        """
        self._call_with_token(
            "activate", verified=verified, condition=condition_dict(condition)
        )
        notices.watcher.watch()
        return self

    def is_client(self, pid: int) -> bool | None:
        """Whether the server that holds the slice to its size has a process as its
        client; None when that is unknown.
        """
        answer = self._client.call("listed", lease_id=self.id, pid=pid)
        is_listed: bool | None = answer["listed"]
        return is_listed

    def bind(self, root_pid: int, *, pid: int | None = None) -> LeaseHandle:
        """Charge the use of the process tree below `root_pid` to it, and let it live as
        long as process `pid`, which this process has started; None for no change.
        """
        life = {} if pid is None else {"pid": pid}
        self._call_with_token("bind", root_pid=root_pid, **life)
        return self

    def _call_with_token(self, verb: str, **payload: Any) -> None:
        """A verb that only the holder of the last token may call."""
        lease = self._granted()
        self._update_lease(
            self._client.call(verb, lease_id=self.id, token=lease["token"], **payload)
        )

    def extend(self, duration: str | float) -> LeaseHandle:
        """Move the end of a time-limited lease, e.g. by ``"30min"``; a lease without an
        end stays as it is.

        Either counts as used now, so that it is not reclaimed for being idle.
        """
        self._granted()
        seconds = lease_seconds(duration)
        self._update_lease(
            self._client.call("extend", lease_id=self.id, seconds=seconds)
        )
        return self

    # -- its end -----------------------------------------------------------------------

    @property
    def _is_own(self) -> bool:
        """Whether this is the process that asked for it, and no child of it."""
        return self._owner_pid == os.getpid()

    def release(self) -> LeaseHandle:
        """End it, or leave the queue. Doing so twice is allowed.

        In a process that was forked meanwhile it changes nothing: the lease is the
        parent's.
        """
        if not self._is_own:
            self._before = None
            return self
        with DeferredInterrupts():
            try:
                self._end()
            finally:
                self._detach()
        return self

    def _end(self) -> None:
        if self.is_granted:
            # It may have ended by itself.
            with contextlib.suppress(LeaseLost):
                lease = self._client.call("release", lease_id=self.id)
                self._update_lease(lease)
        else:
            request_id = self.request["id"]
            self.request = self._client.call("cancel", request_id=request_id)

    def _detach(self) -> None:
        """Take from this process what `attach` gave it."""
        if not self._is_own:
            return
        with process_leases.changing():
            before = self._before
            self._before = None
            if before is not None:
                attaching.detach(before)
            process_leases.remove(self.id)

    def drop(self) -> str:
        """Detach it if it has ended by itself: it expired, or was released elsewhere.

        Returns:
            One line for the user; nothing when it is still live.
        """
        from .lease_end import ended_line

        try:
            lease = self.refresh()._granted()
            line = "" if is_usable(lease) else ended_line(lease)
        except LeaseLost as lost:
            line = lost.message
        if line:
            self._detach()
        return line

    def _granted(self) -> JSON:
        if self.lease is None:
            raise LeaseError(f"{self.spec} is not granted yet: {self.reason}")
        return self.lease

    def __enter__(self) -> LeaseHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        if self.lease is None:
            return f"<request {self.spec}: {self.state}, {self.reason}>"
        size = granted_text(self.lease)
        return (
            f"<lease {self.id} {self.spec}: {size}, {self.state}, {self.enforcement}>"
        )
