"""One sample of all GPUs: their counters, who holds their memory and who had them at
work since the sample before.

Activity is the share of a GPU's multiprocessors that worked. Where the driver has GPM
(Hopper and later) it says so of each GPU and MIG instance; elsewhere the share of time
in which a process had a kernel running (``smUtil``) is the best there is. Several
processes on one GPU are distinguished by ``smUtil`` alone, which the driver does not
have on MIG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.sample import DeviceSample, UnitSample

from .gpm import GPM
from .nvml import NVML
from .usage import UsageReader

FIRST_SECONDS = 2.5
"""The time that a first sample is about; the driver takes a sample of its own every 0.2
to 1 second.
"""
LEAST_SECONDS = 1.0
"""Two samples that follow closer than the driver's own would find no active process."""
MOST_SECONDS = 30.0
"""The driver keeps its own samples for less; a sample after a longer pause is a first
sample.
"""


class GPUSampler:
    """Samples GPUs again and again.

    Args:
        nvml: the connection to the driver.
        servers_among: gives those of some processes that are servers of MPS.
    """

    def __init__(
        self, nvml: NVML, servers_among: Callable[[Iterable[int]], frozenset[int]]
    ) -> None:
        self._nvml = nvml
        self._servers_among = servers_among
        self._gpm = GPM(nvml)
        self._sampled_at: float | None = None

    def sample(
        self,
        devices: Mapping[str, Device],
        uuids: Mapping[str, Iterable[str]],
        now: float,
        since: float | None = None,
    ) -> dict[str, DeviceSample]:
        """What each GPU reports.

        Args:
            devices: the GPUs.
            uuids: by device id, those whose processes are to be listed: the GPU itself
                or its MIG instances.
            now: seconds since the epoch.
            since: activity is reported since then. None: since the last sample for
                which it was None, which only such a sample moves on: others must not
                cut its time short.
        """
        reader = UsageReader(self._nvml, self._start(now) if since is None else since)
        activity: Mapping[str, float] = {}
        if since is None:
            self._sampled_at = now
            healthy = [device for device in devices.values() if device.is_healthy]
            activity = self._gpm.sample(healthy, reader.handle)
        return {
            device_id: self._of_device(
                device, list(uuids.get(device_id, ())), reader, activity
            )
            for device_id, device in devices.items()
        }

    def _start(self, now: float) -> float:
        """The start of the time that a sample is about."""
        before = self._sampled_at
        if before is None or not 0 < now - before <= MOST_SECONDS:
            return now - FIRST_SECONDS
        return min(before, now - LEAST_SECONDS)

    def _of_device(
        self,
        device: Device,
        uuids: list[str],
        reader: UsageReader,
        activity: Mapping[str, float],
    ) -> DeviceSample:
        parts = [instance.uuid for instance in device.mig] if device.mig_enabled else []
        units = {
            uuid: UnitSample(
                memory=reader.by_process(uuid) if uuid in uuids else None,
                busy=None if device.mig_enabled else reader.busy(uuid),
                activity=activity.get(uuid),
            )
            for uuid in dict.fromkeys([*(parts or [device.id]), *uuids])
        }
        shares = [unit.busy or {} for unit in units.values()]
        workers = {pid for busy in shares for pid in busy if busy[pid] > 0}
        return DeviceSample(
            memory_bytes=reader.memory_bytes(device.id),
            utilization=reader.utilization(device.id),
            power_watts=reader.watts(device.id),
            millijoules=reader.millijoules(device.id),
            units=units,
            servers=self._servers_among(workers),
        )
