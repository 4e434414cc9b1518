"""How each framework that reads no cap from the environment is held to a cap, and freed
of it.

Each function is given the module after it was imported; none starts CUDA by itself.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from jupyter_aistack.core.enforcement.memory_caps import TORCH_KEY, with_torch_share

log = logging.getLogger(__name__)

Put = Callable[[ModuleType], None]
TENSORFLOW = "tensorflow.python.eager.context"
VLLM = "vllm.engine.arg_utils"
"""The modules in which they decide how much they take."""


@contextlib.contextmanager
def tolerance(name: str) -> Iterator[None]:
    """A version that works another way is left as it is; the user's program must not
    fail for it.
    """
    try:
        yield
    except Exception as error:
        log.warning(
            "the memory %s may take was not changed: %s", name.partition(".")[0], error
        )


_torch: dict[int, tuple[float, float]] = {}
"""By device, the share that a program had chosen itself, and the share that was put in
its place.
"""
_torch_conf: dict[str, tuple[str | None, str, str]] = {}
"""By variable, what it was before, what it is now, and our share in it."""


def cap_torch(torch: Any, share: str) -> None:
    """Hold torch's allocator, here and in processes that are started from here, to a
    share of each device.
    """
    _share_torch(torch, float(share))
    _tell_children(torch, share)


def lift_torch(torch: Any) -> None:
    """Give torch back the share it had."""
    _untell_children()
    _share_torch(torch, 1.0)


def _share_torch(torch: Any, share: float) -> None:
    def cap_each() -> None:
        for index in range(torch.cuda.device_count()):
            own = _own_share(torch, index)
            _torch[index] = own, min(share, own)
            torch.cuda.set_per_process_memory_fraction(min(share, own), index)

    torch.cuda._lazy_call(
        cap_each
    )  # at once when CUDA runs in torch, else when it starts; asking would start it


def _own_share(torch: Any, index: int) -> float:
    """The share a program has chosen by itself; all of it where it has not, or where
    torch is too old to tell.
    """
    ask = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    put_share = next((float(share) for _, _, share in _torch_conf.values()), 1.0)
    own, put = _torch.get(index, (1.0, put_share))
    now = put if ask is None else float(ask(index))
    return own if math.isclose(now, put, rel_tol=1e-6) else now  # it is kept as bytes


def _tell_children(torch: Any, share: str) -> None:
    """Put the share into torch's own variable, for processes that are started from here
    and have no hook of ours.

    A torch that does not know the key refuses to start over it, so its library is
    asked; no version number is trusted.
    """
    _untell_children()
    if _knows_share(Path(torch.__file__).parent / "lib" / "libc10_cuda.so"):
        # In this order torch looks for them; the first is the older name.
        name = (
            "PYTORCH_CUDA_ALLOC_CONF"
            if "PYTORCH_CUDA_ALLOC_CONF" in os.environ
            else "PYTORCH_ALLOC_CONF"
        )
        before = os.environ.get(name)
        os.environ[name] = with_torch_share(before or "", share)
        _torch_conf[name] = before, os.environ[name], share


def _untell_children() -> None:
    while _torch_conf:
        name, (before, ours, _) = _torch_conf.popitem()
        if os.environ.get(name) == ours and before is None:
            del os.environ[name]
        elif os.environ.get(name) == ours and before is not None:
            os.environ[name] = before


def _knows_share(library: Path) -> bool:
    try:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(TORCH_KEY.encode()) >= 0
    except (OSError, ValueError):  # a torch without CUDA has none
        return False


_rmm_before: dict[int, Any] = {}


def cap_rmm(rmm: Any, limit_bytes: int, devices: int) -> None:
    """Put a limit before the memory resource of each of so many devices."""
    lift_rmm(rmm)
    for index in range(devices):
        before = rmm.mr.get_per_device_resource(index)
        limited = rmm.mr.LimitingResourceAdaptor(before, allocation_limit=limit_bytes)
        rmm.mr.set_per_device_resource(index, limited)
        _rmm_before[index] = before


def lift_rmm(rmm: Any) -> None:
    """Put back the memory resources that were there."""
    while _rmm_before:
        rmm.mr.set_per_device_resource(*_rmm_before.popitem())


def cap_tensorflow(context: Any, mib: int) -> None:
    """Limit each GPU right before TensorFlow opens them: until then a program may still
    configure them itself.
    """
    lift_tensorflow(context)
    start = context.Context.ensure_initialized

    @functools.wraps(start)
    def start_within(self: Any, *args: Any, **options: Any) -> Any:
        if self._context_handle is None:
            with tolerance(TENSORFLOW):
                _limit_devices(context, self, mib)
        return start(self, *args, **options)

    context.Context.ensure_initialized = start_within


def _limit_devices(context: Any, running: Any, mib: int) -> None:
    for device in running.list_physical_devices("GPU"):
        parts = running.get_logical_device_configuration(device) or [
            context.LogicalDeviceConfiguration(mib)
        ]
        each = mib // len(parts)
        within = [
            part._replace(memory_limit=min(part.memory_limit or each, each))
            for part in parts
        ]
        running.set_logical_device_configuration(device, within)


def lift_tensorflow(context: Any) -> None:
    """Let TensorFlow open GPUs as it would; those that are open keep their limit."""
    context.Context.ensure_initialized = _unwrapped(context.Context.ensure_initialized)


def cap_vllm(arguments: Any, share: float) -> None:
    """vLLM sizes itself by ``gpu_memory_utilization`` of the total it is shown, 0.9
    unless it is set.
    """
    lift_vllm(arguments)
    settle = arguments.EngineArgs.__post_init__

    @functools.wraps(settle)
    def settle_within(self: Any, *args: Any, **options: Any) -> Any:
        self.gpu_memory_utilization = min(self.gpu_memory_utilization, share)
        return settle(self, *args, **options)

    arguments.EngineArgs.__post_init__ = settle_within


def lift_vllm(arguments: Any) -> None:
    """Let vLLM size itself as its settings say."""
    arguments.EngineArgs.__post_init__ = _unwrapped(arguments.EngineArgs.__post_init__)


def _unwrapped(function: Any) -> Any:
    """What a wrapper of ours stands before, else the function itself."""
    is_ours = (
        getattr(function, "__code__", None) is not None
        and function.__code__.co_filename == __file__
    )
    return function.__wrapped__ if is_ours else function


LIFT: dict[str, Put] = {
    "torch": lift_torch,
    "rmm": lift_rmm,
    TENSORFLOW: lift_tensorflow,
    VLLM: lift_vllm,
}
"""How to take back what was applied to a module."""
