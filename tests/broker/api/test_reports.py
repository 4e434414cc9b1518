"""What the books say, and to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.core.accounting.charges import (
    NO_LEVELS,
    UsageRecord,
    UsageSummary,
    day_of,
    level_of,
)
from jupyter_aistack.core.accounting.usage_report import SYSTEM_USER, Rates
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied
from jupyter_aistack.testing import ManualClock, simulated_broker

NOW = 86400.0 * 20_785 + 3600  # Saturday 2026-11-28
TODAY = day_of(NOW)
ANN = Caller(
    user="ann",
    uid=1000,
    pid=100,
    kernel_id="kernel-1",
    kernel_pid=99,
    label="work/tour.ipynb",
)
BOB = Caller(user="bob", uid=1001, pid=200, kernel_id="kernel-2", kernel_pid=199)
ADMIN = Caller(user="root", uid=0, pid=1, is_admin=True)
RATES = Rates(carbon_g_per_kwh=400.0, price_per_kwh=0.25)


def build(*, clock: ManualClock | None = None, show_names: bool = True) -> Service:
    return Service(
        simulated_broker("1xH100-80GB", clock=clock or ManualClock(NOW)),
        rates=RATES,
        show_names=show_names,
    )


@pytest.fixture
def service() -> Service:
    return build()


def charge(user: str = "ann", hours: float = 2.0, **fields: Any) -> UsageRecord:
    levels = list(NO_LEVELS)
    levels[level_of(0.05)] = hours * 3600
    text: dict[str, Any] = {
        "host": "testbox",
        "device_id": "GPU-0",
        "lease_id": f"l-{user}",
        "day": TODAY,
        "user": user,
        "owner": "kernel-1" if user == "ann" else "kernel-2",
        "label": "work/tour.ipynb" if user == "ann" else "",
        "spec": "1/2",
        "seconds": hours * 3600,
        "share_seconds": hours * 1800,
        "millijoules": 3_600_000_000,
        "metered_seconds": hours * 3600,
        "busy_seconds": 0.05 * hours * 3600,
        "levels": tuple(levels),
        "peak_bytes": 4 * GIB,
    }
    return UsageRecord(**text | fields)


def wrote(service: Service, *charges: UsageRecord) -> Service:
    service.broker.ledger.settle(UsageSummary(charges=charges))
    return service


EVERYBODY = (
    charge(),
    charge("bob"),
    charge("ann", day=TODAY - 7),
    charge("", lease_id="", share_seconds=0.0),
)


def seen(
    service: Service, caller: Caller, **payload: Any
) -> list[tuple[str, str, float]]:
    lines = service.call("report", payload, caller)["lines"]
    return [(line["week"], line["user"], line["gpu_hours"]) for line in lines]


# -- reports ---------------------------------------------------------------------------


def test_a_report_is_ones_own_by_week_unless_more_is_asked_for(
    service: Service,
) -> None:
    wrote(service, *EVERYBODY)
    assert seen(service, ANN) == [("2026-W47", "ann", 1.0), ("2026-W48", "ann", 1.0)]
    assert seen(service, ANN, week="2026-W48") == [("2026-W48", "ann", 1.0)]
    assert seen(service, ANN, user="bob") == [("2026-W48", "bob", 1.0)]
    assert [user for _, user, _ in seen(service, BOB, all=True, week="2026-W48")] == [
        SYSTEM_USER,
        "ann",
        "bob",
    ]


def test_a_report_has_energy_carbon_and_cost(service: Service) -> None:
    wrote(service, charge())
    answer = service.call("report", {"week": "2026-W48"}, ANN)
    (line,) = answer["lines"]
    assert (line["energy_kwh"], line["co2e_g"], line["cost"]) == (1.0, 400.0, 0.25)
    assert (line["gpu_hours_used"], line["gpu_hours_idle"]) == (pytest.approx(0.1), 0.0)
    assert (answer["total"]["energy_kwh"], answer["rates"]["price_per_gpu_hour"]) == (
        1.0,
        None,
    )
    assert (answer["since"], answer["until"]) == (86400.0 * 20_780, 86400.0 * 20_787)
    json.dumps(answer)


def test_names_of_others_are_shown_only_where_they_may_be() -> None:
    service = wrote(build(show_names=False), *EVERYBODY)
    assert [user for _, user, _ in seen(service, ANN, all=True, week="2026-W48")] == [
        SYSTEM_USER,
        "ann",
        "someone",
    ]
    with pytest.raises(PermissionDenied, match=r"^user: what others use"):
        service.call("report", {"user": "bob"}, ANN)
    assert [user for _, user, _ in seen(service, ADMIN, user="bob")] == ["bob"]
    assert "bob" in {user for _, user, _ in seen(service, ADMIN, all=True)}


def test_from_one_moment_to_another_is_whole_days_and_the_last_is_not_begun(
    service: Service,
) -> None:
    wrote(service, charge(day=TODAY - 1), charge(), charge(day=TODAY + 1))
    assert seen(service, ANN, since=NOW, until=NOW + 1)[0][2] == 1.0
    midnight = 86400.0 * TODAY
    assert seen(service, ANN, since=midnight, until=midnight + 86400.0)[0][2] == 1.0


@pytest.mark.parametrize(
    ("verb", "payload", "field"),
    [
        ("report", {"week": "last"}, "week"),
        ("report", {"week": "2026-W48", "since": 1.0}, "week"),
        ("report", {"since": "yesterday"}, "since"),
        ("report", {"since": 5.0, "until": 4.0}, "until"),
        ("report", {"all": 1}, "all"),
        ("report", {"user": 5}, "user"),
        ("bill", {"since": -1.0}, "since"),
        ("bill", {"notebook": "yes"}, "notebook"),
        ("advise", {"all": "yes"}, "all"),
        ("cells", {}, "cells"),
        ("cells", {"cells": "1:a"}, "cells"),
        ("cells", {"cells": [5]}, "cells"),
        ("cells", {"cells": [{"cell": "1:a"}]}, "began_at"),
        ("cells", {"cells": [{"cell": "", "began_at": 1.0}]}, "cell"),
        (
            "cells",
            {"cells": [{"cell": "1:a", "began_at": 2.0, "ended_at": 1.0}]},
            "ended_at",
        ),
        ("cells", {"cells": [{"cell": "1:a", "began_at": 2.0}] * 1001}, "cells"),
    ],
)
def test_bad_payloads_name_the_field(
    service: Service, verb: str, payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        service.call(verb, payload, ANN)
    assert refused.value.facts["field"] == field
    assert service.broker.ledger.cells("testbox", 0.0) == ()


# -- bills -----------------------------------------------------------------------------


def test_a_bill_and_a_report_say_what_is_an_estimate(service: Service) -> None:
    wrote(service, charge(cell="3:ab", estimated_millijoules=900_000_000))
    bill = service.call("bill", {}, ANN)
    assert bill["leases"]["l-ann"]["energy_estimated_joules"] == 9e5
    assert bill["total"]["energy_estimated_kwh"] == 0.25
    assert bill["cells"][0]["energy_estimated_wh"] == 250.0
    report = service.call("report", {}, ANN)
    assert report["lines"][0]["energy_estimated_kwh"] == 0.25


def test_a_bill_is_of_the_kernel_or_of_its_notebook(service: Service) -> None:
    earlier = charge(
        owner="kernel-0", lease_id="l-0", day=TODAY - 7, peak_bytes=9 * GIB
    )
    wrote(service, charge(cell="3:ab"), charge(), earlier, charge("bob"))
    answer = service.call("bill", {}, ANN)
    assert (answer["total"]["gpu_hours"], answer["total"]["energy_kwh"]) == (2.0, 2.0)
    assert [row["cell"] for row in answer["cells"]] == ["3:ab", ""]
    assert answer["leases"] == {
        "l-ann": {
            "gpu_seconds": 14400.0,
            "metered_seconds": 14400.0,
            "energy_joules": 7.2e6,
            "energy_estimated_joules": 0.0,
        }
    }
    notebook = service.call("bill", {"notebook": True}, ANN)
    assert (notebook["total"]["gpu_hours"], notebook["total"]["peak_bytes"]) == (
        3.0,
        9 * GIB,
    )
    assert [line["week"] for line in notebook["weeks"]] == ["2026-W47", "2026-W48"]
    assert (
        service.call("bill", {"notebook": True, "since": NOW}, ANN)["total"][
            "gpu_hours"
        ]
        == 2.0
    )
    assert service.call("bill", {"notebook": True}, BOB)["label"] == "", (
        "without a name it is the kernel's"
    )
    assert service.call("bill", {"notebook": True}, BOB)["total"]["gpu_hours"] == 1.0


def test_a_bill_can_be_brought_up_to_date_first() -> None:
    clock = ManualClock(NOW)
    service = build(clock=clock)
    lease = service.call("request", {"spec": "1/4"}, ANN)["lease"]
    service.broker.record_usage()
    clock.advance(5.0)
    assert service.call("bill", {}, ANN)["leases"] == {}
    settled = service.call("bill", {"settle": True}, ANN)
    assert settled["leases"][lease["id"]]["gpu_seconds"] == 5.0
    assert settled["total"]["energy_kwh"] is None, "a simulated device has no counter"
    assert settled["total"]["is_simulated"] is True


def test_cells_are_noted_for_the_kernel_that_tells(service: Service) -> None:
    cells = [
        {"cell": "3:ab", "began_at": 1.0, "ended_at": 2.5},
        {"cell": "4:" + "x" * 99, "began_at": 3.0},
    ]
    assert service.call("cells", {"cells": cells}, ANN) == {"noted": 2}
    first, second = service.broker.ledger.cells("testbox", 0.0)
    assert (first.user, first.owner) == ("ann", "kernel-1")
    assert (first.cell, first.ended_at) == ("3:ab", 2.5)
    assert (len(second.cell), second.ended_at) == (64, None)


# -- advice ----------------------------------------------------------------------------


def test_advice_is_of_the_notebook_that_asks(service: Service) -> None:
    wrote(
        service,
        charge(),
        charge("bob", hours=0.5),
        charge(label="other.ipynb", lease_id="l-9", peak_bytes=38 * GIB),
    )
    (mine,) = service.call("advise", {}, ANN)["advice"]
    assert (mine["label"], mine["verdict"], mine["asked"], mine["advised"]) == (
        "work/tour.ipynb",
        "less",
        "1/2",
        "1/8",
    )
    assert mine["text"].startswith(
        "asked 1/2 = 40.0 GiB, peak 4.0 GiB, busy 10%: 1/8 would do; saves "
    )
    assert service.call("advise", {}, BOB)["advice"][0]["verdict"] == "unknown"
    everything = service.call("advise", {"all": True}, ANN)["advice"]
    assert [(each["label"], each["verdict"]) for each in everything] == [
        ("other.ipynb", "more"),
        ("work/tour.ipynb", "less"),
    ]


def test_advice_looks_back_four_weeks(service: Service) -> None:
    wrote(service, charge(day=TODAY - 29))
    assert service.call("advise", {}, ANN)["advice"][0]["verdict"] == "unknown"


@pytest.mark.parametrize(
    ("spec", "is_told"),
    [("1/2", True), ("1", True), ("40GiB", True), ("1/8", False), ("10GiB", False)],
)
def test_who_asks_for_more_than_was_needed_is_told_in_one_line(
    service: Service, spec: str, is_told: bool
) -> None:
    line = wrote(service, charge()).call("request", {"spec": spec}, ANN)["advice"]
    assert (line is not None) == is_told
    if is_told:
        assert line.startswith("this notebook asked 1/2 = 40.0 GiB, peak 4.0 GiB")
        assert "\n" not in line


def test_who_asks_for_less_than_was_needed_is_told_too(service: Service) -> None:
    wrote(service, charge(spec="1/8", share_seconds=900.0, peak_bytes=12 * GIB))
    assert "ask 1/4" in service.call("request", {"spec": "1/8"}, ANN)["advice"]


def test_without_a_history_nothing_is_said(service: Service) -> None:
    assert service.call("request", {"spec": "1/2"}, ANN)["advice"] is None


def test_advice_finds_a_notebook_by_the_name_it_asks_under(service: Service) -> None:
    """Where no server knows a kernel's notebook, the kernel itself says it."""
    wrote(service, charge(owner="pid-1", label="mine.ipynb"))
    alone = Caller(user="ann", uid=1000, pid=300)
    answer = service.call(
        "request", {"spec": "1/2", "holder": {"label": "mine.ipynb"}}, alone
    )
    assert "1/8 would do" in answer["advice"]
    assert (
        "1/8 would do"
        in service.call("advise", {"label": "mine.ipynb"}, alone)["advice"][0]["text"]
    )
