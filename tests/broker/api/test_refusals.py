"""Refusals are logged with who was refused, and counted."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.exceptions import LeaseNotFound, PermissionDenied
from jupyter_aistack.testing import simulated_broker

ANN = Caller(user="ann", uid=os.getuid(), pid=100, kernel_id="kernel-1")
EVE = Caller(user="eve", uid=1001, pid=200, kernel_id="kernel-2")


@pytest.fixture
def service() -> Service:
    return Service(simulated_broker("1xH100-80GB"))


def ask(service: Service, caller: Caller, spec: str) -> dict[str, Any]:
    return service.call("request", {"spec": spec}, caller)


def test_whatever_names_what_is_anothers_is_refused_logged_and_counted(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    lease = ask(service, ANN, "1")["lease"]
    waiting = ask(service, ANN, "1")["request"]
    of_lease = {
        "activate": {"token": lease["token"]},
        "listed": {"pid": 1},
        "bind": {"token": lease["token"], "root_pid": 1},
        "extend": {"seconds": 60},
        "release": {},
        "suspend": {},
        "resume": {},
        "pin": {},
        "unpin": {},
        "begin_cell": {},
        "end_cell": {},
    }
    calls = {verb: {"lease_id": lease["id"], **f} for verb, f in of_lease.items()}
    calls |= {verb: {"request_id": waiting["id"]} for verb in ("wait_for", "cancel")}
    before = service.call("leases", {}, ANN)
    with caplog.at_level(logging.WARNING, logger="jupyter_aistack"):
        for verb, payload in calls.items():
            with pytest.raises(PermissionDenied):
                service.call(verb, payload, EVE)
    assert service.refusals.counts == dict.fromkeys(calls, 1)
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in told] == [
        f"refused {verb} to eve (uid 1001, pid 200)" for verb in calls
    ]
    assert service.call("leases", {}, ANN) == before


def test_what_is_not_there_is_no_refusal(service: Service) -> None:
    with pytest.raises(LeaseNotFound):
        service.call("release", {"lease_id": "l-nothing"}, EVE)
    assert not service.refusals.counts


def test_nobody_has_another_users_process_charged_to_their_lease(
    service: Service,
) -> None:
    lease = ask(service, EVE, "1/4")["lease"]
    bound = {"lease_id": lease["id"], "token": lease["token"]}
    with pytest.raises(PermissionDenied, match="belongs to another user"):
        service.call("bind", {**bound, "root_pid": os.getpid()}, EVE)
    assert service.refusals.counts == {"bind": 1}
    own = replace(EVE, uid=os.getuid())
    service.call("bind", {**bound, "root_pid": os.getpid()}, own)


def test_an_agent_hears_of_its_own_lease_only(service: Service) -> None:
    lease = ask(service, ANN, "1/4")["lease"]
    assert service.check_lease("orders", lease["id"], ANN).id == lease["id"]
    with pytest.raises(PermissionDenied):
        service.check_lease("orders", lease["id"], EVE)
    assert service.refusals.counts == {"orders": 1}


def test_names_of_verbs_that_there_are_not_are_neither_kept_nor_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one\nERROR forged", "two"):
        with pytest.raises(PermissionDenied), service.refusals.recorded(name, EVE):
            raise PermissionDenied("no")
    assert service.refusals.counts == {"unknown": 2}
    assert "forged" not in caplog.text
