"""The handle of a lease: what it is, what can be done with it, and which leases this
process has attached to itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Protocol

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import (
    Condition,
    Conditions,
)
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import LeaseState
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.units import format_bytes, format_share
from jupyter_aistack.core.wire.records import (
    CONDITION,
    LEASE,
    PREPARATION,
    conditions_from_list,
)
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    LeaseError,
    LeaseLost,
    Refused,
    error_from_dict,
)

from . import notices
from .durations import lease_seconds
from .lease_end import ended_line
from .runtime import attach as attaching
from .transports import JSON

FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 1.0

OnWait = Callable[[int | None, str], None]
"""Called with the position and the reason of a waiting request each time either
changes.
"""


class SupportsCall(Protocol):
    """Whoever carries a verb to the granting side: a client."""

    def call(self, verb: str, **payload: Any) -> JSON:
        """The answer, or an `AIStackError`."""


class LeaseHandle:
    """A lease, or the request in the queue that will become a lease.

    Use it as a context manager: it is released at the end.
    """

    def __init__(self, client: SupportsCall, answer: Mapping[str, Any]) -> None:
        self._client = client
        self._before: attaching.SavedEnvironment | None = None
        self.advice: str | None = answer.get("advice")
        """A line where another size would suit this notebook better; only the answer to
        the request has it.
        """
        self._take(answer)

    def _take(self, answer: Mapping[str, Any]) -> None:
        self.request: JSON = dict(answer["request"])
        self.lease: JSON | None = answer["lease"]
        self.prepared = (
            PREPARATION.from_dict(answer["prepared"])
            if answer["prepared"]
            else Preparation()
        )

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
        return LEASE.from_dict(self.lease).slices if self.lease else ()

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
        return self.lease["verified"] if self.lease else None

    @property
    def conditions(self) -> Conditions:
        """What the user should know of it, the gravest first; empty while it waits."""
        return conditions_from_list(self.lease["conditions"]) if self.lease else ()

    @property
    def reason(self) -> str:
        """Why the request waits or was rejected; empty once it is granted."""
        return str(self.request.get("reason") or "")

    # -- what can be done with it ------------------------------------------------------

    def wait(
        self, timeout: float | None = None, *, on_wait: OnWait | None = None
    ) -> LeaseHandle:
        """Wait until it is granted.

        Raises:
            AcquireTimeout: not within `timeout` seconds; the request has been
                withdrawn.
            Refused: it was rejected or withdrawn meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_POLL_SECONDS
        reported: tuple[str, int | None] = ("", None)
        try:
            while not self.is_granted:
                self._check_waiting(deadline)
                place = self.request.get("position")
                if on_wait and reported != (self.reason, place):
                    reported = (self.reason, place)
                    on_wait(place, self.reason)
                time.sleep(
                    pause
                    if deadline is None
                    else max(0.0, min(pause, deadline - time.monotonic()))
                )
                pause = min(LAST_POLL_SECONDS, pause * 1.5)
                self.refresh()
        except BaseException:
            self._withdraw()
            raise
        return self

    def _check_waiting(self, deadline: float | None) -> None:
        state = self.request["state"]
        if state == RequestState.CANCELLED.value:
            raise Refused(f"the request for {self.spec} was withdrawn")
        if state == RequestState.REJECTED.value:
            raise self._rejection()
        if deadline is not None and time.monotonic() >= deadline:
            raise self._timeout()

    def _rejection(self) -> AIStackError:
        code = self.request["code"]
        if code == AcquireTimeout.__name__:
            return self._timeout()
        message = f"the request for {self.spec} was rejected: {self.reason}"
        facts = {"request_id": self.request["id"]}
        return error_from_dict({"code": code, "message": message, "facts": facts})

    def _timeout(self) -> AcquireTimeout:
        return AcquireTimeout(
            f"no slice came free in time for {self.spec}: {self.reason}",
            request_id=self.request["id"],
        )

    def _withdraw(self) -> None:
        with contextlib.suppress(AIStackError):
            if not self.is_granted:
                self.refresh()  # it may have been granted just now
            if self.is_granted:
                self.release()
            else:
                self._client.call("cancel", request_id=self.request["id"])

    def refresh(self) -> LeaseHandle:
        """Read it anew."""
        self._take(self._client.call("wait_for", request_id=self.request["id"]))
        return self

    def attach(self) -> LeaseHandle:
        """Give this process what the lease says, check that it took, and say so in the
        ledger.

        When that fails this process is as it was before, and the lease is given back,
        unless this process was born with it.

        Raises:
            DeviceInUse: this process has already started CUDA.
            NotEnforced: it got more than was granted, and such leases are revoked on
                this host.
        """
        lease = self._granted()
        settle(self)
        try:
            self._before = attaching.attach(self.prepared)
            _attached[self.id] = self
            verified, condition = attaching.verify(
                self.prepared.expects, self.is_client
            )
            self.activate(verified=verified, condition=condition)
        except BaseException:
            self._let_go()
            if lease["id"] not in attaching.BORN_WITH:
                with contextlib.suppress(
                    AIStackError
                ):  # the reaper ends what cannot be given back now
                    self.release()
            raise
        return self

    def activate(
        self, *, verified: bool | None, condition: Condition | None = None
    ) -> LeaseHandle:
        """Report that a holder elsewhere (a worker) uses it, and whether it found what
        was promised.
        """
        lease = self._granted()
        self.lease = self._client.call(
            "activate",
            lease_id=self.id,
            token=lease["token"],
            verified=verified,
            condition=None if condition is None else CONDITION.to_dict(condition),
        )
        notices.watcher.watch()
        return self

    def is_client(self, pid: int) -> bool | None:
        """Whether the server that holds the slice to its size knows a process; None
        where that is unknown.
        """
        answer: bool | None = self._client.call("listed", lease_id=self.id, pid=pid)[
            "listed"
        ]
        return answer

    def bind(self, root_pid: int) -> LeaseHandle:
        """Charge the use of the process tree below `root_pid` to it."""
        lease = self._granted()
        self.lease = self._client.call(
            "bind", lease_id=self.id, token=lease["token"], root_pid=root_pid
        )
        return self

    def extend(self, duration: str | float) -> LeaseHandle:
        """Move the end of a time-limited lease, e.g. by ``"30min"``; one without an end
        stays as it is.

        Either counts as used now, so that it is not reclaimed for being idle.
        """
        self._granted()
        self.lease = self._client.call(
            "extend", lease_id=self.id, seconds=lease_seconds(duration)
        )
        return self

    def release(self) -> LeaseHandle:
        """Give it back, or leave the queue. Doing so twice is allowed."""
        try:
            if self.is_granted:
                with contextlib.suppress(
                    LeaseLost
                ):  # it ended before we could give it back
                    self.lease = self._client.call("release", lease_id=self.id)
            else:
                self.request = self._client.call(
                    "cancel", request_id=self.request["id"]
                )
        finally:
            self._let_go()
        return self

    def _let_go(self) -> None:
        """Take from this process what `attach` gave it."""
        _attached.pop(self.id, None)
        before = self._before
        self._before = None
        if before is not None:
            attaching.detach(before)

    def drop(self) -> str:
        """Let go of it if it has ended by itself (it expired, or another
        process released it).

        Returns:
            A line for the user; empty when it is still live.
        """
        lease = self.refresh()._granted()
        if lease["state"] in _LIVE:
            return ""
        self._let_go()
        return ended_line(lease)

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
        if not self.is_granted:
            return f"<request {self.spec}: {self.state}, {self.reason}>"
        where = ", ".join(
            f"{format_share(slice_.fraction)} of {slice_.device_id}"
            for slice_ in self.slices
        )
        size = format_bytes(self.memory_bytes)
        return f"<lease {self.id} {self.spec}: {where}, {size}, {self.state}, {self.enforcement}>"


_LIVE = frozenset(
    {LeaseState.GRANTED.value, LeaseState.ACTIVE.value, LeaseState.SUSPENDED.value}
)
_attached: dict[str, LeaseHandle] = {}
_settled: set[str] = set()


def attached() -> LeaseHandle | None:
    """The lease this process asked for and attached to itself; None for none."""
    return next(iter(_attached.values()), None)


def drop_ended(live: Collection[str] = ()) -> list[str]:
    """Let go of attached leases that have ended by themselves; a line for the user
    about each.

    Args:
        live: ids that are known to be live, and need not be asked about.
    """
    lines = [
        held.drop()
        for lease_id, held in list(_attached.items())
        if lease_id not in live
    ]
    return [line for line in lines if line]


def is_new(lease: Mapping[str, Any]) -> bool:
    """Whether a lease of this kernel came from elsewhere (a page, a queue) and is still
    to be attached.

    Not one this process was born with, had attached before, or asked for with
    ``attach=False``.
    """
    is_ours = lease["id"] in attaching.BORN_WITH or lease["request_id"] in _settled
    return lease["state"] == LeaseState.GRANTED.value and not is_ours


def settle(held: LeaseHandle) -> None:
    """Remember that what this request has become, or will become, is not to be attached
    by itself any more.
    """
    _settled.add(held.request["id"])
