"""What the granting side answers, put together from records, and checks of what users
send.

Times are seconds since the epoch, sizes are bytes, shares are text such as ``"1/4"``.
What users send is checked field by field (``*_field``) and named in `InvalidRequest`;
what the other side of a wire sends is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.model.device import Device, Inventory
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import Queue
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.roles import Standing
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import free_share
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.exceptions import InvalidRequest

from .fields import JSON
from .records import DEVICE, QUEUE, REQUEST, RESERVATION, SUSPEND_CAPABILITY

END_OF_TIME = 1e11
"""In seconds since the epoch; no reservation is beyond the year 5000."""


def request_to_dict(
    request: Request, position: int | None = None, eta_at: float | None = None
) -> JSON:
    """A request, with its place in the queue and the time it is expected to be granted
    where those are known.
    """
    return {**REQUEST.to_dict(request), "position": position, "eta_at": eta_at}


def device_to_dict(device: Device, free: Fraction, host_name: str) -> JSON:
    """A device, what its host is called, and the share of it that is free."""
    shown = {"host": host_name, "free_fraction": str(free)}
    return {**DEVICE.to_dict(device), **shown}


def queue_to_dict(queue: Queue, held: Fraction = Fraction(0)) -> JSON:
    """A queue, and the device equivalents its leases hold."""
    return {**QUEUE.to_dict(queue), "held": str(held)}


def reservation_to_dict(reservation: Reservation, now: float) -> JSON:
    """A reservation, and its window that runs at `now` or else comes next."""
    window = reservation.window(now)
    first = (reservation.starts_at, reservation.ends_at)
    starts_at, ends_at = window or first
    return {
        **RESERVATION.to_dict(reservation),
        "next_starts_at": starts_at,
        "next_ends_at": ends_at,
        "is_running": reservation.is_running(now),
    }


def host_to_dict(
    inventory: Inventory,
    leases: Iterable[Lease],
    queues: Iterable[Queue],
    *,
    reservations: Iterable[Reservation] = (),
    strays: Iterable[JSON] = (),
    problems: Sequence[str] = (),
    capability: SuspendCapability | None = None,
    standing: Standing | None = None,
    now: float = 0.0,
    other_hosts: int = 0,
) -> JSON:
    """The host.

    Args:
        strays: who uses devices without a lease, as the asker may see it.
        problems: what is added to the problems of its providers.
        capability: how well it can suspend its kernels.
        standing: what who asks is here.
        now: tells which reservations run.
        other_hosts: how many hosts share its ledger.
    """
    live = [lease for lease in leases if lease.is_live]
    taken = [slice_ for lease in live for slice_ in lease.occupied]
    held = _held_by_queue(live)
    standing = standing or Standing()
    return {
        "host": inventory.name_of(inventory.host),
        "simulated": inventory.is_simulated,
        "problems": [*inventory.problems, *problems],
        "suspend": SUSPEND_CAPABILITY.to_dict(capability or SuspendCapability()),
        "roles": [role.value for role in standing.roles],
        "manages": sorted(standing.queues),
        "devices": [
            device_to_dict(
                device, free_share(device, taken), inventory.name_of(device.host)
            )
            for device in inventory.devices
        ],
        "queues": [
            queue_to_dict(queue, held.get(queue.name, Fraction(0))) for queue in queues
        ],
        "reservations": [
            reservation_to_dict(reservation, now) for reservation in reservations
        ],
        "strays": list(strays),
        "other_hosts": other_hosts,
    }


def _held_by_queue(leases: Iterable[Lease]) -> dict[str, Fraction]:
    held: dict[str, Fraction] = {}
    for lease in leases:
        before = held.get(lease.queue, Fraction(0))
        held[lease.queue] = before + equivalents(lease.occupied)
    return held


def text_field(
    payload: Mapping[str, Any], name: str, default: str | None = None
) -> str:
    """The text under `name`; raises `InvalidRequest` when it is missing (without a
    default) or not text.
    """
    value = payload.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise InvalidRequest(f"{name}: expected text, got {value!r}", field=name)
    return value


def number_field(
    payload: Mapping[str, Any],
    name: str,
    *,
    least: float = 0.0,
    most: float = 366 * 86400.0,
) -> float | None:
    """The number under `name`, or None when absent; raises `InvalidRequest` when it is
    not in [least, most].
    """
    value = payload.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= most
    ):
        raise InvalidRequest(
            f"{name}: expected a number between {least:g} and {most:g}, got {value!r}",
            field=name,
        )
    return float(value)


def integer_field(
    payload: Mapping[str, Any], name: str, *, least: int = 0, most: int = 2**53
) -> int:
    """The integer under `name`; raises `InvalidRequest` when it is missing or out of
    range.
    """
    value = payload.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not least <= value <= most
    ):
        raise InvalidRequest(
            f"{name}: expected a whole number between {least} and {most}, got {value!r}",
            field=name,
        )
    return value


def moment_field(payload: Mapping[str, Any], name: str) -> float:
    """The time under `name`, in seconds since the epoch; raises `InvalidRequest` when
    it is missing or no time.
    """
    value = number_field(payload, name, most=END_OF_TIME)
    if value is None:
        raise InvalidRequest(
            f"{name}: say when, in seconds since the epoch", field=name
        )
    return value


def flag_field(payload: Mapping[str, Any], name: str) -> bool:
    """The boolean under `name`, False when absent; raises `InvalidRequest` when it is
    anything else.
    """
    value = payload.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(
            f"{name}: expected true or false, got {value!r}", field=name
        )
    return value
