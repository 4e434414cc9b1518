"""The version of the NVIDIA driver."""

from __future__ import annotations

from jupyter_aistack.exceptions import ProviderError

from .nvml import NVML


def driver_version() -> str:
    """As the driver spells it (``580.126.09``); empty where there is none or it does
    not say.
    """
    nvml = NVML()
    try:
        return str(nvml.query("nvmlSystemGetDriverVersion", default=""))
    except ProviderError:
        return ""
    finally:
        nvml.close()
