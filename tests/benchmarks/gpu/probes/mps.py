"""The probe of MPS: its answers, limits by key, multiprocessors by percent, accounting
by client, ends and faults.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator

from tests.benchmarks.gpu.probes.children import Child
from tests.benchmarks.gpu.probes.mps_daemon import CONTROL, Daemon
from tests.benchmarks.gpu.probes.nvml import Nvml
from tests.benchmarks.gpu.probes.reporting import (
    Finding,
    Findings,
    Limits,
    shell,
    timed,
)

PERCENTS = (1, 3, 5, 6, 10, 12, 20, 25, 30, 33, 50, 70, 75, 90)
LIMIT = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
SHARE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
READY_SECONDS, SETTLE_SECONDS = 10.0, 1.5


def mps(limits: Limits) -> Findings:
    """MPS: its answers, limits, accounting, ends and faults."""
    if not shutil.which(CONTROL):
        yield finding("missing", says=f"{CONTROL} is not on PATH")
        return
    nvml = Nvml()
    uuid = str(nvml.ask("nvmlDeviceGetUUID"))
    daemon = Daemon(uuid)
    try:
        yield finding("start", **daemon.started)
        server = yield from serving(daemon, nvml, uuid)
        if not server:
            yield finding("no_server", control_log=daemon.log("control", 30))
            return
        yield from by_key(daemon, server, uuid)
        yield from by_percent(daemon)
        if limits.affords(40):
            yield from at_work(daemon, server, nvml)
    finally:
        yield finding("quit", **daemon.end())


def finding(name: str, **values: object) -> Finding:
    return Finding(probe="mps", name=name, values=values)


def serving(daemon: Daemon, nvml: Nvml, uuid: str) -> Generator[Finding, None, str]:
    """The start of the server, each status that it shows, and what it answers; returns
    the server's process, empty where none came up.
    """
    for name, word in (("protocol_3", "-p 3 -h"), ("version", "-v")):
        words = shell(f"{CONTROL} {word}", 5.0, CUDA_MPS_PIPE_DIRECTORY="/dev/null")
        yield finding(name, words=words[:120])
    words = daemon.ask(
        "set_default_active_thread_percentage 100",
        "set_default_device_pinned_mem_limit 0 20480M",
        f"start_server -uid {os.getuid()}",
    )
    begin, server = time.monotonic(), ""
    statuses: list[str] = []
    while time.monotonic() - begin < READY_SECONDS and "ACTIVE" not in statuses:
        server = daemon.server()
        status = daemon.status(server)
        statuses += [status] if status not in statuses[-1:] else []
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    yield finding("server", pid=server, statuses=statuses, s=seconds, words=words)
    asked = "get_default_device_pinned_mem_limit"
    yield finding(
        "answers",
        limit=daemon.ask(f"{asked} 0", f"{asked} {uuid}"),
        unknown_server=daemon.ask("get_client_list 1"),
        processes=shell("ps ax -o pid,ppid,uid,args | grep '[n]vidia-cuda-mps'"),
        listed=nvml.processes(),
        server_log=daemon.log("server"),
    )
    return server


def by_key(daemon: Daemon, server: str, uuid: str) -> Findings:
    """Which key of the client's variable this driver hears."""
    keys = {
        "ordinal": {LIMIT: "0=4096M"},
        "uuid": {LIMIT: f"{uuid}=4096M"},
        "without": {},
        "other": {LIMIT: "1=4096M"},
        "tiny": {LIMIT: "0=200M"},
    }
    for name, limit in keys.items():
        client = daemon.client("context", **{SHARE: "25"}, **limit)
        started = client.hear(30)
        filled = {} if started.get("error") else client.ask("fill 256 24576")
        is_client = str(client.pid) in daemon.clients(server)
        yield finding(f"limit_{name}", **{**started, **filled}, is_client=is_client)
        client.end()


def by_percent(daemon: Daemon) -> Findings:
    """How many multiprocessors each percentage gives."""
    table = {}
    for percent in PERCENTS:
        client = daemon.client("context", **{SHARE: str(percent)})
        table[percent] = client.hear(30).get("multiprocessors")
        client.end()
    yield finding("multiprocessors", by_percent=table)


def at_work(daemon: Daemon, server: str, nvml: Nvml) -> Findings:
    """Two clients at work: who is seen, and what one notices of the other's end."""
    leaving, neighbour = (daemon.client("burning", **{SHARE: "50"}) for _ in range(2))
    try:
        started = [leaving.hear(90), neighbour.hear(90)]
        yield finding("at_work", started=started, pids=[leaving.pid, neighbour.pid])
        time.sleep(2 * SETTLE_SECONDS)
        rates = nvml.ask("nvmlDeviceGetUtilizationRates")
        yield finding(
            "usage",
            samples=nvml.samples(),
            listed=nvml.processes(),
            device_percent=getattr(rates, "gpu", rates),
            pmon=shell("nvidia-smi pmon -c 1")[-400:],
        )
        yield from ended_by_the_server(daemon, server, leaving, neighbour)
        yield from ended_by_a_signal(daemon, server, neighbour)
        yield from ended_by_a_fault(daemon, server, neighbour)
    finally:
        for client in (leaving, neighbour):
            client.end(kill=True)


def steps_within(client: Child, seconds: float) -> object:
    """Steps that a client does meanwhile, or its error."""
    before = client.ask("count", 10).get("done")
    time.sleep(seconds)
    after = client.ask("count", 10)
    is_counted = isinstance(before, int) and isinstance(after.get("done"), int)
    steps = after["done"] - before if is_counted else None
    return {"steps": steps, "error": after.get("error", "")}


def ended_by_the_server(
    daemon: Daemon, server: str, leaving: Child, neighbour: Child
) -> Findings:
    """``terminate_client``."""
    words, seconds = timed(
        lambda: daemon.ask(f"terminate_client {server} {leaving.pid}")
    )
    yield finding(
        "terminate_client",
        words=words,
        s=seconds,
        neighbour=steps_within(neighbour, 1.0),
        terminated=leaving.ask("count", 5),
        status=daemon.status(server),
        clients=daemon.clients(server),
    )
    leaving.end(kill=True)


def ended_by_a_signal(daemon: Daemon, server: str, neighbour: Child) -> Findings:
    """SIGKILL at work."""
    client = daemon.client("burning")
    client.hear()
    client.end(kill=True)
    yield finding(
        "killed_at_work",
        neighbour=steps_within(neighbour, SETTLE_SECONDS),
        status=daemon.status(server),
        server_log=daemon.log("server", 6),
    )


def ended_by_a_fault(daemon: Daemon, server: str, neighbour: Child) -> Findings:
    """An assertion on the device: who goes down, and who may come while it lasts."""
    failing = daemon.client("burning")
    failing.hear()
    answer = failing.ask("assert", 20)
    time.sleep(SETTLE_SECONDS)
    yield finding(
        "fault",
        answer=answer,
        neighbour=neighbour.ask("count", 10),
        status=daemon.status(server),
        server_log=daemon.log("server", 16),
        control_log=daemon.log("control", 8),
    )
    yield finding("newcomer_during_fault", **newcomer(daemon, 10))
    for client in (failing, neighbour):
        client.end(kill=True)
    time.sleep(1.0)
    yield finding(
        "once_all_left",
        status=daemon.status(server),
        servers=daemon.ask("get_server_list"),
    )
    yield finding("newcomer_after_fault", **newcomer(daemon, 15))
    yield finding("control_log", bytes=daemon.log_bytes())


def newcomer(daemon: Daemon, seconds: float) -> dict[str, object]:
    """What a fresh client meets, and the servers then."""
    client = daemon.client("context")
    answer = client.hear(seconds)
    servers = daemon.ask("get_server_list")
    client.end(kill=True)
    return {**answer, "servers": servers}
