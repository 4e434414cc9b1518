from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tornado.web import HTTPError

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.hub.spawn_options import (
    SLICES,
    Offer,
    SpawnOptions,
    form_html,
    offers_of,
)
from jupyter_aistack.testing import simulated_broker

ANN = Caller(user="ann", uid=1000, pid=100, kernel_id="kernel-1")


@pytest.fixture
def service() -> Service:
    return Service(simulated_broker("2xH100-80GB"))


def offers(service: Service) -> list[Offer]:
    queue = service.call("queue", {}, ANN)["queue"]
    return offers_of(service.call("host", {}, ANN), queue, SLICES)


def test_what_fits_is_told_by_what_is_free_now(service: Service) -> None:
    service.call("request", {"spec": "3/4"}, ANN)
    assert [(offer.spec, offer.sentence) for offer in offers(service)] == [
        ("1/4", "fits now, on 2 GPUs"),
        ("1/2", "fits now, on 1 GPU"),
        ("1", "fits now, on 1 GPU"),
    ]
    service.call("request", {"spec": "1"}, ANN)
    assert offers(service)[2].sentence == "fits on no GPU now; kernels wait for it"


def test_who_waits_goes_first(service: Service) -> None:
    service.call("request", {"spec": "3/4"}, ANN)
    service.call("request", {"spec": "2"}, ANN)
    assert {offer.sentence for offer in offers(service)} == {
        "kernels wait for it, behind 1 request"
    }


def test_sick_divided_and_drained_devices_do_not_count(service: Service) -> None:
    host = service.call("host", {}, ANN)
    first, second = host["devices"]
    unusable: list[dict[str, Any]] = [
        {"problem": "it fell off the bus"},
        {"mig_enabled": True},
        {"drain": {"until": None}},
        {"kind": "cpu"},
    ]
    for change in unusable:
        changed = {**host, "devices": [{**first, **change}, second]}
        assert [offer.devices for offer in offers_of(changed, [], SLICES)] == [
            1,
            1,
            1,
        ], change


def test_without_a_broker_the_choice_is_there_and_says_so(tmp_path: Any) -> None:
    unknown = SpawnOptions(str(tmp_path / "none.sock")).offers()
    assert [offer.spec for offer in unknown] == ["1/4", "1/2", "1"]
    assert {offer.sentence for offer in unknown} == {
        "whether it is free cannot be told now"
    }
    assert not any(offer.is_free for offer in unknown)


def test_the_choice_is_html_that_holds_what_was_chosen_last() -> None:
    html = form_html([Offer(spec="1/4", devices=1, waiting=0)], "1/4")
    assert 'value="1/4" checked' in html
    assert 'value="" checked' not in html
    assert "1/4 of a GPU <small>fits now, on 1 GPU</small>" in html


def test_a_choice_becomes_an_argument_of_the_server() -> None:
    spawner = SimpleNamespace(args=["--debug"])
    options = SpawnOptions()
    options.apply(spawner, options.from_form({"aistack_slice": ["1/4"]}))
    options.apply(spawner, {"slice": " 1/2 "})
    assert spawner.args == ["--debug", "--SliceProvisioner.slice=1/2"]
    options.apply(spawner, options.from_form({}))
    assert spawner.args == ["--debug"]


@pytest.mark.parametrize("spec", ["much", "1/4 --allow-root", 3, ["1/4"], "1" * 100])
def test_what_is_no_slice_starts_nothing(spec: object) -> None:
    spawner = SimpleNamespace(args=[])
    with pytest.raises(HTTPError, match="400"):
        SpawnOptions().apply(spawner, {"slice": spec})
    assert spawner.args == []


@pytest.mark.parametrize("spec", ["2", "20GiB", "1g.18gb", "cpu:2", "much", "0"])
def test_only_shares_of_a_gpu_are_offered(spec: str) -> None:
    with pytest.raises(InvalidRequest):
        SpawnOptions(slices=[spec])
