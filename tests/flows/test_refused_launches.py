"""Launches we turn down, through the REST calls a browser makes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from jupyter_aistack.broker.broker import Broker
from tests.fakes.kernel_server import ALL, WriteKernel, environment_of, lease_of, pid_of
from tests.fakes.waiting import until

Post = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def call(server: Any, jp_fetch: Any) -> Post:
    """Status and JSON of one REST call, errors included."""

    async def call(method: str, *path: str, body: Any = None) -> tuple[int, Any]:
        try:
            answer = await jp_fetch(
                "api",
                *path,
                method=method,
                body=None if body is None else json.dumps(body),
            )
        except HTTPClientError as error:
            answer = error.response
        return answer.code, json.loads(answer.body or b"null")

    return call


def session(kernel_name: str) -> dict[str, Any]:
    return {
        "path": "work/tour.ipynb",
        "name": "tour.ipynb",
        "type": "notebook",
        "kernel": {"name": kernel_name},
    }


WRONG = [
    (
        {"slise": "1/4"},
        "kernel_provisioner.config.slise: there is no such setting; there is slice, up_to, ",
    ),
    ({"slice": 0.25}, 'kernel_provisioner.config.slice: expected text such as "1/4"'),
    (
        {"wait_seconds": "2"},
        "kernel_provisioner.config.wait_seconds: expected a number of seconds",
    ),
    (
        {"wait_seconds": -1},
        "kernel_provisioner.config.wait_seconds: expected a number of seconds, 0 or more",
    ),
    (
        {"grace_seconds": -1},
        "kernel_provisioner.config.grace_seconds: expected a number of seconds, 0 or more",
    ),
    ({"slice": "5/4"}, "spec: "),
    (
        {"slice": "cpu:1/2", "up_to": "1/4"},
        "up_to: 1/4 of a device is less than cpu:1/2 guarantees (1/2)",
    ),
    ({"slice": "cpu:1", "up_to": "all"}, "up_to: 'all' is no share"),
    ({"slice": "a lot"}, "spec: 'a lot' "),
    ({"slice": "cpu:1000"}, "spec: cpu:1000 cannot be had here: "),
    ({"slice": "gpu:1/4"}, "spec: gpu:1/4 cannot be had: this host has no GPU"),
    (
        {"slice": "cpu:1", "queue": "vip"},
        "queue: there is no queue 'vip'; there is default",
    ),
]


@pytest.mark.parametrize(
    ("config", "sentence"), WRONG, ids=lambda value: str(value)[:24]
)
async def test_request_that_makes_no_sense_is_refused_in_one_sentence(
    call: Post,
    kernels: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    config: dict[str, Any],
    sentence: str,
) -> None:
    status, answer = await call(
        "POST", "kernels", body={"name": kernelspec("wrong", **config)}
    )
    assert status == 503
    assert answer["message"].startswith(sentence)
    assert "\n" not in answer["message"]
    assert broker.leases(live=False) == ()
    assert not kernels._pending_kernels
    assert kernels.list_kernel_ids() == []


async def test_session_is_refused_with_the_sentence_alone(
    call: Post, kernelspec: WriteKernel
) -> None:
    status, answer = await call(
        "POST", "sessions", body=session(kernelspec("wrong", slice="half"))
    )
    assert status == 500
    assert answer["message"].startswith("spec: 'half' ")


async def test_switching_kernels_on_a_full_host_ends_in_the_new_kernel_holding_the_slice(
    call: Post, kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    old, new = (
        kernelspec("old", slice=f"cpu:{ALL}"),
        kernelspec("new", slice=f"cpu:{ALL}", wait_seconds=0.1),
    )
    status, made = await call("POST", "sessions", body=session(old))
    assert status == 201
    assert lease_of(broker, made["kernel"]["id"]) is not None
    status, changed = await call(
        "PATCH", "sessions", made["id"], body={"kernel": {"name": new}}
    )
    assert status == 200
    kernel_id = changed["kernel"]["id"]
    assert "AISTACK_REQUEST" in environment_of(pid_of(kernels, kernel_id))
    lease = await until(lambda: lease_of(broker, kernel_id))
    await until(lambda: broker.lease(lease.id).holder.pid == pid_of(kernels, kernel_id))
    assert len(broker.leases()) == 1


async def test_old_kernel_survives_a_switch_that_is_refused(
    call: Post, kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    _, made = await call(
        "POST", "sessions", body=session(kernelspec("old", slice="cpu:1"))
    )
    status, answer = await call(
        "PATCH",
        "sessions",
        made["id"],
        body={"kernel": {"name": kernelspec("wrong", slice="cpu:1000")}},
    )
    assert status >= 500
    assert "cpu:1000" in answer["message"]
    assert lease_of(broker, made["kernel"]["id"]) is not None
    assert kernels.list_kernel_ids() == [made["kernel"]["id"]]


async def test_lease_is_labelled_with_the_notebook(
    call: Post, broker: Broker, kernelspec: WriteKernel, jp_root_dir: Path
) -> None:
    (jp_root_dir / "work").mkdir()
    _, made = await call(
        "POST", "sessions", body=session(kernelspec("one", slice="cpu:1"))
    )
    lease = lease_of(broker, made["kernel"]["id"])
    assert lease is not None
    assert lease.holder.label == "work/tour.ipynb"


async def test_kernel_without_a_notebook_has_no_label(
    call: Post, broker: Broker, kernelspec: WriteKernel
) -> None:
    _, made = await call(
        "POST", "kernels", body={"name": kernelspec("one", slice="cpu:1")}
    )
    lease = lease_of(broker, made["id"])
    assert lease is not None
    assert lease.holder.label == ""
