"""One lease for each kernel and process: who holds what, and the refusal of a second.

A kernel is guarded by what the granting side says (``mine``), which knows leases of
pages and of the launch too. A process is guarded by what it has attached itself, see
:mod:`.process_leases`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jupyter_aistack.exceptions import LeaseError

from .process_leases import drop_ended
from .runtime import attach as attaching
from .text import whole_text

JSON = dict[str, Any]
log = logging.getLogger(__name__)


def own_lease(mine: Mapping[str, Any]) -> JSON | None:
    """The lease of the kernel itself, not of one of its workers; also while its device is
    closed and nothing can be prepared on it.

    Args:
        mine: the answer of the ``mine`` verb.
    """
    leases = mine["leases"]
    prepared = [lease for lease in leases if lease["id"] in mine["prepared"]]
    owner = mine["owner"]
    owned = [lease for lease in leases if _is_owner(lease["holder"], owner)]
    return next(iter(prepared + owned), None)


def waiting_requests(mine: Mapping[str, Any]) -> list[JSON]:
    """The requests of the kernel (or process) itself, from the answer of the ``mine``
    verb.
    """
    owner = mine["owner"]
    return [each for each in mine["requests"] if _is_owner(each["holder"], owner)]


def _is_owner(holder: JSON, owner: str) -> bool:
    """Whether a holder is the kernel or process itself, and not a worker or a run that
    is called like it.
    """
    from jupyter_aistack.core.model.request import HolderKind

    is_part = holder["kind"] in (HolderKind.WORKER.value, HolderKind.RUN.value)
    return holder["id"] == owner and not is_part


def watched_leases(mine: Mapping[str, Any]) -> list[JSON]:
    """The leases whose notices are shown here: a process that this kernel has started
    hears of its own lease itself.

    Args:
        mine: the answer of the ``mine`` verb.
    """
    from jupyter_aistack.core.model.request import HolderKind

    return [
        lease
        for lease in mine["leases"]
        if lease["holder"]["kind"] != HolderKind.PROCESS.value
        or _is_owner(lease["holder"], mine["owner"])
    ]


def check_kernel(
    mine: Mapping[str, Any], spec: str, ceiling: Fraction | None
) -> JSON | None:
    """The lease this kernel has already, if it is what is asked for; else None.

    Args:
        mine: the answer of the ``mine`` verb.
        spec: what is asked for, in its canonical form.
        ceiling: the share it may use while nobody else needs it; None for any.

    Raises:
        LeaseError: it holds another lease, or waits for a lease.
    """
    own = own_lease(mine)
    if own is not None:
        up_to = None if ceiling is None else str(ceiling)
        has_ceiling = up_to is None or own["up_to"] == up_to
        if own["spec"] != spec or not has_ceiling:
            held = _size_text(own["spec"], own["up_to"])
            raise LeaseError(
                f"this kernel already holds {held} ({own['id']}); "
                f"%gpu release it to ask for {_size_text(spec, up_to)}"
            )
        return own

    waiting = waiting_requests(mine)
    if waiting:
        raise LeaseError(
            f"this kernel already waits for {waiting[0]['spec']}; %gpu release leaves the queue"
        )
    return None


def _size_text(spec: str, up_to: str | None) -> str:
    """What is held or asked for: ``1/4``, or ``1/4 up to 1/1``."""
    return spec if up_to is None else f"{spec} up to {whole_text(up_to)}"


def check_process(*, takes_device: bool) -> None:
    """Drop what this process has attached and what has ended, and raise when it can
    attach no lease any more.

    Args:
        takes_device: a GPU may come with it.

    Raises:
        DeviceInUse: CUDA or ROCm has started and fixed the devices for good.
    """
    for line in drop_ended():
        log.warning(line)
    if takes_device:
        attaching.check_untouched()
