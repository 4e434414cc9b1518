"""How CUDA is shown its devices."""

from __future__ import annotations

import os

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    RuntimeProbe,
)

CUDA_ERROR_NOT_INITIALIZED = 3

VISIBILITY = DeviceVisibility(
    # Empty, not unset (every GPU would be visible) and not -1 (which Dask refuses).
    hidden={"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    lists=("CUDA_VISIBLE_DEVICES",),
    prefixes=("CUDA_",),
    is_safe_to_hide=True,
    runtime=RuntimeProbe(
        name="CUDA",
        library="libcuda.so.1",
        function="cuDeviceGetCount",
        arguments=(None,),
        not_started=CUDA_ERROR_NOT_INITIALIZED,
    ),
    # No daemon can ever listen there.
    detached={"CUDA_MPS_PIPE_DIRECTORY": os.devnull},
    probe="jupyter_aistack.providers.nvidia.device_probe",
)
