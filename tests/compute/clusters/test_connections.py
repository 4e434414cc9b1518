"""Who can reach a cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from distributed import Client, Security

from jupyter_aistack import Cluster
from jupyter_aistack.compute.clusters import connections
from jupyter_aistack.compute.clusters.connections import security_of
from jupyter_aistack.exceptions import ClusterError, InvalidRequest

LISTENING = psutil.CONN_LISTEN


def listening(cluster: Cluster) -> list[tuple[str, int]]:
    """Where scheduler, nannies (all in this process) and workers listen."""
    own = [psutil.Process(worker.pid) for worker in cluster.workers.values()]
    return [
        tuple(connection.laddr)
        for process in [psutil.Process(), *own]
        for connection in process.net_connections("inet")
        if connection.status == LISTENING
    ]


def own_addresses() -> list[str]:
    """Addresses of this host that other hosts may use."""
    addresses = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family is socket.AF_INET
    ]
    return [address for address in addresses if not address.startswith("127.")]


def test_scheduler_nannies_workers_and_dashboard_listen_on_loopback_only(
    cluster: Cluster,
) -> None:
    places = listening(cluster)
    # Scheduler, dashboard and two nannies here; a port and a page for each worker.
    assert len(places) >= 8
    assert {host for host, _ in places} == {"127.0.0.1"}


def test_nothing_answers_at_other_addresses_of_this_host(cluster: Cluster) -> None:
    others = own_addresses()
    if not others:
        pytest.skip("this host has no address but loopback")
    for _, port in listening(cluster):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((others[0], port), timeout=5)


@pytest.mark.skipif(os.getuid() != 0, reason="two users need root")
def test_another_user_runs_no_code_and_sees_no_page(cluster: Cluster) -> None:
    workers = list(cluster.scheduler_info["workers"])
    port = urlsplit(cluster.dashboard_link).port
    stranger = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("stranger.py")),
            str(port),
            *[str(cluster.scheduler_address), *workers],
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(stranger.stdout)
    assert len(seen["calls"]) == 3
    assert "it ran" not in seen["calls"].values()
    assert set(seen["pages"].values()) == {404}


def test_the_dashboard_is_found_by_its_link(cluster: Cluster) -> None:
    link = cluster.dashboard_link
    with urllib.request.urlopen(link) as page:
        assert page.status == 200
        assert b"bokeh" in page.read().lower()
    assert link in repr(cluster)
    assert f'href="{link}"' in cluster._repr_html_()
    path = urlsplit(link).path
    assert len(path) - len("//status") >= 20
    with Client(cluster, set_as_default=False) as dask:
        assert dask.dashboard_link == link


def test_two_clusters_have_paths_of_their_own() -> None:
    options: Any = {**connections_options(), "host": None}
    paths = {
        connections.scheduler_spec(Security.temporary(), options)["options"][
            "http_prefix"
        ]
        for _ in range(2)
    }
    assert len(paths) == 2


def test_the_link_follows_a_template_of_a_proxy(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    monkeypatch.setenv("PROXY_PREFIX", "/user/ada/")
    secret = urlsplit(cluster.dashboard_link).path.split("/")[1]
    port = urlsplit(cluster.dashboard_link).port
    with dask.config.set(
        {"distributed.dashboard.link": "{PROXY_PREFIX}proxy/{port}/status"}
    ):
        assert cluster.dashboard_link == f"/user/ada/proxy/{port}/{secret}/status"


def test_a_client_of_this_process_needs_the_address_only(cluster: Cluster) -> None:
    with Client(str(cluster.scheduler_address), set_as_default=False) as dask:
        assert dask.submit(lambda: 1).result(timeout=60) == 1
        assert dask.dashboard_link == cluster.dashboard_link


def test_an_address_without_certificates_says_what_is_needed(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"Client\(cluster\), or .*cluster.security"):
        Client("tls://127.0.0.1:1", timeout=2)


def test_certificates_of_the_users_own_configuration_stand() -> None:
    import dask

    own = {"distributed.comm.tls.ca-file": "/etc/own/ca.pem"}
    with dask.config.set(own):
        assert connections.load_security({"address": "tls://10.0.0.1:8786"}) is None
    assert connections.load_security({"address": "tcp://10.0.0.1:8786"}) is None


def test_without_cryptography_nothing_starts_unless_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "find_spec", lambda name: None)
    for chosen in (None, True):
        with pytest.raises(ClusterError, match="pip install cryptography"):
            security_of(chosen)
    assert not security_of(False).require_encryption


def test_plain_connections_are_had_by_asking_and_with_a_loud_word(
    cpu_host: Path,
) -> None:
    with (
        pytest.warns(UserWarning, match="every user of this host can run code as you"),
        Cluster(0, "cpu:1/4", security=False) as cluster,
    ):
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")


@pytest.mark.parametrize(
    "reach",
    [
        {"host": "0.0.0.0"},
        {"host": "tcp://192.0.2.7"},
        {"host": "::"},
        {"interface": "eth7"},
        {"nanny": {"host": "0.0.0.0"}},
        {"nanny": {"interface": "eth7"}},
    ],
)
@pytest.mark.filterwarnings("ignore:this cluster's connections")
def test_plain_connections_are_never_open_to_the_network(
    cpu_host: Path, reach: dict[str, Any]
) -> None:
    for security in (False, Security()):
        with pytest.raises(InvalidRequest, match="other hosts can reach"):
            Cluster(0, "cpu:1/4", security=security, **reach)


def test_a_host_that_is_named_is_listened_on_by_all(cpu_host: Path) -> None:
    with Cluster(1, "cpu:1/4", host="127.0.0.2") as cluster:
        (worker,) = cluster.scheduler_info["workers"].values()
        places = [cluster.scheduler_address, worker["nanny"], worker_address(cluster)]
        assert {urlsplit(place).hostname for place in places} == {"127.0.0.2"}


def worker_address(cluster: Cluster) -> str:
    return next(iter(cluster.scheduler_info["workers"]))


def connections_options() -> dict[str, Any]:
    from jupyter_aistack.compute.clusters.dask_options import checked_options

    return dict(checked_options({}))
