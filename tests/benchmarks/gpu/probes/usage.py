"""The probe of what the driver tells of a process at work, without MPS."""

from __future__ import annotations

import time
from statistics import mean
from typing import Any

from tests.benchmarks.gpu.probes.children import child
from tests.benchmarks.gpu.probes.nvml import Nvml
from tests.benchmarks.gpu.probes.reporting import Finding, Findings, Limits

WINDOW_SECONDS, GONE_SECONDS = 4.0, 5.0
METRICS = {"sm_percent": 2, "tensor_percent": 5}
"""Numbers of GPM's metrics."""


def usage(limits: Limits) -> Findings:
    """Utilisation by process, GPM, energy beside power, how fast who is killed leaves."""

    def finding(name: str, **values: object) -> Finding:
        return Finding(probe="usage", name=name, values=values)

    nvml = Nvml()
    with child("burning") as process:
        started = process.hear(90)
        yield finding("at_work", **started)
        if "error" in started:
            return
        yield finding("energy", **energy(nvml))
        yield finding("gpm", **gpm(nvml))
        rates = nvml.ask("nvmlDeviceGetUtilizationRates")
        yield finding(
            "samples",
            pid=process.pid,
            last=nvml.samples(),
            wide=nvml.samples(30.0),
            device_percent=getattr(rates, "gpu", rates),
            listed=nvml.listed(process.pid),
        )
        process.end(kill=True)
        yield finding("killed", gone_after_s=gone_after(nvml, process.pid))
        yield finding("samples_after", last=nvml.samples())


def energy(nvml: Nvml) -> dict[str, Any]:
    """The counter of energy beside the power, summed up over the same seconds."""
    counter, begin = nvml.ask("nvmlDeviceGetTotalEnergyConsumption"), time.monotonic()
    watts: list[float] = []
    while time.monotonic() - begin < WINDOW_SECONDS:
        power = nvml.ask("nvmlDeviceGetPowerUsage")
        if isinstance(power, str) or isinstance(counter, str):
            return {"power": power, "counter": counter}
        watts.append(power / 1000)
        time.sleep(0.1)
    joules = (nvml.ask("nvmlDeviceGetTotalEnergyConsumption") - counter) / 1000
    seconds = time.monotonic() - begin
    return {"joules": joules, "watt_seconds": mean(watts) * seconds, "s": seconds}


def gpm(nvml: Nvml) -> dict[str, Any]:
    """Two metrics of GPM over a second, with the code of each."""
    library = nvml.library
    try:
        support = library.nvmlGpmQueryDeviceSupport(nvml.handle)
        samples = []
        for pause in (1.0, 0.0):
            sample = library.nvmlGpmSampleAlloc()
            library.nvmlGpmSampleGet(nvml.handle, sample)
            samples.append(sample)
            time.sleep(pause)
        version = library.NVML_GPM_METRICS_GET_VERSION
        asked = library.c_nvmlGpmMetricsGet_t(version=version, numMetrics=len(METRICS))
        asked.sample1, asked.sample2 = samples
        for place, number in enumerate(METRICS.values()):
            asked.metrics[place].metricId = number
        library.nvmlGpmMetricsGet(asked)
    except library.NVMLError as error:
        return {"error": str(error)}
    values = {name: asked.metrics[place].value for place, name in enumerate(METRICS)}
    codes = [asked.metrics[place].nvmlReturn for place in range(len(METRICS))]
    return {"is_supported": support.isSupportedDevice, **values, "codes": codes}


def gone_after(nvml: Nvml, pid: int) -> float | str:
    """Seconds until a process is no longer listed."""
    begin = time.monotonic()
    while time.monotonic() - begin < GONE_SECONDS:
        if "not listed" in str(nvml.listed(pid)["compute"]):
            return round(time.monotonic() - begin, 2)
        time.sleep(0.02)
    return f"still listed after {GONE_SECONDS:g} s"
