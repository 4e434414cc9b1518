"""Activity of multiprocessors from NVML's GPU performance monitoring, which Hopper and
later have.

A figure needs two samples, so the first gives none. Samples are the library's own
memory: each is freed once the next is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.exceptions import ProviderError

from .nvml import NVML

SM_UTIL = 2
"""``NVML_GPM_METRIC_SM_UTIL``: percentage of multiprocessors that had work, over the
time between two samples.
"""


class GPM:
    """The last sample of each GPU and MIG instance.

    Args:
        nvml: the connection to the driver.
    """

    def __init__(self, nvml: NVML) -> None:
        self._nvml = nvml
        self._samples: dict[str, Any] = {}

    def sample(
        self, devices: Iterable[Device], handle_of: Callable[[str], Any]
    ) -> dict[str, float]:
        """Activity since the sample before, 0 to 1, by UUID of a GPU, or of a MIG
        instance on a GPU that is partitioned.

        What has no GPM, or was not sampled before, is missing.

        Args:
            devices: the GPUs.
            handle_of: gives the handle of a GPU or instance by its UUID, or None.
        """
        taken: dict[str, Any] = {}
        for device in devices:
            taken.update(self._take(device, handle_of))
        before = self._samples
        self._samples = taken
        shares = {
            uuid: self._between(before[uuid], sample)
            for uuid, sample in taken.items()
            if uuid in before
        }
        for sample in before.values():
            self._ask("nvmlGpmSampleFree", sample)
        return {uuid: share for uuid, share in shares.items() if share is not None}

    def _take(self, device: Device, handle_of: Callable[[str], Any]) -> dict[str, Any]:
        """New samples of a GPU, or of each of its instances."""
        gpu = handle_of(device.id)
        support = None if gpu is None else self._ask("nvmlGpmQueryDeviceSupport", gpu)
        if support is None or not support.isSupportedDevice:
            return {}
        if not device.mig_enabled:
            return _only({device.id: self._sample("nvmlGpmSampleGet", gpu)})
        handles = {instance.uuid: handle_of(instance.uuid) for instance in device.mig}
        numbers = {
            uuid: self._ask("nvmlDeviceGetGpuInstanceId", h)
            for uuid, h in handles.items()
            if h is not None
        }
        known = {uuid: number for uuid, number in numbers.items() if number is not None}
        return _only(
            {
                uuid: self._sample("nvmlGpmMigSampleGet", gpu, number)
                for uuid, number in known.items()
            }
        )

    def _sample(self, function: str, *args: Any) -> Any:
        sample = self._ask("nvmlGpmSampleAlloc")
        if sample is None:
            return None
        if self._ask(function, *args, sample) is None:
            self._ask("nvmlGpmSampleFree", sample)
            return None
        return sample

    def _between(self, first: Any, second: Any) -> float | None:
        asked = _request(first, second)
        if asked is None or self._ask("nvmlGpmMetricsGet", asked) is None:
            return None
        metric = asked.metrics[0]
        return None if metric.nvmlReturn else min(1.0, max(0.0, metric.value / 100))

    def _ask(self, function: str, *args: Any) -> Any:
        try:
            return self._nvml.query(function, *args, default=None)
        except (
            ProviderError
        ):  # samples from before a reset are refused; the next look has new samples
            return None


def _only(samples: dict[str, Any]) -> dict[str, Any]:
    return {uuid: sample for uuid, sample in samples.items() if sample is not None}


def _request(first: Any, second: Any) -> Any:
    """What ``nvmlGpmMetricsGet`` fills in."""
    import pynvml

    kind = getattr(pynvml, "c_nvmlGpmMetricsGet_t", None)
    if kind is None:
        return None
    asked = kind(version=pynvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=1)
    asked.sample1 = first
    asked.sample2 = second
    asked.metrics[0].metricId = SM_UTIL
    return asked
