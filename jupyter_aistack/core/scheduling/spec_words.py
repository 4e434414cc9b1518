"""What is asked for, in words."""

from __future__ import annotations

from jupyter_aistack.core.model.device import DeviceKind, SliceKind
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.core.placement.verdict import PlacementFailure, PlacementVerdict


def describe(spec: Spec, when_idle: PlacementVerdict) -> str:
    """What a spec asks for, in words.

    Args:
        when_idle: where it would go if nothing were held.
    """
    if spec.unit is Unit.PROFILE:
        return f"a MIG instance {spec.profile}"
    if spec.unit is Unit.CORES:
        return f"{spec.amount} cores"

    is_cpu = spec.target is DeviceKind.CPU or _is_of_cpu(when_idle)
    gpu = f"{_models(spec)}GPU"
    if spec.unit is Unit.DEVICES:
        if spec.amount == 1:
            if is_cpu:
                return "the whole CPU"
            return f"a whole {gpu}"
        return f"{int(spec.amount)} whole {gpu}s"

    size = str(spec.amount)
    if spec.unit is Unit.MEMORY:
        size = format_bytes(int(spec.amount))
    if spec.count > 1:
        return f"{size} of each of {spec.count} {gpu}s"
    return f"{size} of {'the CPU' if is_cpu else f'a {gpu}'}"


def _is_of_cpu(when_idle: PlacementVerdict) -> bool:
    if isinstance(when_idle, PlacementFailure):
        return False
    return when_idle[0].kind is SliceKind.CPU


def _models(spec: Spec) -> str:
    """The models a GPU may be of, to be put before the noun; empty for any."""
    if not spec.models:
        return ""
    return f"{' or '.join(model.upper() for model in spec.models)} "
