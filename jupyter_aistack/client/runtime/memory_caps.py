"""Memory caps for the frameworks that read none from the environment: torch,
TensorFlow, RMM and vLLM.

A framework that is not imported yet is waited for. Nothing here imports a framework or
starts CUDA by itself. Where a program has set a lower cap of its own, that cap stands.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import shown_count
from jupyter_aistack.core.enforcement.memory_caps import (
    RMM_BYTES,
    SHARE,
    TENSORFLOW_MIB,
)
from jupyter_aistack.system.runtimes import installed_visibilities

from . import frameworks
from .frameworks import TENSORFLOW, VLLM, Put


def cap_memory(environment: Mapping[str, str]) -> None:
    """Hold each framework to what `environment` says of it; where it says nothing, lift
    what was set before.
    """
    share = environment.get(SHARE)
    mib = environment.get(TENSORFLOW_MIB)
    cap_torch_memory(share)
    cap_rmm_memory(environment.get(RMM_BYTES), environment)
    _cap(
        TENSORFLOW,
        (lambda context: frameworks.cap_tensorflow(context, int(mib))) if mib else None,
    )
    _cap(
        VLLM,
        (lambda arguments: frameworks.cap_vllm(arguments, float(share)))
        if share
        else None,
    )


def cap_torch_memory(fraction: str | None) -> None:
    """Let torch take at most `fraction` of each device's memory; None lifts that."""
    _cap(
        "torch",
        (lambda torch: frameworks.cap_torch(torch, fraction)) if fraction else None,
    )


def cap_rmm_memory(limit_bytes: str | None, environment: Mapping[str, str]) -> None:
    """Let RMM allocate at most `limit_bytes` on each device that `environment` shows;
    None lifts that.
    """
    if not limit_bytes:
        _cap("rmm", None)
        return
    devices = max(1, shown_count(environment, installed_visibilities()))
    _cap("rmm", lambda rmm: frameworks.cap_rmm(rmm, int(limit_bytes), devices))


_awaited: dict[str, Put] = {}
_capped: set[str] = set()


def _cap(name: str, put: Put | None) -> None:
    """Apply `put` to a module now or once it is imported; None takes back what was
    applied or awaited.
    """
    module = sys.modules.get(name)
    _awaited.pop(name, None)
    if module is None and put is not None:
        _awaited[name] = put
    elif module is not None and put is not None:
        _try(name, module, put)
    elif module is not None and name in _capped:
        _try(name, module, frameworks.LIFT[name])
        _capped.discard(name)
    _attend()


def _attend() -> None:
    """Watch imports exactly as long as a module is awaited."""
    if _awaited and _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)
    elif not _awaited and _watch in sys.meta_path:
        sys.meta_path.remove(_watch)


def _try(name: str, module: ModuleType, put: Put) -> None:
    with frameworks.tolerance(name):
        put(module)
        _capped.add(name)


# -- waiting for an import -------------------------------------------------------------


class _Watch(importlib.abc.MetaPathFinder):
    """Lets the other finders find what is awaited, and caps it right after it has
    run.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _awaited:
            return None
        spec = self._spec_of_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            _follow(spec.loader, fullname)
        return spec

    def _spec_of_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


_watch = _Watch()


def _follow(loader: Any, name: str) -> None:
    run = loader.exec_module

    def run_and_cap(module: ModuleType) -> None:
        run(module)
        # A loader may serve other modules too.
        if module.__name__ != name:
            return
        put = _awaited.pop(name, None)
        if put is not None:
            _try(name, module, put)
            _attend()

    # A loader of another make: the import goes on uncapped.
    with contextlib.suppress(AttributeError):
        loader.exec_module = run_and_cap
