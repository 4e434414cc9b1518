"""Memory caps for the frameworks that read none from the environment: torch and RMM.

A framework that is not imported yet is waited for. Nothing here imports one or starts CUDA by itself.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

TORCH_VARIABLE = "AISTACK_MEMORY_FRACTION"
RMM_VARIABLE = "AISTACK_RMM_MAXIMUM_POOL_SIZE"


def cap_memory(environment: Mapping[str, str]) -> None:
    """Hold torch and RMM to what `environment` says of them; where it says nothing, lift what was set before."""
    devices = len(environment.get("CUDA_VISIBLE_DEVICES", "").split(","))
    cap_torch_memory(environment.get(TORCH_VARIABLE))
    cap_rmm_memory(environment.get(RMM_VARIABLE), devices)


def cap_torch_memory(fraction: str | None) -> None:
    """Let torch take at most `fraction` of each device's memory; None lifts that."""
    _cap("torch", (lambda torch: _cap_torch(torch, float(fraction))) if fraction else None)


def cap_rmm_memory(limit_bytes: str | None, devices: int = 1) -> None:
    """Let RMM allocate at most `limit_bytes` on each of so many visible devices; None lifts that."""
    _cap("rmm", (lambda rmm: _cap_rmm(rmm, int(limit_bytes), devices)) if limit_bytes else None)


Put = Callable[[ModuleType], None]
_awaited: dict[str, Put] = {}
_capped: set[str] = set()


def _cap(name: str, put: Put | None) -> None:
    """Apply `put` to a module now or once it is imported; None takes back what was applied or awaited."""
    module = sys.modules.get(name)
    _awaited.pop(name, None)
    if module is None and put is not None:
        _awaited[name] = put
    elif module is not None and put is not None:
        _try(name, module, put)
    elif module is not None and name in _capped:
        _try(name, module, _LIFT[name])
        _capped.discard(name)
    _attend()


def _attend() -> None:
    """Watch imports exactly as long as one is awaited."""
    if _awaited and _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)
    elif not _awaited and _watch in sys.meta_path:
        sys.meta_path.remove(_watch)


def _try(name: str, module: ModuleType, put: Put) -> None:
    try:
        put(module)
        _capped.add(name)
    except Exception as error:  # a version that works another way; the user's import must not fail for it
        log.warning("the memory %s may take was not changed: %s", name, error)


# -- the frameworks ----------------------------------------------------------------------------------------------------


def _cap_torch(torch: Any, share: float) -> None:
    def cap_each() -> None:
        for index in range(torch.cuda.device_count()):
            torch.cuda.set_per_process_memory_fraction(share, index)

    torch.cuda._lazy_call(cap_each)  # at once when CUDA runs in torch, else when it starts; asking would start it


_rmm_before: dict[int, Any] = {}


def _cap_rmm(rmm: Any, limit_bytes: int, devices: int) -> None:
    _lift_rmm(rmm)
    for index in range(devices):
        before = rmm.mr.get_per_device_resource(index)
        limited = rmm.mr.LimitingResourceAdaptor(before, allocation_limit=limit_bytes)
        rmm.mr.set_per_device_resource(index, limited)
        _rmm_before[index] = before


def _lift_rmm(rmm: Any) -> None:
    while _rmm_before:
        rmm.mr.set_per_device_resource(*_rmm_before.popitem())


_LIFT: dict[str, Put] = {"torch": lambda torch: _cap_torch(torch, 1.0), "rmm": _lift_rmm}


# -- waiting for an import ---------------------------------------------------------------------------------------------


class _Watch(importlib.abc.MetaPathFinder):
    """Lets the other finders find what is awaited, and caps it right after it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _awaited:
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _follow(spec.loader, fullname)
        return spec


_watch = _Watch()


def _follow(loader: Any, name: str) -> None:
    run = loader.exec_module

    def run_and_cap(module: ModuleType) -> None:
        run(module)
        put = _awaited.pop(module.__name__, None) if module.__name__ == name else None
        if put is not None:
            _try(name, module, put)
            _attend()

    with contextlib.suppress(AttributeError):  # a loader of another make: the import goes on uncapped
        loader.exec_module = run_and_cap
