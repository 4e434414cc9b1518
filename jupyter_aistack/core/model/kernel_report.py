"""What a Jupyter server tells the broker of its kernels: the server alone knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Rename:
    """What people call a notebook now, and what they have called it before, since its
    kernel was started.

    Attributes:
        former: its paths of before.
        label: its path of now.
    """

    former: frozenset[str]
    label: str


@dataclass(frozen=True, kw_only=True)
class KernelReport:
    """The kernels of one Jupyter server, since its report before.

    Attributes:
        running: its kernels: their leases are observed.
        busy: those of them in which something ran.
        gone: those that have ended, and will not be started again.
        renames: those whose notebooks are called otherwise now, by kernel id.
    """

    running: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    renames: Mapping[str, Rename] = field(default_factory=dict)
