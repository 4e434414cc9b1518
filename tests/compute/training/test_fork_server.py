from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_aistack import Cluster, train
from jupyter_aistack.exceptions import TrainingError
from tests.compute.training.owner import STALL_SECONDS
from tests.fakes.waiting import wait_until
from tests.paths import ROOT


@pytest.fixture
def may_end(tmp_path: Path) -> Path:
    """Lets the owner's run end, once it is there."""
    return tmp_path / "may-end"


@pytest.fixture
def owner(own_ledger: str, may_end: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("owner.py")), str(may_end)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AISTACK_PROVIDERS": "cpu"},
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def told(owner: subprocess.Popen[str]) -> Any:
    """The owner's next line."""
    assert owner.stdout is not None
    return json.loads(owner.stdout.readline())


def runs(process: psutil.Process) -> bool:
    """A zombie that nobody has collected yet has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_notebook_that_a_signal_ends(
    owner: subprocess.Popen[str], number: signal.Signals
) -> None:
    processes = [psutil.Process(pid) for pid in told(owner)]
    assert len(set(processes)) == 10, "ranks, what they started, servers and workers"
    owner.send_signal(number)
    owner.wait()
    wait_until(lambda: not any(map(runs, processes)), otherwise=lambda: str(processes))


def test_a_notebook_that_is_stopped_for_long_finds_its_run_as_it_was(
    owner: subprocess.Popen[str], may_end: Path
) -> None:
    told(owner)
    owner.send_signal(signal.SIGSTOP)
    resumed_at = time.monotonic() + 3 * STALL_SECONDS
    wait_until(lambda: time.monotonic() >= resumed_at)
    owner.send_signal(signal.SIGCONT)
    may_end.touch()
    assert told(owner) == {"restarts": 0}


def test_ranks_end_with_a_notebook_that_was_only_connected_to_their_cluster(
    cluster: Cluster, may_end: Path, tmp_path: Path
) -> None:
    connection = tmp_path / "connection"
    connection.write_bytes(pickle.dumps((cluster.scheduler_address, cluster.security)))
    guest = subprocess.Popen(
        [sys.executable, "-m", "tests.compute.training.guest", connection, may_end],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    ranks = [psutil.Process(pid) for pid in told(guest)]
    guest.kill()
    guest.communicate()
    wait_until(lambda: not any(map(runs, ranks)), otherwise=lambda: str(ranks))


def test_what_a_rank_has_started_ends_with_it(cluster: Cluster) -> None:
    def loop(ctx: Any) -> list[int]:
        helper = subprocess.Popen(["sleep", "600"])
        daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
        return [helper.pid, daemon.pid]

    for pids in train(loop, workers=cluster).results:
        wait_until(lambda started=pids: not any(map(psutil.pid_exists, started)))


def test_ranks_end_when_the_folder_of_their_run_is_removed(cluster: Cluster) -> None:
    def loop(ctx: Any) -> None:
        ctx.log(pid=os.getpid(), every_rank=True)
        while True:
            ctx.mean(1.0)

    ranks: list[int] = []

    def remove(point: dict[str, Any]) -> None:
        ranks.append(int(point["metrics"]["pid"]))
        if len(ranks) == 2:
            files = [file.path for file in psutil.Process(ranks[0]).open_files()]
            metrics = next(path for path in files if path.endswith(".metrics"))
            shutil.rmtree(Path(metrics).parents[1])

    with pytest.raises((TrainingError, OSError)):
        train(loop, workers=cluster, on_metrics=remove)
    wait_until(lambda: not any(map(psutil.pid_exists, ranks)))
    assert train(lambda ctx: ctx.rank, workers=cluster).results == [0, 1]
