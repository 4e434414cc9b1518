"""A host broker that is killed at a point of its work, as by SIGKILL: ``python -m
tests.fakes.dying_broker FOLDER`` and what follows is for ``jupyter aistack``.

It dies at the point that the file ``die`` in FOLDER names, ``before`` or ``after`` it;
the file is taken away first, so that the next broker lives.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.devices import DeviceManager
from jupyter_aistack.broker.host_state import HostState
from jupyter_aistack.broker.leases import Leases
from jupyter_aistack.broker.maintenance import Maintenance
from jupyter_aistack.broker.requests import Requests
from jupyter_aistack.broker.suspend_support import SuspendSupport
from jupyter_aistack.broker.suspension import Suspension
from jupyter_aistack.cli import main
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.suspend import build

POINTS: dict[str, tuple[type, str]] = {
    "submitting": (Requests, "submit"),
    "preparing": (DeviceManager, "prepare"),
    "activating": (Leases, "activate"),
    "releasing": (DeviceManager, "unprepare"),
    "moving": (Suspension, "request_action"),
}
"""What the broker does in each phase of a lease."""
FILE = "die"
CLOCK_FILE = "clock"
TURNS_FILE = "turns"


def dying(folder: Path, point: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that kills its process when it is told to."""

    def die_if_told(moment: str) -> None:
        file = folder / FILE
        if file.exists() and file.read_text() == f"{moment} {point}":
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        die_if_told("before")
        result = method(*args, **kwargs)
        die_if_told("after")
        return result

    return wrapped


def checked(now: float) -> DeviceState:
    """As if a Jupyter server had found that the kernel can be suspended."""
    return DeviceState(active_at=now - 60.0, is_checked=True, state_bytes=GIB)


def jumping(
    folder: Path, now: Callable[[HostState], float]
) -> Callable[[HostState], float]:
    """The host's clock, set ahead by as many seconds as the file ``clock`` says."""

    def jumped(state: HostState) -> float:
        file = folder / CLOCK_FILE
        ahead = float(file.read_text()) if file.exists() else 0.0
        return now(state) + ahead

    return jumped


def counted(folder: Path, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method after which the file ``turns`` is a byte longer."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        with (folder / TURNS_FILE).open("ab") as file:
            file.write(b".")
        return result

    return wrapped


def install(folder: Path) -> None:
    """Have every broker of this process die at its points, and have leases moved, as
    those of Jupyter servers without a host broker are.
    """
    for point, (owner, name) in POINTS.items():
        setattr(owner, name, dying(folder, point, getattr(owner, name)))
    build.unchecked = checked
    HostState.now = jumping(folder, HostState.now)  # type: ignore[method-assign]
    Maintenance.maintain = counted(folder, Maintenance.maintain)  # type: ignore[method-assign]
    policy = SuspendPolicy(warm_seconds=1.0)
    SuspendSupport.policy_in_force = lambda _self: policy  # type: ignore[method-assign]


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
