"""The client of a notebook, a script or a Dask client: ``request()`` and the lease it
gives.

In a kernel of a Jupyter server every call goes to that server over its Unix socket.
Elsewhere (VS Code, papermill, plain IPython, a script) it goes to the broker of the host,
or where there is none the same verbs run in this process on the same ledger.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from jupyter_aistack.core.model.ceiling import parse_ceiling
from jupyter_aistack.core.model.device import DeviceKind
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import (
    AIStackError,
    InvalidRequest,
    LeaseError,
    ProviderError,
    Refused,
)
from jupyter_aistack.system.interrupts import DeferredInterrupts

from .durations import lease_seconds, patience_seconds
from .lease_guard import check_process, watched_leases
from .lease_handle import LeaseHandle, OnWait
from .notices import watcher
from .process_leases import attached, drop_ended, is_new, place_for, settle
from .runtime.attach import OnCheck, unheard
from .transports import JSON, BrokerTransport, SocketTransport, Transport

__all__ = [
    "Client",
    "LeaseHandle",
    "OnWait",
    "attached",
    "connect",
    "drop_ended",
    "is_new",
    "request",
]


_REFUSALS = (InvalidRequest, Refused, LeaseError, ProviderError)
"""Answers to a request of which nothing is left."""


class Client:
    """The verbs of the granting side as methods; see
    :class:`jupyter_aistack.broker.api.service.Service`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def transport(self) -> str:
        """``socket``, ``broker`` or ``embedded``."""
        return self._transport.kind

    def call(self, verb: str, **payload: Any) -> JSON:
        """The answer to a verb; raises `AIStackError` with a sentence for the user."""
        return self._transport.call(verb, payload)

    def host(self) -> JSON:
        """Devices, queues and problems of the host."""
        return self.call("host")

    def hosts(self) -> JSON:
        """All hosts that share the ledger: what each grants, who holds it and who waits
        there, and when it was last heard of.
        """
        return self.call("hosts")

    def leases(self, *, ended: bool = False) -> list[JSON]:
        """The host's live leases, or with ``ended=True`` all that are remembered."""
        leases: list[JSON] = self.call("leases", all=ended)["leases"]
        return leases

    def queue(self) -> list[JSON]:
        """The waiting requests, first served first."""
        waiting: list[JSON] = self.call("queue")["queue"]
        return waiting

    def usage(self) -> JSON:
        """What is in use now, per lease and per device."""
        return self.call("usage")

    def mine(self) -> JSON:
        """Leases and waiting requests of this kernel (or process), and what its own
        leases need.
        """
        return self.call("mine")

    def reservations(self) -> list[JSON]:
        """What is reserved for which queue, now and later."""
        reservations: list[JSON] = self.call("reservations")["reservations"]
        return reservations

    def cancel(self, request_id: str) -> JSON:
        """Withdraw a waiting request."""
        return self.call("cancel", request_id=request_id)

    def request(
        self,
        spec: str,
        *,
        wait: bool = True,
        timeout: str | float | None = None,
        queue: str = "",
        duration: str | float | None = None,
        preemptible: bool = False,
        up_to: str = "",
        label: str = "",
        holder: Mapping[str, str] | None = None,
        attach: bool = True,
        on_wait: OnWait | None = None,
        on_check: OnCheck = unheard,
    ) -> LeaseHandle:
        """Lease a slice for this process.

        Args:
            spec: what to lease: ``1/4``, ``20GiB``, ``2``, ``1/2x2``, ``1g.18gb``,
                ``cpu:2``, ``gpu:1/4``.
            wait: wait in the queue until it is granted; otherwise return at once,
                granted or not.
            timeout: seconds, or ``"5min"``, to wait at most; 0 does not wait, None
                waits for ever.
            queue: where to wait; empty for your own.
            duration: how long it is wanted, ``"2h"`` or seconds; None for as long as
                this process lives.
            preemptible: it may be ended for others.
            up_to: the share of each device that it may use while nobody else needs
                it, such as ``"1/1"``; empty for what is granted.
            label: what to call the holder, for people.
            holder: ``{"kind": "worker" | "run", "id": ...}`` when it is for a part of
                this process's work.
            attach: give it to this very process (environment, cores, threads) and
                verify that it took.
            on_wait: called with position and reason while it waits; None for a line on
                stderr where it takes longer than a moment.
            on_check: called while it takes long to verify that it took.

        Raises:
            InvalidRequest: spec, ceiling, queue, timeout or duration cannot be
                understood.
            Refused: this host could never hold it, or policy says no.
            AcquireTimeout: not within `timeout`; nothing is left behind.
            LeaseError: this process has a lease attached already, or another of its
                threads is asking for one.
            DeviceInUse: this process has already started CUDA; nothing was changed.
        """
        parsed = parse_spec(spec)
        parse_ceiling(up_to, parsed)
        patience = None if timeout is None else patience_seconds(timeout)
        lasting = None if duration is None else lease_seconds(duration)
        payload = {
            "spec": str(parsed),
            "queue": queue,
            "lease_seconds": lasting,
            "patience_seconds": patience if wait else None,
            "preemptible": preemptible,
            "up_to": up_to,
            "holder": _holder(holder, label),
        }
        if attach:
            check_process(takes_device=parsed.target is not DeviceKind.CPU)
        return self._ask(
            payload, is_attached=attach, wait=wait, on_wait=on_wait, on_check=on_check
        )

    def _ask(
        self,
        payload: JSON,
        *,
        is_attached: bool,
        wait: bool,
        on_wait: OnWait | None,
        on_check: OnCheck,
    ) -> LeaseHandle:
        """Ask, wait and attach; an interrupt in between is raised when nothing is left
        of it.
        """
        handle: LeaseHandle | None = None

        def give_back() -> None:
            # What cannot be released now ends with this process.
            if handle is not None:
                with contextlib.suppress(AIStackError):
                    handle.release()

        place = place_for(payload["spec"]) if is_attached else contextlib.nullcontext()
        try:
            with DeferredInterrupts(undo=give_back), place:
                handle = self._submit(payload)
                if not is_attached:
                    settle(handle.request["id"])
                if wait:
                    handle.wait(payload["patience_seconds"], on_wait=on_wait)
                if is_attached and handle.is_granted:
                    handle.attach_in_place(on_check=on_check)
            return handle
        except KeyboardInterrupt:
            give_back()  # it came when the block was over
            raise

    def _submit(self, payload: JSON) -> LeaseHandle:
        """Ask. What has become of a request whose answer is lost is taken back: nobody
        would know of it.
        """
        key = uuid.uuid4().hex
        try:
            answer = self.call("request", **payload, idempotency_key=key)
            return LeaseHandle(self, answer)
        except _REFUSALS:
            raise
        except BaseException:
            with contextlib.suppress(AIStackError):
                self.call("take_back", idempotency_key=key)
            raise

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()


def _holder(holder: Mapping[str, str] | None, label: str) -> JSON:
    """The holder on the wire; the granting side fills in what it knows itself."""
    given: JSON = dict(holder or {})
    if label:
        given["label"] = label
    return given


_Surroundings = tuple[int, str, str]
"""What decides which way calls go: the process and what its environment says."""
_connected: tuple[_Surroundings, Client] | None = None
_connecting = threading.Lock()


def _renew_lock() -> None:
    """In a process that was just forked: a thread that held the lock is not in it."""
    global _connecting
    _connecting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def connect() -> Client:
    """This process's client: to the Jupyter server it runs under, if any, else to the
    broker of the host, if any, else on the ledger itself.

    Raises:
        LedgerError: the ledger cannot be opened.
        PermissionDenied: another user may have put the broker's socket there.
    """
    global _connected
    # A fork has its own pid: it must not share the connection of its parent.
    surroundings = (
        os.getpid(),
        os.environ.get("AISTACK_SOCKET", ""),
        os.environ.get("AISTACK_BROKER", ""),
    )
    with DeferredInterrupts(), _connecting:
        if _connected is None or _connected[0] != surroundings:
            _connected = (surroundings, Client(_transport(surroundings[1])))
            watcher.ask = own_leases
        return _connected[1]


def _transport(socket_path: str) -> Transport:
    if socket_path:
        return SocketTransport(socket_path)
    from .embedded import EmbeddedTransport, configured_broker

    path = configured_broker()
    return BrokerTransport(path) if path else EmbeddedTransport()


def own_leases() -> list[JSON]:
    """The live leases of this process, its workers and runs, as on the wire."""
    return watched_leases(connect().mine())


P = ParamSpec("P")
R = TypeVar("R")


def _of_own_client(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """A client's method as a function that calls it on this process's own client."""

    @functools.wraps(method)
    def call(*args: P.args, **options: P.kwargs) -> R:
        return method(connect(), *args, **options)

    whole = inspect.signature(method)
    # Without this a notebook's help would show the method's own self.
    vars(call)["__signature__"] = whole.replace(
        parameters=list(whole.parameters.values())[1:]
    )
    return call


request = _of_own_client(Client.request)
