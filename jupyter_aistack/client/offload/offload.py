"""``offloadable()``: register what may leave the GPU while its notebook is idle."""

from __future__ import annotations

from typing import Any

from .cuda import device_named
from .registry import remember
from .tensor_state import Offload


def offloadable(*objects: Any, device: str = "cuda", keep_host: bool = True) -> Offload:
    """Register models, optimizers and tensors that may leave the GPU while the notebook
    does not need it.

    They also move by themselves when the notebook's lease is suspended, for as long as
    what is returned is referred to.

    Args:
        objects: modules (parameters, buffers, gradients), optimizers (their state),
            tensors, and lists and dictionaries of them. What they hold is looked up
            each time.
        device: whose memory is given back; ``cpu`` is for trying it out without a GPU.
        keep_host: keep the host memory from one time to the next, which is faster than
            to allocate it again.

    Raises:
        InvalidRequest: one of `objects` holds no tensors that can be found.
    """
    return remember(Offload(objects, device_named(device), keep_host=keep_host))
