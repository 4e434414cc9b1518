"""Every REST verb, on a real server."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.core.accounting.charges import UsageRecord, UsageSummary, day_of
from jupyter_aistack.core.accounting.usage_report import week_name
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.system.users import current_user
from tests.fakes.rest_server import Ask


async def test_host_shows_simulated_devices_and_says_so(ask: Ask) -> None:
    status, host = await ask("GET", "host")
    assert status == 200
    assert host["simulated"] is True
    assert [
        device["memory_bytes"] for device in host["devices"] if device["kind"] == "gpu"
    ] == [80 * 2**30]
    assert host["queues"][0]["name"] == "default"


async def test_request_that_fits_is_created_and_listed(ask: Ask) -> None:
    status, answer = await ask("POST", "leases", {"spec": "1/4"})
    assert status == 201
    assert set(answer) == {"request", "lease", "advice"}
    assert answer["lease"]["holder"]["user"] == current_user()
    assert answer["lease"]["holder"]["pid"] == os.getpid()
    _, listed = await ask("GET", "leases")
    assert [lease["id"] for lease in listed["leases"]] == [answer["lease"]["id"]]


async def test_request_that_must_wait_is_accepted_with_a_reason_and_granted_on_release(
    ask: Ask,
) -> None:
    _, first = await ask("POST", "leases", {"spec": "1/2"})
    await ask("POST", "leases", {"spec": "1/2"})
    status, second = await ask("POST", "leases", {"spec": "1/2"})
    assert (status, second["lease"], second["request"]["state"]) == (
        202,
        None,
        "queued",
    )
    assert second["request"]["reason"]
    _, queue = await ask("GET", "queue")
    assert [(r["id"], r["position"]) for r in queue["queue"]] == [
        (second["request"]["id"], 1)
    ]

    status, released = await ask("DELETE", f"leases/{first['lease']['id']}")
    assert (status, released["state"], released["outcome"]) == (
        200,
        "ended",
        "released",
    )
    _, listed = await ask("GET", "leases")
    assert second["request"]["id"] in {
        lease["request_id"] for lease in listed["leases"]
    }


async def test_ended_leases_are_listed_on_demand_only(ask: Ask) -> None:
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    await ask("DELETE", f"leases/{answer['lease']['id']}")
    assert (await ask("GET", "leases"))[1] == {"leases": []}
    _, everything = await ask("GET", "leases", params={"all": "1"})
    assert [lease["outcome"] for lease in everything["leases"]] == ["released"]


async def test_waiting_request_is_taken_back(ask: Ask) -> None:
    await ask("POST", "leases", {"spec": "1"})
    _, waiting = await ask("POST", "leases", {"spec": "1"})
    status, request = await ask("DELETE", f"queue/{waiting['request']['id']}")
    assert (status, request["state"]) == (200, "cancelled")
    assert (await ask("GET", "queue"))[1] == {"queue": []}


async def test_time_limited_lease_is_extended(ask: Ask) -> None:
    _, answer = await ask("POST", "leases", {"spec": "1/4", "lease_seconds": 600})
    status, lease = await ask(
        "POST", f"leases/{answer['lease']['id']}/extend", {"seconds": 60}
    )
    assert status == 200
    assert lease["ends_at"] == pytest.approx(answer["lease"]["ends_at"] + 60)


async def test_a_ceiling_is_asked_for_and_what_may_be_used_is_listed(ask: Ask) -> None:
    body = {"spec": "1/4", "up_to": "1/1"}
    _, answer = await ask("POST", "leases", body)
    assert answer["request"]["up_to"] == "1"
    assert answer["lease"]["limits"][0]["fraction"] == "1"
    await ask("POST", "leases", {"spec": "1/2"})
    _, listed = await ask("GET", "leases")
    limits = {lease["id"]: lease["limits"] for lease in listed["leases"]}
    assert limits[answer["lease"]["id"]][0]["fraction"] == "1/2"
    _, events = await ask("GET", "events")
    assert "LeaseLimitsChanged" in {event["kind"] for event in events["events"]}


@pytest.mark.parametrize("ceiling", ["1/8", "2", "much", 0.5])
async def test_a_bad_ceiling_is_refused_and_asks_for_nothing(
    ask: Ask, ceiling: object
) -> None:
    status, answer = await ask("POST", "leases", {"spec": "1/4", "up_to": ceiling})
    assert (status, answer["code"]) == (400, "InvalidRequest")
    assert answer["facts"]["field"] == "up_to"
    assert (await ask("GET", "leases"))[1] == {"leases": []}


async def test_usage_names_device_and_lease(ask: Ask) -> None:
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    status, usage = await ask("GET", "usage")
    assert status == 200
    assert set(usage) == {"at", "devices", "leases"}
    assert answer["lease"]["slices"][0]["device_id"] in usage["devices"]
    assert answer["lease"]["id"] in usage["leases"]


async def test_events_are_read_from_where_one_was(ask: Ask) -> None:
    await ask("POST", "leases", {"spec": "1/4"})
    _, events = await ask("GET", "events")
    assert "LeaseGranted" in {event["kind"] for event in events["events"]}
    last = events["events"][-1]["sequence"]
    assert (await ask("GET", "events", params={"after": str(last)}))[1] == {
        "events": []
    }


@pytest.mark.parametrize(
    ("body", "status", "code", "word"),
    [
        ("nonsense", 400, "InvalidRequest", "JSON"),
        ("", 400, "InvalidRequest", "JSON"),
        ("[]", 400, "InvalidRequest", "object"),
        (b"\xff{}", 400, "InvalidRequest", "UTF-8"),
        ("[" * 100_000, 400, "InvalidRequest", "JSON"),
        ('{"spec": "\\ud800"}', 400, "InvalidRequest", "UTF-8"),
        ('{"spec": "\\u0000"}', 400, "InvalidRequest", "NUL"),
        ('{"spec": "1", "lease_seconds": NaN}', 400, "InvalidRequest", "JSON"),
        (
            '{"spec": "1", "lease_seconds": 1e999}',
            400,
            "InvalidRequest",
            "lease_seconds",
        ),
        ({}, 400, "InvalidRequest", "spec"),
        ({"spec": 1}, 400, "InvalidRequest", "spec"),
        ({"spec": "nan"}, 400, "InvalidRequest", "spec"),
        ({"spec": "-1"}, 400, "InvalidRequest", "spec"),
        ({"spec": "0"}, 400, "InvalidRequest", "spec"),
        ({"spec": "1/4", "colour": "red"}, 400, "InvalidRequest", "colour"),
        ({"spec": "1/4", "kernel_id": "none-such"}, 400, "InvalidRequest", "kernel_id"),
        ({"spec": "1/4", "kernel_id": ""}, 400, "InvalidRequest", "kernel_id"),
        ({"spec": "1/4", "lease_seconds": 0}, 400, "InvalidRequest", "lease_seconds"),
        ({"spec": "1/4", "preemptible": "no"}, 400, "InvalidRequest", "preemptible"),
        ({"spec": "1/4", "queue": "none-such"}, 404, "UnknownQueue", "queue"),
        ({"spec": "1000000000"}, 400, "InvalidRequest", "spec"),
        ({"spec": "8"}, 409, "Unsatisfiable", "8"),
    ],
)
async def test_bad_request_names_the_field_and_changes_nothing(
    ask: Ask, body: Any, status: int, code: str, word: str
) -> None:
    got, error = await ask("POST", "leases", body)
    assert (got, error["code"], error["reason"]) == (status, code, None)
    assert word in error["message"]
    assert "\n" not in error["message"]
    assert (await ask("GET", "leases", params={"all": "1"}))[1] == {"leases": []}
    assert (await ask("GET", "queue"))[1] == {"queue": []}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("DELETE", "leases/l-none", 404, "LeaseNotFound"),
        ("DELETE", "leases/'; drop table leases --", 404, "LeaseNotFound"),
        ("DELETE", "queue/r-none", 404, "LeaseNotFound"),
        ("PUT", "host", 405, "MethodNotAllowed"),
    ],
)
async def test_what_is_not_there_is_an_error_in_json(
    ask: Ask, method: str, path: str, status: int, code: str
) -> None:
    got, error = await ask(method, path)
    assert (got, error["code"]) == (status, code)
    assert set(error) == {"code", "message", "facts", "reason"}


@pytest.mark.parametrize(
    ("path", "name", "text"), [("leases", "all", "maybe"), ("events", "after", "-1")]
)
async def test_query_argument_that_makes_no_sense_is_named(
    ask: Ask, path: str, name: str, text: str
) -> None:
    status, error = await ask("GET", path, params={name: text})
    assert (status, error["facts"]) == (400, {"field": name})


async def test_lease_of_another_user_is_left_alone(
    ask: Ask, context: ServerContext
) -> None:
    from jupyter_aistack.testing import holder

    request = context.broker.submit("1/4", holder(host=context.broker.host))
    status, error = await ask("DELETE", f"leases/{request.lease_id}")
    assert (status, error["code"]) == (403, "PermissionDenied")
    assert context.broker.lease(request.lease_id).is_live


async def test_lease_for_a_kernel_is_held_by_it_under_its_notebooks_name(
    ask: Ask,
    jp_fetch: Any,
    jp_create_notebook: Any,
    context: ServerContext,
    server: Any,
) -> None:
    jp_create_notebook("work/tour.ipynb")
    session = {
        "path": "work/tour.ipynb",
        "name": "tour.ipynb",
        "type": "notebook",
        "kernel": {"name": "python3"},
    }
    response = await jp_fetch(
        "api", "sessions", method="POST", body=json.dumps(session)
    )
    kernel_id = json.loads(response.body)["kernel"]["id"]
    status, answer = await ask(
        "POST", "leases", {"spec": "1/4", "kernel_id": kernel_id}
    )
    held_by = answer["lease"]["holder"]
    pid = server.kernel_manager.get_kernel(kernel_id).provisioner.pid
    assert status == 201
    assert (held_by["kind"], held_by["id"], held_by["label"]) == (
        "kernel",
        kernel_id,
        "work/tour.ipynb",
    )
    assert held_by["pid"] == pid
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


async def test_report_bill_and_advice_say_what_was_used(
    ask: Ask, context: ServerContext
) -> None:
    await ask("POST", "leases", {"spec": "1/4"})
    user, today = current_user(), day_of(context.broker.clock())
    owner = f"pid-{os.getpid()}"
    used = UsageRecord(
        host="h",
        device_id="GPU-0",
        lease_id="l-1",
        day=today,
        user=user,
        owner=owner,
        label="a.ipynb",
    )
    used = replace(
        used,
        seconds=3600.0,
        share_seconds=900.0,
        millijoules=3_600_000_000,
        metered_seconds=3600.0,
    )
    context.broker.ledger.settle(
        UsageSummary(charges=(used, replace(used, user="bob", lease_id="l-2")))
    )
    status, report = await ask("GET", "report", params={"week": week_name(today)})
    assert status == 200
    (line,) = (line for line in report["lines"] if line["energy_kwh"] is not None)
    assert (line["user"], line["gpu_hours"], line["energy_kwh"]) == (user, 0.25, 1.0)
    _, everybody = await ask("GET", "report", params={"all": "1"})
    assert "bob" in {line["user"] for line in everybody["lines"]}
    _, bill = await ask("GET", "bill")
    assert bill["leases"]["l-1"]["energy_joules"] == 3_600_000.0
    _, advice = await ask("GET", "advice")
    assert [(each["label"], each["verdict"]) for each in advice["advice"]] == [
        ("a.ipynb", "unknown")
    ]


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("report", {"week": "last"}, "week"),
        ("report", {"since": "yesterday"}, "since"),
        ("report", {"all": "yes"}, "all"),
        ("bill", {"kernel_id": "none"}, "kernel_id"),
        ("advice", {"kernel_id": "none"}, "kernel_id"),
    ],
)
async def test_a_report_that_cannot_be_made_names_the_field(
    ask: Ask, path: str, params: dict[str, str], field: str
) -> None:
    status, error = await ask("GET", path, params=params)
    assert (status, error["facts"]["field"]) == (400, field)


@pytest.mark.parametrize("verb", ["suspend", "resume", "pin", "unpin"])
async def test_a_lease_that_has_ended_says_so_whatever_is_asked_of_it(
    ask: Ask, verb: str
) -> None:
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    lease_id = answer["lease"]["id"]
    await ask("DELETE", f"leases/{lease_id}")
    status, error = await ask("POST", f"leases/{lease_id}/{verb}", {})
    assert (status, error["code"]) == (409, "LeaseLost")
    assert (
        error["message"] == f"lease {lease_id} has ended (released); request a new one"
    )


@pytest.mark.parametrize("verb", ["suspend", "resume", "pin", "unpin"])
async def test_fields_that_a_move_does_not_know_are_refused(
    ask: Ask, verb: str
) -> None:
    status, error = await ask("POST", f"leases/l-1/{verb}", {"force": True})
    assert (status, error["code"]) == (400, "InvalidRequest")
    assert "force" in error["message"]
