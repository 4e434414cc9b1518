"""Creating and destroying MIG instances: the one place that changes a GPU, and only
where the administrator allows it.

MIG mode itself is never switched. An instance that a lease or any process uses is never
destroyed, and an instance whose processes cannot be read counts as used.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.placement.mig_plan import (
    GPUInstance,
    Layout,
    MIGAction,
    MIGPermission,
    MIGPlacement,
    MIGPlan,
    MIGProfile,
    MIGStep,
    plan_cuts,
)
from jupyter_aistack.exceptions import ProviderError, Refused

from . import mig
from .nvml import NO_PERMISSION, NVML
from .usage import processes_if_known

log = logging.getLogger("jupyter_aistack")

PART_PROFILES = range(9)
"""NVML's numbers of the kinds of compute instances
(``NVML_COMPUTE_INSTANCE_PROFILE_COUNT``).
"""
MOST = 16
"""More instances than one GPU can have of a kind."""
IN_USE = 19
NO_ROOM = 23

_PLACEMENT = "c_nvmlGpuInstancePlacement_t"

_WHY = {
    NO_PERMISSION: "MIG instances may be looked at closely, created and destroyed by root alone; run this as root",
    IN_USE: "the driver says that it is in use",
    NO_ROOM: "the driver says that there is no room for it any more",
}


class MIGReconfigurer:
    """Cuts the GPUs of a host.

    Args:
        nvml: the connection to the driver.
        permission: what the administrator allows; None for nothing, and then plans
            alone are made.
    """

    def __init__(self, nvml: NVML, permission: MIGPermission | None = None) -> None:
        self._nvml = nvml
        self._permission = permission

    def offers(
        self, device_id: str, index: int, shapes: Iterable[MIGProfile]
    ) -> tuple[str, ...]:
        """The profiles that may be created on a GPU for those who wait."""
        permission = self._permission
        if permission is None:
            return ()
        return tuple(
            shape.name
            for shape in shapes
            if permission.allows(device_id, index, shape.name)
        )

    def plan(
        self,
        devices: Iterable[Device],
        wanted: Sequence[str],
        leased: Mapping[str, str],
    ) -> MIGPlan:
        """What would be done for one instance of each of `wanted`; nothing is.

        Args:
            devices: the GPUs of this host.
            wanted: profiles.
            leased: lease id by the UUID of each instance that is leased.

        Raises:
            ProviderError: the instances cannot be read; they can by root alone.
        """
        cuttable = [
            device for device in devices if device.mig_enabled and device.is_healthy
        ]
        with _in_our_words():
            return plan_cuts(
                [self._layout(device, leased) for device in cuttable], wanted
            )

    def make(
        self,
        devices: Iterable[Device],
        wanted: Sequence[str],
        leased: Mapping[str, str],
    ) -> tuple[str, ...]:
        """Do it, step by step; what was done, one phrase each.

        Raises:
            Refused: the administrator has not allowed it.
            ProviderError: a step failed, and was undone; ``facts["done"]`` are those
                before it, which stay.
        """
        if self._permission is None:
            raise Refused(
                "mig_create: it is off; set AIStack.mig_create to let MIG instances be created here"
            )
        known = {device.id: device for device in devices}
        done: list[str] = []
        for step in self.plan(known.values(), wanted, leased).steps:
            try:
                with _in_our_words():
                    self._take(step, known[step.device_id], leased)
            except ProviderError as error:
                raise ProviderError(f"{step}: {error.message}", done=done) from error
            log.info("MIG: %s", step)
            done.append(str(step))
        return tuple(done)

    # -- looking -----------------------------------------------------------------------

    def _layout(self, device: Device, leased: Mapping[str, str]) -> Layout:
        gpu = self._nvml.query("nvmlDeviceGetHandleByUUID", device.id)
        known = mig.shapes(self._nvml, gpu, device.memory_bytes)
        uses = self._uses(gpu, leased)
        standing = tuple(
            each for shape in known for each in self._standing(gpu, shape, uses)
        )
        able = [shape for shape in known if self._may(device, shape)]
        placed = tuple(
            replace(shape, places=self._places(gpu, shape)) for shape in able
        )
        return Layout(
            device_id=device.id, index=device.index, shapes=placed, instances=standing
        )

    def _may(self, device: Device, shape: MIGProfile) -> bool:
        """Without any permission a plan shows all that could be done."""
        return self._permission is None or self._permission.allows(
            device.id, device.index, shape.name
        )

    def _places(self, gpu: Any, shape: MIGProfile) -> tuple[MIGPlacement, ...]:
        ask = "nvmlDeviceGetGpuInstancePossiblePlacements"
        kind = "c_nvmlGpuInstancePlacement_t"
        return tuple(
            MIGPlacement(start=p.start, size=p.size)
            for p in self._nvml.gather(ask, kind, gpu, shape.id)
        )

    def _standing(
        self, gpu: Any, shape: MIGProfile, uses: Mapping[int, str]
    ) -> list[GPUInstance]:
        ask = "nvmlDeviceGetGpuInstances"
        kind = "c_nvmlGpuInstance_t"
        handles = self._nvml.gather(ask, kind, gpu, shape.id, most=MOST)
        infos = [
            self._nvml.query("nvmlGpuInstanceGetInfo", handle) for handle in handles
        ]
        spans = [
            MIGPlacement(start=info.placement.start, size=info.placement.size)
            for info in infos
        ]
        pairs = zip(infos, spans, strict=True)
        return [
            GPUInstance(id=i.id, profile=shape.name, span=s, in_use=uses.get(i.id, ""))
            for i, s in pairs
        ]

    def _uses(self, gpu: Any, leased: Mapping[str, str]) -> dict[int, str]:
        """By GPU instance, what it must stay for."""
        uses: dict[int, str] = {}
        for handle in mig.instance_handles(self._nvml, gpu):
            number = self._nvml.query("nvmlDeviceGetGpuInstanceId", handle)
            uuid = self._nvml.query("nvmlDeviceGetUUID", handle)
            use = (
                f"lease {leased[uuid]} has it"
                if uuid in leased
                else self._processes_of(handle)
            )
            uses[number] = uses.get(number) or use
        return uses

    def _processes_of(self, handle: Any) -> str:
        processes = processes_if_known(self._nvml, handle)
        if processes is None:
            return "its processes cannot be read"
        return (
            f"process {', '.join(map(str, sorted(processes)))} uses it"
            if processes
            else ""
        )

    # -- doing -------------------------------------------------------------------------

    def _take(self, step: MIGStep, device: Device, leased: Mapping[str, str]) -> None:
        gpu = self._nvml.query("nvmlDeviceGetHandleByUUID", device.id)
        if step.action is MIGAction.CREATE:
            self._create(gpu, step)
            return
        use = self._uses(gpu, leased).get(
            step.id, ""
        )  # once more: a process may have started since
        if use:
            raise ProviderError(use)
        self._destroy(self._nvml.query("nvmlDeviceGetGpuInstanceById", gpu, step.id))

    def _create(self, gpu: Any, step: MIGStep) -> None:
        """A GPU instance, and one compute instance that has all of it; neither without
        the other.
        """
        place = ctypes.byref(
            self._nvml.structure(_PLACEMENT, start=step.span.start, size=step.span.size)
        )
        made = self._nvml.query(
            "nvmlDeviceCreateGpuInstanceWithPlacement", gpu, step.id, place
        )
        try:
            self._nvml.query(
                "nvmlGpuInstanceCreateComputeInstance",
                made,
                self._whole_part(made, step.gpu_slices),
            )
        except ProviderError:
            self._nvml.query("nvmlGpuInstanceDestroy", made)
            raise

    def _whole_part(self, instance: Any, slices: int) -> int:
        """The kind of compute instance that has as many slices as its GPU instance."""
        profile_id = next(
            (part.id for part in self._parts(instance) if part.sliceCount == slices),
            None,
        )
        if profile_id is None:
            raise ProviderError(
                f"the driver knows no compute instance with {slices} slices in it"
            )
        return int(profile_id)

    def _parts(self, instance: Any) -> list[Any]:
        ask = "nvmlGpuInstanceGetComputeInstanceProfileInfo"
        infos = (
            self._nvml.query(ask, instance, number, 0, default=None)
            for number in PART_PROFILES
        )
        return [info for info in infos if info is not None]

    def _destroy(self, instance: Any) -> None:
        """Its compute instances, then itself; those that are gone come back when it
        cannot go.
        """
        ask = "nvmlGpuInstanceGetComputeInstances"
        kind = "c_nvmlComputeInstance_t"
        gone = []
        try:
            for part in self._parts(instance):
                for handle in self._nvml.gather(
                    ask, kind, instance, part.id, most=MOST
                ):
                    self._nvml.query("nvmlComputeInstanceDestroy", handle)
                    gone.append(part.id)
            self._nvml.query("nvmlGpuInstanceDestroy", instance)
        except ProviderError:
            for part_id in gone:
                self._nvml.query(
                    "nvmlGpuInstanceCreateComputeInstance", instance, part_id
                )
            raise


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """What the driver refuses to do with instances, worded so that an administrator
    knows why.
    """
    try:
        yield
    except ProviderError as error:
        why = _WHY.get(int(error.facts.get("nvml_code", 0)))
        if why is None:
            raise
        raise ProviderError(why, **error.facts) from error
