from __future__ import annotations

import pytest

from jupyter_aistack.tracking.cost import Cost, own_leases, slice_hours
from jupyter_aistack.tracking.usage_meter import SampleAccumulator
from tests.fakes.bills import bill, lease, usage


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
    user = mine["holder"]["user"]

    def held(name: str, kind: str, **fields: str) -> dict[str, object]:
        holder = {"kind": kind, "user": user, "parent": "", **fields}
        return lease(name, holder=holder)

    worker = held("worker", "worker", id="w-0", parent="k-1")
    everything = [
        mine,
        worker,
        held("other", "kernel", id="k-2"),
        held("another's", "kernel", id="k-1", user="eve"),
        held("a namesake", "worker", id="k-1", parent="k-2"),
    ]
    for known in (mine, worker):
        own = own_leases(everything, [known])
        assert [each["id"] for each in own] == ["mine", "worker"]


def test_cost_as_json_has_the_sum_and_shows_unknown_as_words():
    cost = Cost(gpu_slice_hours=0.5, cpu_slice_hours=0.25, peak_memory_bytes=1 << 30)
    assert cost.as_dict()["slice_hours"] == 0.75
    assert cost.as_dict()["energy_wh"] is None
    shown = cost._repr_mimebundle_()
    assert "cannot be measured here" in shown["text/plain"]
    assert "1.0 GiB" in shown["text/html"]


# -- what the broker has charged -------------------------------------------------------


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


def test_energy_that_is_in_part_an_estimate_says_so():
    samples = SampleAccumulator()
    samples.charged.add(bill(3600.0, 100.0, estimated=1800.0))
    samples.charged.add(bill(7200.0, 200.0, estimated=1800.0))
    assert samples.cost(0, 3600).energy_by == "activity", "the estimate was before"
    samples.charged.add(bill(7200.0, 200.0, estimated=1801.0))
    cost = samples.cost(0, 3600)
    assert (cost.energy_wh, cost.energy_by) == (1.0, "share")
    assert "1.000 Wh, an estimate" in cost._repr_mimebundle_()["text/plain"]


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
