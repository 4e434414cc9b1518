"""Why the driver's checkpoint API refused, as a code: told once, where the exception is
raised, and sent on as such.

The one place that reads sentences of cuda-core: it raises `CUDAError` with nothing but a
text, which begins with CUDA's name of the error, and for two errors a `RuntimeError`
with a sentence of its own.
"""

from __future__ import annotations

import re
from enum import StrEnum

CUDA_NAME = re.compile(r"\s*CUDA_ERROR_([A-Z0-9_]+)")
"""How the text of a `CUDAError` begins (cuda-core, `_check_driver_error`)."""
NO_API = re.compile(
    r"checkpointing (is not supported by|requires cuda\.bindings)", re.IGNORECASE
)
"""In what cuda-core says where a call answers NOT_SUPPORTED or NOT_FOUND, and where the
driver or the bindings are too old (`cuda.core.checkpoint`, `_call_driver` and
`_get_driver`, 1.0.0 to 1.2.2). It does not tell the two answers apart.
"""


class CheckpointRefusal(StrEnum):
    """Why an operation failed, by CUDA's names."""

    NOT_SUPPORTED = "not_supported"  # the driver will never do it to this process
    NOT_PERMITTED = "not_permitted"  # nor this user
    NOT_READY = "not_ready"  # what the process has submitted did not end in time
    NOT_INITIALIZED = "not_initialized"  # the process has no context
    OUT_OF_MEMORY = "out_of_memory"  # of the device
    OTHER = "other"


FINAL = frozenset({CheckpointRefusal.NOT_SUPPORTED, CheckpointRefusal.NOT_PERMITTED})
"""There is no use in trying the same process again."""


def refusal_of(error: Exception) -> CheckpointRefusal:
    """The code of what a call of the checkpoint API raised."""
    if isinstance(error, PermissionError):
        return CheckpointRefusal.NOT_PERMITTED
    text = str(error)
    name = CUDA_NAME.match(text)
    if name is not None:
        return refusal_named(name.group(1).lower())
    if NO_API.search(text):
        return CheckpointRefusal.NOT_SUPPORTED
    return CheckpointRefusal.OTHER


def refusal_named(code: object) -> CheckpointRefusal:
    """The refusal of that name; `OTHER` for any that is not told apart."""
    try:
        return CheckpointRefusal(str(code))
    except ValueError:
        return CheckpointRefusal.OTHER
