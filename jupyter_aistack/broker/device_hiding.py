"""What hides the GPUs of a host where no broker can be built."""

from __future__ import annotations

from collections.abc import Iterable

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    hidden_environment,
)
from jupyter_aistack.core.model.device import Device, DeviceKind
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.base import Provider


def hidden_without_ledger(providers: Iterable[Provider], host: str) -> dict[str, str]:
    """Variables that hide the host's real GPUs, asked of the drivers alone: without a
    ledger there is nothing else to know.

    Raises:
        ProviderError: none was found, and a driver does not answer.
    """
    found: list[DeviceVisibility] = []
    silent: ProviderError | None = None
    for provider in providers:
        try:
            devices = provider.discover(host)
        except ProviderError as error:
            silent = error
        else:
            if any(_is_real_gpu(device) for device in devices):
                found.append(provider.visibility)
    if silent is not None and not found:
        raise silent
    return hidden_environment(found)


def _is_real_gpu(device: Device) -> bool:
    return device.kind is DeviceKind.GPU and not device.simulated
