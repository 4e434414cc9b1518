"""What a run used: peaks, energy, and charges at both ends."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.tracking.usage_meter import RunMeter, SampleAccumulator
from tests.fakes.bills import bill, lease, usage


def test_peak_memory_is_the_highest_sum_seen_at_once():
    samples = SampleAccumulator()
    both = [lease(), lease("l-2")]
    for memory in (10, 70, 30):
        samples.add(both, usage(memory=memory, leases=("l-1", "l-2", "other")))
    assert samples.peak_memory_bytes == 140


def test_what_cannot_be_measured_stays_none():
    samples = SampleAccumulator()
    samples.add([lease()], usage())
    samples.add([lease()], usage())
    cost = samples.cost(0, 3600)
    assert (cost.peak_memory_bytes, cost.energy_wh) == (None, None)


def test_energy_is_charged_by_the_share_held():
    samples = SampleAccumulator()
    samples.add([lease()], usage(joules=1000.0))
    assert samples.energy_wh is None
    samples.add([lease()], usage(joules=1000.0 + 4 * 3600))
    assert samples.energy_wh == pytest.approx(1.0)


def test_energy_is_unknown_when_one_device_cannot_tell():
    samples = SampleAccumulator()
    held = [lease(), lease("l-2", kind="cpu")]
    samples.add(held, usage(joules=0.0))
    samples.add(held, usage(joules=3600.0))
    assert samples.energy_wh is None


def test_energy_is_unknown_after_a_counter_ran_backwards():
    samples = SampleAccumulator()
    for joules in (100.0, 50.0, 4000.0):
        samples.add([lease()], usage(joules=joules))
    assert samples.energy_wh is None


def test_a_lease_that_ended_still_counts():
    samples = SampleAccumulator()
    samples.add([lease()], usage())
    samples.add([], usage())
    assert samples.cost(0, 3600).gpu_slice_hours == 0.25


class Kernel:
    """A granting side with one lease, whose bill a test sets."""

    def __init__(self) -> None:
        self.bill: dict[str, Any] | None = bill(0.0, 0.0)
        self.settled: list[bool] = []

    def call(self, verb: str, **payload: Any) -> dict[str, Any]:
        if verb == "bill":
            self.settled.append(payload["settle"])
            if self.bill is None:
                raise AIStackError("this broker records no usage")
            return self.bill
        answers = {
            "mine": {"leases": [lease()]},
            "leases": {"leases": []},
            "usage": usage(memory=5),
        }
        return answers.get(verb, {"devices": []})


def test_a_meter_has_usage_recorded_at_both_ends_of_a_run():
    kernel = Kernel()
    meter = RunMeter(kernel, interval=3600.0)  # type: ignore[arg-type]
    meter.start()
    kernel.bill = bill(7200.0, 60.0)
    meter.stop()
    assert kernel.settled == [True, True]
    assert (meter.cost.energy_wh, meter.cost.peak_memory_bytes) == (2.0, 5)


def test_a_broker_that_records_no_usage_costs_a_run_its_energy_alone():
    kernel = Kernel()
    kernel.bill = None
    meter = RunMeter(kernel, interval=3600.0)  # type: ignore[arg-type]
    meter.start()
    meter.stop()
    assert (meter.cost.energy_wh, meter.cost.peak_memory_bytes) == (None, 5)
