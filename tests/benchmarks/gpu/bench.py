"""What the sections of the GPU suite share: rows, a deadline, brokers and leases as
users get them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.config import AIStack
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, DeviceKind, Enforcement
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.system.memory import available_bytes, total_bytes

STRICT = "strict"
DRY_SECONDS = 4.0
_numbers = count(1)


class WorkFailed(Exception):
    """A tenant could not do what it was told; says why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: what it is, the unit in it.
        value: the figure; None where there is none.
        says: why there is none, or what must be known beside it.
        is_ratio: it compares with a peer of the same run.
        least, most: the goal, where there is one; a goal missed is marked, and fails
            nothing.
    """

    name: str
    value: float | None = None
    says: str = ""
    is_ratio: bool = False
    least: float | None = None
    most: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def verdict(self) -> str:
        """Whether the goal is met; empty without a goal or a figure."""
        if self.value is None or (self.least is None and self.most is None):
            return ""
        low, high = self.least, self.most
        is_met = (low is None or self.value >= low) and (
            high is None or self.value <= high
        )
        bounds = [
            f"{bound:g} or {word}"
            for bound, word in ((low, "more"), (high, "less"))
            if bound is not None
        ]
        return f"goal {', '.join(bounds)}: {'met' if is_met else 'MISSED'}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a section is run with.

    Attributes:
        device: ``cuda``, or ``cpu`` for a dry run.
        small: little of everything.
        ends_at: when it must be done, on the monotonic clock.
        folder: where it may leave files.
        host_bytes: memory of the host by whoever knows it: that of some machines grows
            as it is used. None for what is available now.
    """

    device: str
    small: bool
    ends_at: float
    folder: Path
    host_bytes: int | None = None

    @property
    def host_room(self) -> int:
        """Bytes of the host's memory that may be counted on."""
        known = self.host_bytes or 0
        in_use = total_bytes() - available_bytes()
        return max(available_bytes(), known - in_use)

    @property
    def left(self) -> float:
        """Seconds until it must be done."""
        return self.ends_at - time.monotonic()

    def pick(self, full: Any, small: Any) -> Any:
        """The one of the two that this run takes."""
        return small if self.small else full

    def affords(self, seconds: float) -> bool:
        """Whether something that takes so long on a GPU can still be done. In a dry run
        it is done as long as there is any time: there is little of everything.
        """
        return self.left > (DRY_SECONDS if self.device == "cpu" else seconds)


def modes() -> Iterator[tuple[str, dict[str, Any]]]:
    """The ways to hold shares that can be asked for: the firmest this host reaches,
    good will alone, a daemon each.
    """
    known = AIStack.class_trait_names()
    yield "auto", {}
    if "enforcement" in known:
        yield "advisory", {"enforcement": "advisory"}
    if "mps_strict" in known:
        yield STRICT, {"mps_strict": True}


def by_mode(
    measure: Callable[[str, dict[str, Any]], Iterator[Row]],
) -> Iterator[Row]:
    """The rows of the firmest way that can be had: where a lease is refused, or what it
    gives cannot be used, that is said, and the next way is measured.
    """
    for name, settings in modes():
        try:
            yield from measure(name, settings)
        except (AIStackError, WorkFailed) as error:
            yield Row(name=f"{name}.failed", says=f"failed: {error}")
            continue
        return


def level_of(prepared: Preparation, mode: str) -> str:
    """The level that holds a lease, and that it has a daemon of its own where that
    makes a difference.
    """
    level = prepared.enforced_by.value
    return (
        f"{level}-{STRICT}"
        if mode == STRICT and prepared.enforced_by is Enforcement.L1
        else level
    )


def is_held(level: str) -> bool:
    """Whether the driver or the hardware holds a lease of that level."""
    return level.partition("-")[0] in {"L1", "L2", "L3", "L4"}


@contextmanager
def broker(**settings: Any) -> Iterator[Broker]:
    """A broker of this host's GPUs with these settings; whatever was leased is given
    back at the end.
    """
    made = AIStack(providers="gpu", lease_ttl_seconds=3600.0, **settings).build_broker()
    try:
        yield made
    finally:
        for lease in made.leases():
            made.release(lease.id, lease.token)
        made.close()


def gpus(made: Broker) -> list[Device]:
    """The GPUs that can be shared, healthy ones only."""
    result = made.inventory().of_kind(DeviceKind.GPU)
    return [device for device in result if device.is_healthy and device.is_shareable]


def used_bytes(device: str) -> int | None:
    """Memory in use on all GPUs together, whoever uses it; None where it cannot be
    known, and on the CPU.
    """
    if device == "cpu":
        return None
    provider = GPUProvider()
    try:
        devices = {device.id: device for device in provider.discover("here")}
        result = provider.sample(devices, {}, {}).values()
    finally:
        provider.close()
    held = [use.memory_bytes for use in result]
    return (
        None if None in held else sum(bytes_ for bytes_ in held if bytes_ is not None)
    )


def holder(host: str) -> Holder:
    """This process under a name of its own, so that each lease is another's."""
    label = f"gpu-suite-{os.getpid()}-{next(_numbers)}"
    return Holder(
        kind=HolderKind.PROCESS,
        id=label,
        user="gpu-suite",
        host=host,
        pid=os.getpid(),
        label=label,
    )


@contextmanager
def leased(made: Broker, spec: str) -> Iterator[tuple[Lease, Preparation]]:
    """A lease of this process, prepared as for a kernel.

    Raises:
        AIStackError: it cannot be had at once.
    """
    request = made.submit(spec, holder(made.host), patience_seconds=0)
    lease = made.lease(request.lease_id)
    try:
        prepared = made.prepare(lease)
        yield made.lease(lease.id), prepared
    finally:
        made.release(lease.id, lease.token)


def environment(prepared: Preparation | None = None) -> dict[str, str]:
    """What a process gets: ours, and what its lease gives it. Without a lease, none of
    a lease's leavings.
    """
    ours = {
        name: value for name, value in os.environ.items() if name not in _OF_A_LEASE
    }
    return ours if prepared is None else {**ours, **prepared.environment}


_OF_A_LEASE = {
    "CUDA_VISIBLE_DEVICES",
    "AISTACK_MEMORY_FRACTION",
    "AISTACK_LEASE",
    "CUDA_MPS_PIPE_DIRECTORY",
}


def by_name(rows: Sequence[Row]) -> Mapping[str, Row]:
    """Rows by their names."""
    return {row.name: row for row in rows}
