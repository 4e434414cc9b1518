"""Adapters to devices: GPUs, the host's CPU, and simulated ones. Importing this package
opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyter_aistack.core.placement.mig_plan import MIGPermission
from jupyter_aistack.exceptions import InvalidRequest

from .base import Provider

_ALLOWED = "auto, gpu, amd, cpu or simulated:TABLE (e.g. simulated:8xH100-80GB), separated by commas"

ENFORCEMENTS = ("auto", "advisory")


def build_providers(
    text: str,
    *,
    enforcement: str = "auto",
    mps_strict: bool = False,
    mig_create: MIGPermission | None = None,
) -> tuple[Provider, ...]:
    """The providers named in a setting such as ``auto``, ``gpu,cpu`` or
    ``simulated:8xH100-80GB,cpu``.

    ``auto`` is the GPUs, where a driver of NVIDIA (``gpu``) or AMD (``amd``) is
    installed, and the CPU. A driver that is installed but does not answer is shown as a
    problem of the host; a host without any is a healthy host without GPUs. Nothing is
    opened yet.

    Args:
        text: the setting.
        enforcement: ``auto`` holds a share as firmly as its GPU allows, ``advisory`` by
            the caps of frameworks alone.
        mps_strict: an MPS daemon for each lease instead of one for each GPU.
        mig_create: which MIG instances may be created for those who wait; None for
            none.

    Raises:
        InvalidRequest: naming the field, ``providers`` or ``enforcement``.
    """
    if enforcement not in ENFORCEMENTS:
        allowed = " or ".join(ENFORCEMENTS)
        raise InvalidRequest(
            f"enforcement: {enforcement!r} is not allowed; write {allowed}",
            field="enforcement",
        )
    names = [part.strip() for part in text.split(",")]
    providers: dict[str, Provider] = {}
    for name in names:
        for provider in _providers_called(
            name, enforcement == "advisory", mps_strict, mig_create
        ):
            if provider.name == "simulated" and "simulated" in providers:
                raise _invalid("simulated:", "it may be given once; join tables with +")
            providers.setdefault(provider.name, provider)
    return tuple(providers.values())


def _providers_called(
    name: str, is_advisory: bool, is_strict: bool, mig_create: MIGPermission | None
) -> Iterator[Provider]:
    kind, _, table = name.partition(":")
    if kind == "simulated":
        from .simulated import SimulatedProvider

        yield SimulatedProvider(table)
        return
    if name not in ("auto", "gpu", "amd", "cpu"):
        raise _invalid(name, f"allowed are {_ALLOWED}")
    if name in ("auto", "gpu"):
        yield _gpus(name == "auto", is_advisory, is_strict, mig_create)
    if name in ("auto", "amd"):
        from jupyter_aistack.providers.amd.provider import AMDProvider

        yield AMDProvider(optional=name == "auto")
    if name in ("auto", "cpu"):
        from .cpu import CPUProvider

        yield CPUProvider()


def _gpus(
    is_optional: bool,
    is_advisory: bool,
    is_strict: bool,
    mig_create: MIGPermission | None,
) -> Provider:
    from jupyter_aistack.providers.nvidia.enforcement import ShareEnforcer
    from jupyter_aistack.providers.nvidia.mps import MPSManager
    from jupyter_aistack.providers.nvidia.nvml import NVML
    from jupyter_aistack.providers.nvidia.provider import GPUProvider

    nvml = NVML()
    sharing = ShareEnforcer(
        nvml, is_advisory=is_advisory, mps=MPSManager(strict=is_strict)
    )
    return GPUProvider(
        nvml, optional=is_optional, sharing=sharing, mig_create=mig_create
    )


def _invalid(shown: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"providers: {shown!r} is not a provider; {why}", field="providers"
    )
