"""What a notebook, a script or a Dask client holds in its hand: ``request()`` and the lease it gives.

In a kernel of a Jupyter server every call goes to that server over its Unix socket. Elsewhere (VS Code, papermill,
plain IPython, a script) the same verbs run in this process on the same ledger.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from . import attach as attaching
from .core.device import DeviceKind, Slice, SliceKind
from .core.lease import LeaseState
from .core.request import RequestState, parse_spec
from .core.units import format_bytes
from .exceptions import AcquireTimeout, AIStackError, LeaseError, LeaseLost, Refused
from .periods import lease_seconds, patience_seconds
from .transports import JSON, EmbeddedTransport, SocketTransport, Transport
from .wire import Preparation, lease_from_dict, preparation_from_dict

log = logging.getLogger(__name__)

FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.1, 1.0
OUT_OF_PATIENCE = "it was not to wait any longer"
"""How the reason ends when the other side turned a request down because its time to wait was up."""

OnWait = Callable[[int | None, str], None]
"""Told about a waiting request, with its position and the reason, each time one of them changes."""


class Client:
    """The verbs of the granting side as methods; see :class:`jupyter_aistack.service.Service`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def transport(self) -> str:
        """``socket`` or ``embedded``."""
        return self._transport.kind

    def call(self, verb: str, **payload: Any) -> JSON:
        """One verb; raises `AIStackError` with a sentence for the user."""
        return self._transport.call(verb, payload)

    def host(self) -> JSON:
        """Devices, queues and problems of the host."""
        return self.call("host")

    def leases(self, *, ended: bool = False) -> list[JSON]:
        """The host's live leases, or with ``ended=True`` all that are remembered."""
        found: list[JSON] = self.call("leases", all=ended)["leases"]
        return found

    def queue(self) -> list[JSON]:
        """The waiting requests, first served first."""
        waiting: list[JSON] = self.call("queue")["queue"]
        return waiting

    def usage(self) -> JSON:
        """What is in use now, per lease and per device."""
        return self.call("usage")

    def mine(self) -> JSON:
        """Leases and waiting requests of this kernel (or process), and what its own leases need."""
        return self.call("mine")

    def cancel(self, request_id: str) -> JSON:
        """Take a waiting request back."""
        return self.call("cancel", request_id=request_id)

    def request(
        self,
        spec: str,
        *,
        wait: bool = True,
        timeout: str | float | None = None,
        queue: str = "default",
        duration: str | float | None = None,
        preemptible: bool = False,
        label: str = "",
        holder: Mapping[str, str] | None = None,
        attach: bool = True,
        on_wait: OnWait | None = None,
    ) -> HeldLease:
        """Lease a slice for this process.

        Args:
            spec: what to lease: ``1/4``, ``20GiB``, ``2``, ``1/2x2``, ``1g.18gb``, ``cpu:2``, ``gpu:1/4``.
            wait: stand in the queue until it is granted; otherwise return at once, granted or not.
            timeout: seconds, or ``"5min"``, to wait at most; 0 does not wait, None waits for ever.
            queue: where to wait.
            duration: how long it is wanted, ``"2h"`` or seconds; None for as long as this process lives.
            preemptible: it may be ended for others.
            label: what to call the holder, for people.
            holder: ``{"kind": "worker" | "run", "id": ...}`` when it is for a part of this process's work.
            attach: give it to this very process (environment, cores, threads) and verify that it took.
            on_wait: called with position and reason while it waits.

        Raises:
            InvalidRequest: spec, queue, timeout or duration cannot be understood.
            Refused: this host could never hold it, or policy says no.
            AcquireTimeout: not within `timeout`; nothing is left behind.
            LeaseError: this process has one attached already.
            DeviceTouched: this process has already started CUDA; nothing was changed.
        """
        parsed = parse_spec(spec)
        patience = None if timeout is None else patience_seconds(timeout)
        lasting = None if duration is None else lease_seconds(duration)
        if attach:
            self._check_free(parsed.target, str(parsed))
        answer = self.call(
            "request",
            spec=str(parsed),
            queue=queue,
            lease_seconds=lasting,
            patience_seconds=patience if wait else None,
            preemptible=preemptible,
            holder={**(holder or {}), **({"label": label} if label else {})},
        )
        held = HeldLease(self, answer)
        if not attach:
            _settled.add(held.request["id"])
        if wait:
            held.wait(patience, on_wait=on_wait)
        if attach and held.is_granted:
            held.attach()
        return held

    def _check_free(self, target: DeviceKind | None, spec: str) -> None:
        """Raise when this process cannot take another lease; one that has ended does not stand in the way."""
        for lost in drop_ended():
            log.warning(lost)
        if target is not DeviceKind.CPU:
            attaching.check_untouched()
        if (held := attached()) is not None:
            raise LeaseError(f"this process already holds {held.spec} ({held.id}); release it to ask for {spec}")

    def close(self) -> None:
        """Let go of the transport."""
        self._transport.close()


class HeldLease:
    """A lease in the hand, or the place in the queue that will become one.

    Use it as a context manager: it is released at the end.
    """

    def __init__(self, client: Client, answer: Mapping[str, Any]) -> None:
        self._client = client
        self._before: attaching.Before | None = None
        self._take(answer)

    def _take(self, answer: Mapping[str, Any]) -> None:
        self.request: JSON = dict(answer["request"])
        self.lease: JSON | None = answer["lease"]
        self.prepared = preparation_from_dict(answer["prepared"]) if answer["prepared"] else Preparation()

    # -- what it is ---------------------------------------------------------------------------------------------

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
        return lease_from_dict(self.lease).slices if self.lease else ()

    @property
    def memory_bytes(self) -> int:
        """Memory that belongs to it, over all its slices."""
        return sum(piece.memory_bytes for piece in self.slices)

    @property
    def enforced_by(self) -> str:
        """The level that holds it to its size: L4 to L0, ``whole``, ``C`` or ``simulated``; empty while it waits."""
        return str(self.lease["enforced_by"] or "") if self.lease else ""

    @property
    def enforcement(self) -> str:
        """`enforced_by` in words."""
        return str(self.lease["enforcement"]) if self.lease else ""

    @property
    def verified(self) -> bool | None:
        return self.lease["verified"] if self.lease else None

    @property
    def note(self) -> str:
        """What the user should know, e.g. ``not enforced: ...``."""
        return str((self.lease or {}).get("note") or self.request.get("reason") or "")

    # -- what can be done with it -------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None, *, on_wait: OnWait | None = None) -> HeldLease:
        """Wait until it is granted.

        Raises:
            AcquireTimeout: not within `timeout` seconds; the request has been taken back.
            Refused: it was turned down or taken back meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, told = FIRST_POLL_SECONDS, ("", None)
        try:
            while not self.is_granted:
                self._check_waiting(deadline)
                if on_wait and told != (self.note, self.request.get("position")):
                    told = (self.note, self.request.get("position"))
                    on_wait(self.request.get("position"), self.note)
                time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))
                pause = min(LAST_POLL_SECONDS, pause * 1.5)
                self.refresh()
        except BaseException:
            self._take_back()
            raise
        return self

    def _check_waiting(self, deadline: float | None) -> None:
        late = deadline is not None and time.monotonic() >= deadline
        if self.request["state"] == RequestState.QUEUED.value and not late:
            return
        if self.request["state"] == RequestState.CANCELLED.value:
            raise Refused(f"the request for {self.spec} was taken back")
        if self.request["state"] == RequestState.REJECTED.value and not self.note.endswith(OUT_OF_PATIENCE):
            raise Refused(f"the request for {self.spec} was turned down: {self.note}")
        raise AcquireTimeout(f"no slice came free in time for {self.spec}: {self.note}", request_id=self.request["id"])

    def _take_back(self) -> None:
        with contextlib.suppress(AIStackError):
            if not self.is_granted:
                self.refresh()  # it may have been granted just now
            if self.is_granted:
                self.release()
            else:
                self._client.cancel(self.request["id"])

    def refresh(self) -> HeldLease:
        """Read it anew."""
        self._take(self._client.call("wait_for", request_id=self.request["id"]))
        return self

    def attach(self) -> HeldLease:
        """Give this process what the lease says, check that it took, and say so in the ledger.

        When that fails this process is as it was before, and the lease is given back, unless this process was born
        with it.
        """
        lease = self._granted()
        _settled.add(self.request["id"])
        try:
            self._before = attaching.attach(self.prepared)
            _attached[self.id] = self
            verified, note = attaching.verify(self.prepared.expects)
            self.activate(verified=verified, note=note)
        except BaseException:
            self._let_go()
            if lease["id"] not in attaching.BORN_WITH:
                with contextlib.suppress(AIStackError):  # the reaper ends what cannot be given back now
                    self.release()
            raise
        return self

    def activate(self, *, verified: bool | None, note: str = "") -> HeldLease:
        """Say that a holder elsewhere (a worker) uses it, and whether it found what was promised."""
        lease = self._granted()
        self.lease = self._client.call("activate", lease_id=self.id, token=lease["token"], verified=verified, note=note)
        return self

    def bind(self, root_pid: int) -> HeldLease:
        """Charge the use of the process tree below `root_pid` to it."""
        lease = self._granted()
        self.lease = self._client.call("bind", lease_id=self.id, token=lease["token"], root_pid=root_pid)
        return self

    def extend(self, duration: str | float) -> HeldLease:
        """Move the end of a time-limited lease, e.g. by ``"30min"``; one without an end stays as it is."""
        self._granted()
        self.lease = self._client.call("extend", lease_id=self.id, seconds=lease_seconds(duration))
        return self

    def release(self) -> HeldLease:
        """Give it back, or leave the queue. Doing so twice is allowed."""
        try:
            if self.is_granted:
                with contextlib.suppress(LeaseLost):  # it ended before we could give it back
                    self.lease = self._client.call("release", lease_id=self.id)
            else:
                self.request = self._client.cancel(self.request["id"])
        finally:
            self._let_go()
        return self

    def _let_go(self) -> None:
        """Take from this process what `attach` gave it."""
        _attached.pop(self.id, None)
        before, self._before = self._before, None
        if before is not None:
            attaching.detach(before)

    def drop(self) -> str:
        """Let go of it if it has ended by itself (its time was up, somebody released it).

        Returns:
            One line for the user; nothing when it is still live.
        """
        lease = self.refresh()._granted()
        if lease["state"] in _LIVE:
            return ""
        self._let_go()
        what = f"the lease {self.id} has ended: {lease['outcome'] or LeaseState.RELEASING.value}"
        has_device = any(piece.kind is not SliceKind.CPU for piece in self.slices)
        if has_device and attaching.cuda_started():
            return f"{what}; CUDA still holds its device in this kernel: restart it"
        return f"{what}; this kernel runs without a device now"

    def _granted(self) -> JSON:
        if self.lease is None:
            raise LeaseError(f"{self.spec} is not granted yet: {self.note}")
        return self.lease

    def __enter__(self) -> HeldLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        if not self.is_granted:
            return f"<request {self.spec}: {self.state}, {self.note}>"
        where = ", ".join(f"{piece.fraction} of {piece.device_id}" for piece in self.slices)
        size = format_bytes(self.memory_bytes)
        return f"<lease {self.id} {self.spec}: {where}, {size}, {self.state}, {self.enforcement}>"


_LIVE = frozenset({LeaseState.GRANTED.value, LeaseState.ACTIVE.value, LeaseState.SUSPENDED.value})
_attached: dict[str, HeldLease] = {}
_settled: set[str] = set()
_connected: tuple[int, str, Client] | None = None
_connecting = threading.Lock()


def attached() -> HeldLease | None:
    """The lease this process asked for and attached to itself, if it still has one."""
    return next(iter(_attached.values()), None)


def drop_ended(live: Collection[str] = ()) -> list[str]:
    """Let go of attached leases that have ended by themselves; one line for the user about each.

    Args:
        live: ids that are known to be live, so that nobody need be asked about them.
    """
    lines = [held.drop() for lease_id, held in list(_attached.items()) if lease_id not in live]
    return [line for line in lines if line]


def is_new(lease: Mapping[str, Any]) -> bool:
    """Whether a lease of this kernel came from elsewhere (a page, a queue) and is still to be attached.

    Not one this process was born with, had attached before, or asked for with ``attach=False``.
    """
    is_ours = lease["id"] in attaching.BORN_WITH or lease["request_id"] in _settled
    return lease["state"] == LeaseState.GRANTED.value and not is_ours


def connect() -> Client:
    """This process's client: to its Jupyter server when it is a kernel of one, else on the ledger itself.

    Raises:
        LedgerError: the ledger cannot be opened.
    """
    global _connected
    key = (os.getpid(), os.environ.get("AISTACK_SOCKET", ""))
    with _connecting:
        if _connected is None or _connected[:2] != key:
            transport = SocketTransport(key[1]) if key[1] else EmbeddedTransport()
            _connected = (*key, Client(transport))
        return _connected[2]


P = ParamSpec("P")
R = TypeVar("R")


def _of_own_client(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """A client's method as a function that calls it on this process's own client."""

    @functools.wraps(method)
    def call(*args: P.args, **options: P.kwargs) -> R:
        return method(connect(), *args, **options)

    whole = inspect.signature(method)
    # Without this a notebook's help would show the method's own self.
    vars(call)["__signature__"] = whole.replace(parameters=list(whole.parameters.values())[1:])
    return call


request = _of_own_client(Client.request)
