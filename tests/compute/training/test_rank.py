"""How a rank's process may end, and what of it can be reached."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import Any

import psutil
import pytest

from jupyter_aistack import Cluster, train
from jupyter_aistack.exceptions import TrainingError


def leave_by_os_exit(ctx: Any) -> None:
    if ctx.rank == 1:
        os._exit(0)
    ctx.mean(1.0)


def leave_by_sys_exit(ctx: Any) -> None:
    if ctx.rank == 1:
        sys.exit(0)
    ctx.mean(1.0)


def leave_by_a_signal(ctx: Any) -> None:
    if ctx.rank == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    ctx.mean(1.0)


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (leave_by_os_exit, "rank 1 ended its process with exit status 0 before its"),
        (
            leave_by_sys_exit,
            r"rank 1 left with sys\.exit\(0\) before its loop returned",
        ),
        (leave_by_a_signal, r"rank 1 was ended by SIGUSR1 \(exit status 138\), and"),
    ],
)
def test_a_rank_that_ends_without_a_result_is_a_failure(
    loop: Any, words: str, cluster: Cluster
) -> None:
    with pytest.raises(TrainingError, match=f"^{words}"):
        train(loop, workers=cluster)


def test_a_thread_that_exits_ends_itself_alone(cluster: Cluster) -> None:
    def loop(ctx: Any) -> int:
        thread = threading.Thread(target=sys.exit, args=(0,))
        thread.start()
        thread.join()
        return ctx.rank

    assert train(loop, workers=cluster).results == [0, 1]


def test_a_child_that_the_loop_forks_does_not_answer_for_the_rank(
    cluster: Cluster,
) -> None:
    def loop(ctx: Any) -> tuple[int, int]:
        statuses = []
        for way in ("return", "exit"):
            child = os.fork()
            if child == 0 and way == "return":
                return (-1, -1)
            if child == 0:
                sys.exit(3)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        ctx.mean(1.0)
        return tuple(statuses)

    assert train(loop, workers=cluster).results == [(0, 3), (0, 3)]


def test_no_rank_listens_beyond_this_host(cluster: Cluster) -> None:
    def loop(ctx: Any) -> tuple[list[str], str]:
        ctx.mean(1.0)  # the group is connected
        connections = psutil.Process().net_connections(kind="inet")
        addresses = [
            connection.laddr.ip
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        ]
        return addresses, os.environ["GLOO_SOCKET_IFNAME"]

    for addresses, interface in train(loop, workers=cluster).results:
        assert set(addresses) <= {"127.0.0.1", "::1"}
        # Where the host's own name is a loopback address, gloo takes that by itself.
        assert interface in ("lo", "lo0")


def test_an_interface_named_in_the_environment_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jupyter_aistack.compute.training import rank

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("NCCL_COMM_ID", "0.0.0.0:4000")
    rank._keep_to_loopback()
    loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
    assert {os.environ["GLOO_SOCKET_IFNAME"]} == loopback
    assert {os.environ["NCCL_SOCKET_IFNAME"]} == loopback
    assert "NCCL_COMM_ID" not in os.environ
