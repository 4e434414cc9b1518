"""What has come of a transfer, as the step of the device state that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jupyter_aistack.core.model import device_state as steps
from jupyter_aistack.core.model.device_state import DeviceState, SuspendMethod
from jupyter_aistack.core.model.units import format_bytes

Outcome = Callable[[DeviceState], DeviceState]
"""Changes the device state of a lease; given to `Broker.update_device_state`."""

CONTEXT_UNKNOWN = (
    "what a context takes here is not known, so what has left is not either"
)
RESTART = "restart the kernel, and run its cells again"


def suspended(state_bytes: int, method: SuspendMethod, note: str) -> Outcome:
    """The state is off the device, and takes `state_bytes` of host memory."""

    def change(state: DeviceState) -> DeviceState:
        left = steps.suspended(state, state_bytes=state_bytes, tier=method)
        return replace(left, note=note)

    return change


def stayed(
    now: float, why: str, *, is_pinned: bool = False, is_restored: bool = False
) -> Outcome:
    """The state is still on the device.

    Args:
        now: seconds since the epoch.
        why: it could not be suspended.
        is_pinned: it is not tried again until the kernel has been in use.
        is_restored: the driver has copied some of it out and back in.
    """

    def change(state: DeviceState) -> DeviceState:
        after = steps.suspend_failed(state, now, why)
        if is_restored:
            after = steps.mark_restored(after)
        return steps.with_pin_reason(after, why) if is_pinned else after

    return change


def resumed(now: float, note: str = "") -> Outcome:
    """The state is back on its device."""
    return lambda state: replace(steps.resumed(state, now), note=note)


def still_suspended(why: str) -> Outcome:
    """The state could not be resumed, and is where it was."""
    return lambda state: steps.resume_failed(state, why)


def lost(why: str) -> Outcome:
    """The state is gone: the kernel has to start again."""
    return lambda state: steps.mark_lost(state, f"{why}; {RESTART}")


def remainder(held_bytes: int | None) -> str:
    """What a process still holds on its device, in one sentence."""
    if held_bytes is None:
        return "the driver does not say what is left on its device"
    return f"{format_bytes(held_bytes)} stayed on its device"
