"""What users of a hub ask of their servers."""

from __future__ import annotations

from typing import Any

from tests.fakes.jupyterhub import HubUser


def ask_for_kernel(user: HubUser, spec: str) -> dict[str, Any]:
    """The answer to a request for a new kernel, in which nothing runs."""
    kernel = user.call("POST", "api/kernels", {}).json()
    body = {"spec": spec, "kernel_id": kernel["id"]}
    answer = user.call("POST", "aistack/api/v1/leases", body)
    assert answer.ok, answer.text
    outcome: dict[str, Any] = answer.json()
    return outcome


def leases(user: HubUser) -> list[dict[str, Any]]:
    """The live leases that the user's server shows."""
    answer = user.call("GET", "aistack/api/v1/leases")
    return list(answer.json()["leases"])


def queue(user: HubUser) -> set[str]:
    """The ids of all requests that wait."""
    waiting = user.call("GET", "aistack/api/v1/queue").json()["queue"]
    return {request["id"] for request in waiting}
