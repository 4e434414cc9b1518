"""What the process of a holder is given, and what it must then find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_aistack.core.model.condition import Conditions, with_condition
from jupyter_aistack.core.model.device import Enforcement

from .device_visibility import Visibilities


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a process must find when it is prepared; None is not checked.

    Attributes:
        visible: UUIDs of the devices that CUDA shows.
        cores: ids of the CPU cores it may run on.
        most_cores: how many CPU cores it may run on, at most.
        threads: ``OMP_NUM_THREADS``.
        memory_total: bytes of device memory it sees, at most.
        memory_free: bytes of device memory it may take, at most.
        multiprocessors: how many it may use, at most.
        mps: True where it must be a client of the MPS server that holds its slice to
            its size.
    """

    visible: tuple[str, ...] | None = None
    cores: tuple[int, ...] | None = None
    most_cores: int | None = None
    threads: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    multiprocessors: int | None = None
    mps: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to check."""
        return self == NOTHING_EXPECTED


NOTHING_EXPECTED = Expectation()


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What the holder's process must be given, and what holds it to that.

    Attributes:
        environment: variables to set; they only take effect before CUDA or OpenMP
            starts.
        cores: CPU cores to bind the process to; empty leaves it alone.
        memory_limit_bytes: memory that belongs to the lease, for caps the process sets
            itself.
        enforced_by: what enforces it.
        expects: what a process with this environment must find.
        conditions: what the user should know of it: why a share is enforced at a lower
            level than shares of its device can be.
        visibility: how the runtimes of its devices are shown them.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    memory_limit_bytes: int = 0
    enforced_by: Enforcement = Enforcement.L0
    expects: Expectation = NOTHING_EXPECTED
    conditions: Conditions = ()
    visibility: Visibilities = ()


def merged(parts: Sequence[Preparation]) -> Preparation:
    """What several providers prepare for one lease, together."""
    if len(parts) == 1:
        return parts[0]
    environment: dict[str, str] = {}
    promised: dict[str, Any] = {}
    conditions: Conditions = ()
    for part in parts:
        environment.update(part.environment)
        promised.update(_promised(part.expects))
        for condition in part.conditions:
            conditions = with_condition(conditions, condition)
    return Preparation(
        environment=environment,
        expects=Expectation(**promised),
        cores=tuple(core for part in parts for core in part.cores),
        memory_limit_bytes=sum(part.memory_limit_bytes for part in parts),
        enforced_by=parts[0].enforced_by,
        conditions=conditions,
        visibility=tuple(each for part in parts for each in part.visibility),
    )


def _promised(expects: Expectation) -> dict[str, Any]:
    return {name: value for name, value in vars(expects).items() if value is not None}
