"""Kernels that are launched without a Jupyter server around them (nbclient, papermill):
their process has a broker of its own, or none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    hidden_environment,
)
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.exceptions import (
    InvalidRequest,
    LedgerUnavailable,
    ProviderError,
)

if TYPE_CHECKING:
    from jupyter_aistack.broker.remote.port import KernelBroker

_brokers: dict[tuple[str, ...], KernelBroker] = {}
_building = threading.Lock()


def own_broker() -> KernelBroker:
    """The host's broker where there is one, else this process's own, built at first use.

    Raises:
        LedgerError: it cannot be built; a setting that makes no sense is no fault of a
            kernel's request.
    """
    from jupyter_aistack.config import build_kernel_broker, load_settings

    key = (
        os.environ.get("AISTACK_BROKER", ""),
        os.environ.get("AISTACK_LEDGER", ""),
        os.environ.get("AISTACK_PROVIDERS", ""),
    )
    with _building:
        try:
            if key not in _brokers:
                _brokers[key] = build_kernel_broker(load_settings())
            return _brokers[key]
        except InvalidRequest as error:
            raise LedgerUnavailable(
                f"the broker could not be started: {error.message}"
            ) from error


class SupportsDiscover(Protocol):
    """Discovers devices, as a provider does, and knows how to hide them."""

    @property
    def visibility(self) -> DeviceVisibility:
        """How a process is shown some of these devices and no others."""

    def discover(self, host: str) -> tuple[Device, ...]:
        """The devices of this host. Raises `ProviderError`."""


def configured_hidden_environment() -> dict[str, str]:
    """`hidden_environment_of` this host, by the providers of the settings."""
    from jupyter_aistack.config import load_settings

    return hidden_environment_of(load_settings().build_providers(), "localhost")


def hidden_environment_of(
    providers: Iterable[SupportsDiscover], host: str
) -> dict[str, str]:
    """Variables that hide the host's real GPUs, asked of the drivers alone: without a
    ledger nothing else has to be known.

    Raises:
        ProviderError: none was found, and a driver does not answer.
    """
    visibilities: list[DeviceVisibility] = []
    silent: ProviderError | None = None
    for provider in providers:
        try:
            devices = provider.discover(host)
        except ProviderError as error:
            silent = error
            continue
        if any(device.is_real_gpu for device in devices):
            visibilities.append(provider.visibility)
    if silent is not None and not visibilities:
        raise silent
    return hidden_environment(visibilities)
