"""The GPU runtimes of this process: which there are, and whether any has started.

No vendor is known by name here: each installed provider says how its devices are
shown, by an entry point of the group ``jupyter_aistack.visibility``.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    RuntimeProbe,
    Visibilities,
    hidden_environment,
)

GROUP = "jupyter_aistack.visibility"


@functools.cache
def installed_visibilities() -> Visibilities:
    """How the devices of the installed providers are shown to a process. An entry
    point that cannot be loaded is left out: its provider says why where leases are
    granted.
    """
    visibilities = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            visibility = entry.load()
        except Exception:
            continue
        if isinstance(visibility, DeviceVisibility):
            visibilities.append(visibility)
    return tuple(visibilities)


def blindly_hidden_environment() -> dict[str, str]:
    """Variables that hide the GPUs of a host about which nothing is known."""
    known = installed_visibilities()
    return hidden_environment(each for each in known if each.is_safe_to_hide)


def started_runtime(visibilities: Iterable[DeviceVisibility] = ()) -> str:
    """The name of a runtime that this process has started, and so chosen its devices
    for good; empty for none.

    Args:
        visibilities: asked beside those of the installed providers.
    """
    for visibility in (*installed_visibilities(), *visibilities):
        runtime = visibility.runtime
        if runtime is not None and has_started(runtime):
            return runtime.name
    return ""


def has_started(runtime: RuntimeProbe) -> bool:
    """Whether this process has started a runtime, whichever library did so."""
    if not _is_mapped(runtime.library):
        return False
    try:
        function = getattr(ctypes.CDLL(runtime.library), runtime.function)
    except (OSError, AttributeError):
        return False
    arguments: list[Any] = [
        ctypes.byref(ctypes.c_int64()) if argument is None else argument
        for argument in runtime.arguments
    ]
    return bool(function(*arguments) != runtime.not_started)


def _is_mapped(library: str) -> bool:
    # Only a library that is there already: loading it here would cost memory and time.
    stem = library.partition(".so")[0] + ".so"
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return any(stem in line for line in maps)
    except OSError:
        return False
