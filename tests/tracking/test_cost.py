from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.tracking.cost import Cost, own_leases, slice_hours
from jupyter_aistack.tracking.usage_meter import RunMeter, SampleAccumulator


def lease(
    name: str = "l-1", *, kind: str = "share", fraction: str = "1/4", **fields: Any
) -> dict[str, Any]:
    device = "CPU-box" if kind == "cpu" else "GPU-0"
    return {
        "id": name,
        "granted_at": 0.0,
        "ended_at": None,
        "holder": {"id": "k-1", "parent": ""},
        "slices": [{"device_id": device, "kind": kind, "fraction": fraction}],
        **fields,
    }


def usage(
    *,
    memory: int | None = None,
    joules: float | None = None,
    leases: tuple[str, ...] = ("l-1",),
) -> dict[str, Any]:
    return {
        "devices": {"GPU-0": {"energy_joules": joules}},
        "leases": {name: {"memory_bytes": memory} for name in leases},
    }


def test_slice_hours_are_share_times_hours_held():
    assert slice_hours([lease()], 0, 7200) == {"gpu": 0.5, "cpu": 0.0}


def test_slice_hours_add_up_over_leases_and_keep_cpu_apart():
    leases = [
        lease(),
        lease("l-2", fraction="1/2"),
        lease("l-3", kind="cpu", fraction="1"),
    ]
    assert slice_hours(leases, 0, 3600) == {"gpu": 0.75, "cpu": 1.0}


@pytest.mark.parametrize(
    ("granted_at", "ended_at", "hours"),
    [
        (1800.0, None, 0.5),  # granted in the middle
        (-9000.0, 1800.0, 0.5),  # ended in the middle
        (-9000.0, -1.0, 0.0),  # over before
        (9000.0, None, 0.0),  # granted after
        (-9000.0, 99999.0, 1.0),  # longer than the interval
    ],
)
def test_slice_hours_count_only_what_lies_in_the_interval(
    granted_at: float, ended_at: float | None, hours: float
):
    held = lease(fraction="1", granted_at=granted_at, ended_at=ended_at)
    assert slice_hours([held], 0, 3600)["gpu"] == hours


def test_own_leases_are_the_kernels_and_its_workers():
    mine = lease("mine")
    worker = lease("worker", holder={"id": "w-0", "parent": "k-1"})
    other = lease("other", holder={"id": "k-2", "parent": ""})
    assert [own["id"] for own in own_leases([mine, worker, other], [mine])] == [
        "mine",
        "worker",
    ]
    assert [own["id"] for own in own_leases([mine, worker, other], [worker])] == [
        "mine",
        "worker",
    ]


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


def test_cost_as_json_has_the_sum_and_shows_unknown_as_words():
    cost = Cost(gpu_slice_hours=0.5, cpu_slice_hours=0.25, peak_memory_bytes=1 << 30)
    assert cost.as_dict()["slice_hours"] == 0.75
    assert cost.as_dict()["energy_wh"] is None
    shown = cost._repr_mimebundle_()
    assert "cannot be measured here" in shown["text/plain"]
    assert "1.0 GiB" in shown["text/html"]


# -- what the broker has charged -------------------------------------------------------


def bill(
    joules: float, seconds: float, metered: float | None = None, **rates: float
) -> dict[str, Any]:
    known = seconds if metered is None else metered
    sums = {"gpu_seconds": seconds, "metered_seconds": known, "energy_joules": joules}
    no_rates = {
        "carbon_g_per_kwh": None,
        "price_per_kwh": None,
        "price_per_gpu_hour": None,
    }
    return {"leases": {"l-1": sums}, "rates": no_rates | rates}


def test_energy_is_what_was_charged_since_the_first_totals():
    samples = SampleAccumulator()
    samples.add([lease()], usage(joules=0.0))
    samples.charged.add(bill(3600.0, 100.0))
    samples.add([lease()], usage(joules=400_000.0))
    samples.charged.add(
        bill(
            9000.0,
            200.0,
            carbon_g_per_kwh=400.0,
            price_per_kwh=0.5,
            price_per_gpu_hour=8.0,
        )
    )
    cost = samples.cost(0, 3600)
    assert (cost.energy_wh, cost.energy_by) == (1.5, "activity")
    assert cost.co2e_g == pytest.approx(0.6)
    assert cost.cost == pytest.approx(0.25 * 8.0 + 0.0015 * 0.5)
    assert "energy_by" not in cost.as_dict()
    assert "0.60 g CO2e" in cost._repr_mimebundle_()["text/plain"]


def test_charges_that_cover_too_little_leave_the_energy_to_the_shares_and_say_so():
    samples = SampleAccumulator()
    for joules, seconds in ((0.0, 100.0), (9000.0, 200.0)):
        samples.add([lease()], usage(joules=joules * 4))
        samples.charged.add(bill(joules, seconds, metered=seconds / 2))
    cost = samples.cost(0, 3600)
    assert (cost.energy_wh, cost.energy_by) == (2.5, "share")


def test_the_counter_of_a_simulated_device_is_no_energy():
    samples = SampleAccumulator()
    for joules in (0.0, 9000.0):
        samples.add([lease(enforced_by="simulated")], usage(joules=joules))
    cost = samples.cost(0, 3600)
    assert (cost.energy_wh, cost.co2e_g, cost.energy_by) == (None, None, "")


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
