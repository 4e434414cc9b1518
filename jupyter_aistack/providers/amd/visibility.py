"""How ROCm is shown its devices."""

from __future__ import annotations

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    RuntimeProbe,
)

HSA_STATUS_ERROR_NOT_INITIALIZED = 0x100B

VISIBILITY = DeviceVisibility(
    # HIP reads CUDA's variable where it finds none of its own.
    hidden={
        "ROCR_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "",
        "GPU_DEVICE_ORDINAL": "",
        "CUDA_VISIBLE_DEVICES": "",
    },
    lists=("ROCR_VISIBLE_DEVICES",),
    counted={
        "HIP_VISIBLE_DEVICES": "ROCR_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL": "ROCR_VISIBLE_DEVICES",
    },
    prefixes=("ROCR_", "HIP_VISIBLE", "GPU_DEVICE_ORDINAL", "CUDA_"),
    runtime=RuntimeProbe(
        name="ROCm",
        library="libhsa-runtime64.so.1",
        function="hsa_system_get_info",
        arguments=(0, None),
        not_started=HSA_STATUS_ERROR_NOT_INITIALIZED,
    ),
)
