from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.core.accounting.charges import UsageRecord, UsageSummary
from jupyter_aistack.core.model.roles import REACHES
from jupyter_aistack.core.wire.preparations import PREPARATION
from jupyter_aistack.core.wire.records import LEASE
from jupyter_aistack.core.wire.values import request_to_dict
from jupyter_aistack.exceptions import (
    AIStackError,
    InvalidRequest,
    LeaseLost,
    LeaseNotFound,
    PermissionDenied,
)
from jupyter_aistack.testing import simulated_broker
from tests.paths import DATA

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


@pytest.fixture
def service() -> Service:
    return Service(simulated_broker("1xH100-80GB"))


def ask(
    service: Service, caller: Caller, spec: str = "1/4", **more: Any
) -> dict[str, Any]:
    return service.call("request", {"spec": spec, **more}, caller)


def test_the_holder_is_who_the_transport_says_not_who_the_payload_says(
    service: Service,
) -> None:
    for strange in ({"user": "root"}, {"pid": 1}, {"parent": "kernel-9"}):
        with pytest.raises(InvalidRequest, match="only id, kind, label may be given"):
            ask(service, ANN, holder=strange)
    assert service.call("leases", {}, ANN)["leases"] == []
    holder = ask(service, ANN, holder={"id": "kernel-9"})["lease"]["holder"]
    assert (holder["user"], holder["pid"], holder["id"], holder["kind"]) == (
        "ann",
        99,
        "kernel-1",
        "kernel",
    )
    assert holder["label"] == "work/tour.ipynb"


def test_a_worker_belongs_to_the_kernel_that_asked_for_it(service: Service) -> None:
    ask(service, ANN, holder={"kind": "worker", "id": "worker-0"})
    mine = service.call("mine", {}, ANN)
    assert [lease["holder"]["parent"] for lease in mine["leases"]] == ["kernel-1"]
    assert mine["prepared"] == {}, "a worker's environment is not the kernel's"
    assert service.call("mine", {}, BOB)["leases"] == []


def test_a_worker_that_is_called_like_a_kernel_is_not_that_kernel(
    service: Service,
) -> None:
    """Neither another's kernel, nor another user's that chose the same id."""
    for asker in (ANN, replace(BOB, user="eve", kernel_id="kernel-9")):
        namesake = {"kind": "worker", "id": BOB.kernel_id}
        lease = ask(service, asker, "1/8", holder=namesake)["lease"]
        mine = service.call("mine", {}, BOB)
        assert (mine["leases"], mine["prepared"]) == ([], {})
        assert [each["id"] for each in service.call("mine", {}, asker)["leases"]] == [
            lease["id"]
        ]
    pretender = replace(BOB, user="eve")
    ask(service, pretender, "1/8")
    assert service.call("mine", {}, BOB)["leases"] == []
    own = ask(service, BOB, "1/8")["lease"]
    assert list(service.call("mine", {}, BOB)["prepared"]) == [own["id"]]


def test_mine_brings_what_a_kernel_needs_to_attach_a_lease_granted_meanwhile(
    service: Service,
) -> None:
    first = ask(service, BOB, "1")["lease"]
    waiting = ask(service, ANN, "1/2")
    assert (waiting["lease"], waiting["request"]["position"]) == (None, 1)
    service.call("release", {"lease_id": first["id"]}, BOB)
    mine = service.call("mine", {}, ANN)
    (lease,) = mine["leases"]
    prepared = PREPARATION.from_dict(mine["prepared"][lease["id"]])
    assert prepared.environment["AISTACK_LEASE"] == lease["id"]


@pytest.mark.parametrize("verb", ["release", "extend", "bind", "activate"])
def test_only_the_user_who_holds_a_lease_or_an_admin_may_change_it(
    service: Service, verb: str
) -> None:
    lease = ask(service, ANN, lease_seconds=600)["lease"]
    payload = {
        "lease_id": lease["id"],
        "token": lease["token"],
        "seconds": 60,
        "root_pid": 7,
        "verified": True,
    }
    with pytest.raises(PermissionDenied, match="belongs to ann"):
        service.call(verb, payload, BOB)
    assert service.broker.lease(lease["id"]).state.value == "granted"
    assert service.call(verb, payload, ADMIN)["id"] == lease["id"]


def test_a_lease_may_live_as_long_as_what_its_holder_has_started(
    service: Service,
) -> None:
    parent = replace(
        ANN, uid=os.getuid(), kernel_id="", kernel_pid=None, pid=os.getppid()
    )
    lease = ask(service, parent)["lease"]
    bound = {"lease_id": lease["id"], "token": lease["token"], "root_pid": parent.pid}
    for stranger in (1, os.getppid()):
        with pytest.raises(InvalidRequest, match=f"pid: {stranger} is no process that"):
            service.call("bind", {**bound, "pid": stranger}, parent)
    assert service.broker.lease(lease["id"]).holder.pid == parent.pid
    service.call("bind", {**bound, "pid": os.getpid()}, parent)
    holder = service.broker.lease(lease["id"]).holder
    assert (holder.pid, holder.root_pid) == (os.getpid(), parent.pid)
    assert holder.id == f"pid-{parent.pid}"


OF_TRANSPORTS = {"orders", "done"}


def test_every_verb_has_a_row_in_the_table_of_roles(service: Service) -> None:
    assert {*service.verbs, *OF_TRANSPORTS} == set(REACHES)


def test_only_the_asker_may_watch_or_cancel_a_request(service: Service) -> None:
    ask(service, BOB, "1")
    request_id = ask(service, ANN)["request"]["id"]
    for verb in ("wait_for", "cancel"):
        with pytest.raises(PermissionDenied):
            service.call(verb, {"request_id": request_id}, BOB)
    assert (
        service.call("cancel", {"request_id": request_id}, ANN)["state"] == "cancelled"
    )


@pytest.mark.parametrize(
    ("verb", "payload", "field"),
    [
        ("nonsense", {}, "verb"),
        ("request", {}, "spec"),
        ("request", {"spec": 7}, "spec"),
        ("request", {"spec": "1/4", "lease_seconds": "long"}, "lease_seconds"),
        ("request", {"spec": "1/4", "lease_seconds": 0}, "lease_seconds"),
        ("request", {"spec": "1/4", "lease_seconds": float("nan")}, "lease_seconds"),
        ("request", {"spec": "1/4", "patience_seconds": -1}, "patience_seconds"),
        ("request", {"spec": "1/4", "queue": ["default"]}, "queue"),
        ("request", {"spec": "1/4", "holder": {"kind": "kernelish"}}, "holder.kind"),
        ("request", {"spec": "1/4", "holder": {"kind": "worker"}}, "id"),
        ("request", {"spec": "1/4", "holder": "root"}, "holder"),
        ("release", {}, "lease_id"),
        ("events", {"after": -1}, "after"),
        ("events", {"after": True}, "after"),
    ],
)
def test_bad_payloads_name_the_field_and_change_nothing(
    service: Service, verb: str, payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        service.call(verb, payload, ANN)
    assert caught.value.facts["field"] == field
    assert not service.broker.events()


def test_looking_at_a_lease_in_use_never_ends_it(service: Service) -> None:
    lease = ask(service, ANN)["lease"]
    payload = {"lease_id": lease["id"], "token": lease["token"], "verified": True}
    service.call("activate", payload, ANN)
    service.broker.devices.providers[0].fail_prepare("the driver hangs")  # type: ignore[attr-defined]
    assert service.call("mine", {}, ANN)["prepared"] == {}
    assert (
        service.call("wait_for", {"request_id": lease["request_id"]}, ANN)["prepared"]
        is None
    )
    assert service.broker.lease(lease["id"]).state.value == "active"


def test_a_lease_that_is_over_is_shown_and_not_prepared_again(service: Service) -> None:
    lease = ask(service, ANN)["lease"]
    service.call("release", {"lease_id": lease["id"]}, ANN)
    answer = service.call("wait_for", {"request_id": lease["request_id"]}, ANN)
    assert (answer["lease"]["outcome"], answer["prepared"]) == ("released", None)


@pytest.mark.parametrize("verified", [1, "yes", 0])
def test_verified_is_true_false_or_unknown(service: Service, verified: object) -> None:
    lease = ask(service, ANN)["lease"]
    with pytest.raises(InvalidRequest, match="verified"):
        service.call(
            "activate",
            {"lease_id": lease["id"], "token": lease["token"], "verified": verified},
            ANN,
        )


def test_a_lease_without_an_end_stays_without_one_when_extended(
    service: Service,
) -> None:
    endless = ask(service, ANN)["lease"]
    assert (
        service.call("extend", {"lease_id": endless["id"], "seconds": 60}, ANN)[
            "ends_at"
        ]
        is None
    )
    limited = ask(service, BOB, lease_seconds=100)["lease"]
    extended = service.call("extend", {"lease_id": limited["id"], "seconds": 60}, BOB)
    assert extended["ends_at"] == limited["ends_at"] + 60


def test_every_answer_is_json_and_reads_back_as_the_same_values(
    service: Service,
) -> None:
    answer = json.loads(json.dumps(ask(service, ANN)))
    lease = LEASE.from_dict(answer["lease"])
    assert LEASE.to_dict(lease) == answer["lease"]
    assert set(answer["request"]) == set(
        request_to_dict(service.broker.request(answer["request"]["id"]))
    )
    for verb in ("host", "leases", "queue", "events", "usage", "mine"):
        assert json.loads(json.dumps(service.call(verb, {}, ANN)))
    assert service.call("host", {}, ANN)["devices"][0]["free_fraction"] == "3/4"


def test_the_samples_the_browser_is_tested_with_are_what_this_side_reads_and_writes() -> (
    None
):
    samples = json.loads((DATA / "wire_samples.json").read_text())
    for lease in samples["leases"]:
        assert LEASE.to_dict(LEASE.from_dict(lease)) == lease


def test_the_samples_have_the_keys_the_service_answers_with(service: Service) -> None:
    samples = json.loads((DATA / "wire_samples.json").read_text())
    ask(service, ANN)
    waiting = ask(service, BOB, "1")
    assert set(samples["queue"][0]) == set(waiting["request"])
    host = service.call("host", {}, ANN)
    assert set(samples["host"]) == set(host)
    assert set(samples["host"]["devices"][0]) == set(host["devices"][0])
    usage = service.call("usage", {}, ANN)
    assert set(samples["usage"]) == set(usage)
    assert {key for use in samples["usage"]["devices"].values() for key in use} == set(
        next(iter(usage["devices"].values()))
    )
    assert set(samples["events"][0]) == set(
        service.call("events", {}, ANN)["events"][0]
    )


def test_the_samples_of_the_books_have_the_keys_the_service_answers_with(
    service: Service,
) -> None:
    samples = json.loads((DATA / "wire_samples.json").read_text())
    charge = UsageRecord(
        host="testbox",
        device_id="GPU-0",
        lease_id="l-1",
        day=1,
        user="ann",
        owner="kernel-1",
        seconds=1.0,
    )
    service.broker.ledger.settle(UsageSummary(charges=(charge,)))
    report, bill = service.call("report", {}, ANN), service.call("bill", {}, ANN)
    for sample, answer in ((samples["report"], report), (samples["bill"], bill)):
        assert set(sample) == set(answer)
        assert set(sample["total"]) == set(answer["total"])
        assert set(sample["rates"]) == set(answer["rates"])
    assert (
        set(samples["report"]["lines"][0])
        == set(report["lines"][0])
        == set(samples["bill"]["weeks"][0])
    )
    assert set(samples["bill"]["cells"][0]) == set(bill["cells"][0])
    assert set(samples["bill"]["leases"]["l-tour"]) == set(bill["leases"]["l-1"])
    assert set(samples["advice"][0]) == set(
        service.call("advise", {}, ANN)["advice"][0]
    )


def test_unknown_lease_is_not_found(service: Service) -> None:
    with pytest.raises(AIStackError) as caught:
        service.call("release", {"lease_id": "l-nope"}, ANN)
    assert (caught.value.code, caught.value.http_status) == ("LeaseNotFound", 404)


# -- ids of nothing, and of what is over -----------------------------------------------

OF_LEASES: dict[str, dict[str, Any]] = {
    "activate": {"token": 1, "verified": True},
    "listed": {"pid": 1},
    "bind": {"token": 1, "root_pid": 1},
    "extend": {"seconds": 60},
    "suspend": {},
    "resume": {},
    "pin": {},
    "unpin": {},
    "begin_cell": {},
    "end_cell": {},
}
"""Verbs about a live lease, and what they need beside its id."""


@pytest.mark.parametrize("verb", [*OF_LEASES, "release"])
def test_a_lease_that_never_was_is_named(service: Service, verb: str) -> None:
    payload = {**OF_LEASES.get(verb, {}), "lease_id": "l-none"}
    with pytest.raises(LeaseNotFound, match="there is no lease 'l-none'"):
        service.call(verb, payload, ANN)


@pytest.mark.parametrize("lasting", [None, 3600])
@pytest.mark.parametrize("verb", OF_LEASES)
def test_a_lease_that_has_ended_is_said_to_have_ended(
    service: Service, verb: str, lasting: int | None
) -> None:
    lease = ask(service, ANN, lease_seconds=lasting)["lease"]
    service.call("release", {"lease_id": lease["id"]}, ANN)
    payload = {**OF_LEASES[verb], "lease_id": lease["id"]}
    if "token" in payload:
        payload["token"] = lease["token"]
    before = service.call("events", {}, ANN)
    with pytest.raises(LeaseLost, match="has ended"):
        service.call(verb, payload, ANN)
    assert service.call("events", {}, ANN) == before


@pytest.mark.parametrize("verb", ["wait_for", "cancel"])
def test_a_request_that_never_was_is_named(service: Service, verb: str) -> None:
    with pytest.raises(LeaseNotFound, match="there is no request 'r-none'"):
        service.call(verb, {"request_id": "r-none"}, ANN)
