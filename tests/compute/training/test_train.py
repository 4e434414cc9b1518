from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from jupyter_aistack import Cluster
from jupyter_aistack.client import notices
from jupyter_aistack.compute.training import train as train_module
from jupyter_aistack.compute.training.train import train
from jupyter_aistack.exceptions import InvalidRequest, TrainingError
from tests.paths import DATA


def ranks_alive() -> list[psutil.Process]:
    """Rank processes anywhere below this one."""
    results = []
    for process in psutil.Process().children(recursive=True):
        try:
            if (
                "jupyter_aistack.compute.training.fork_server" in process.cmdline()
                and _is_rank(process)
            ):
                results.append(process)
        except psutil.Error:
            continue
    return results


def _is_rank(process: psutil.Process) -> bool:
    """Ranks are forked by a fork server and share its command line."""
    parent = process.parent()
    return (
        parent is not None
        and "jupyter_aistack.compute.training.fork_server" in parent.cmdline()
    )


def fit(ctx: Any) -> dict[str, Any]:
    """A linear model on ``double``, a checkpoint after every step."""
    import torch

    model = ctx.wrap(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = (ctx.restore(model, optimizer) or {"step": 0})["step"]
    for _ in ctx.epochs():
        for x, _y in ctx.data(64, features=["double"], label="is_odd"):
            x = x / 2006
            loss = ((model(x) - 3 * x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            ctx.log(step, loss=loss)
            ctx.checkpoint(model, optimizer, step=step)
            if ctx.config.get("die_at") == step and ctx.attempt == 0 and ctx.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    return {name: value.numpy() for name, value in model.state_dict().items()} | {
        "pid": os.getpid()
    }


def test_ranks_end_with_the_same_model_and_metrics_arrive(
    cluster: Cluster, table: Path
) -> None:
    heard: list[dict[str, Any]] = []
    result = train(fit, table, workers=cluster, epochs=2, on_metrics=heard.append)
    first, second = result.results
    assert first["pid"] != second["pid"]
    assert np.array_equal(first["module.weight"], second["module.weight"])
    assert result.state is first
    assert [point["step"] for point in result.metrics] == list(range(1, 17))
    assert heard == result.metrics
    losses = [point["metrics"]["loss"] for point in result.metrics]
    assert losses[-1] < losses[0]
    assert result.rows == 2 * 1002
    assert result.rows_per_second > 0
    assert (result.backend, result.restarts) == ("gloo", 0)
    assert ranks_alive() == []


def test_a_killed_rank_is_restarted_from_the_checkpoint_and_no_step_is_lost(
    cluster: Cluster, table: Path
) -> None:
    undisturbed = train(fit, table, workers=cluster, epochs=2)
    result = train(
        fit, table, workers=cluster, epochs=2, config={"die_at": 11}, max_restarts=1
    )
    assert result.restarts == 1
    last = {point["step"]: point["metrics"]["loss"] for point in result.metrics}
    assert sorted(last) == list(range(1, 17))
    expected = {
        point["step"]: point["metrics"]["loss"] for point in undisturbed.metrics
    }
    assert last == pytest.approx(expected)
    assert np.allclose(
        result.state["module.weight"], undisturbed.state["module.weight"]
    )


def test_a_notice_makes_the_loop_keep_a_checkpoint(
    cluster: Cluster, tmp_path: Path
) -> None:
    def loop(ctx: Any) -> list[bool]:
        import torch

        ctx.log(1, every_rank=True, waits=1)
        deadline = time.monotonic() + 30
        while not ctx.should_checkpoint:
            assert time.monotonic() < deadline, "no notice came"
            time.sleep(0.01)
        ctx.checkpoint(torch.nn.Linear(1, 1))
        return [ctx.should_checkpoint]

    samples = json.loads((DATA / "wire_samples.json").read_text())
    notice = {
        "kind": "preempt",
        "at": time.time(),
        "ends_at": time.time() + 60,
        "request_id": "r-1",
    }
    watcher = notices.NoticeWatcher(list, lambda line: None)

    def give_notice(point: dict[str, Any]) -> None:
        watcher.update([{**samples["leases"][0], "notice": notice}])

    result = train(
        loop, workers=cluster, on_metrics=give_notice, checkpoint_dir=tmp_path / "kept"
    )
    assert result.results == [[False], [False]], "once for each notice"
    assert (tmp_path / "kept" / "checkpoint.pt").exists()
    assert notices._hooks == {}


def test_a_killed_rank_without_restarts_is_an_error_that_names_it(
    cluster: Cluster, table: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"^rank 1 was ended by SIGKILL .*max_restarts"
    ):
        train(fit, table, workers=cluster, config={"die_at": 2})
    assert ranks_alive() == []


def test_a_killed_worker_is_survived_as_well(cluster: Cluster, table: Path) -> None:
    def loop(ctx: Any) -> int:
        if ctx.attempt == 0 and ctx.rank == 1:
            os.kill(
                psutil.Process().parent().ppid(), signal.SIGKILL
            )  # rank, fork server, worker
            time.sleep(60)
        return ctx.mean(ctx.rank)

    result = train(loop, workers=cluster, max_restarts=1)
    assert (result.results, result.restarts) == ([0.5, 0.5], 1)


def test_the_traceback_of_the_first_failing_rank_reaches_the_notebook(
    cluster: Cluster,
) -> None:
    def helper() -> None:
        raise ValueError("no such carrier")

    def loop(ctx: Any) -> None:
        ctx.mean(1.0)
        if ctx.rank == 1:
            helper()
        ctx.mean(1.0)  # rank 0 waits here for rank 1

    began = time.monotonic()
    with pytest.raises(
        TrainingError, match="rank 1 failed: ValueError: no such carrier"
    ) as caught:
        train(loop, workers=cluster, max_restarts=3)
    assert "in helper" in caught.value.message
    assert "in loop" in caught.value.message
    assert "rank.py" not in caught.value.message
    assert time.monotonic() - began < 40
    assert ranks_alive() == []


def test_ctrl_c_stops_all_ranks_and_is_raised_again(
    cluster: Cluster, table: Path
) -> None:
    def forever(ctx: Any) -> None:
        ctx.log(1, started=1)
        while not ctx.stopped:
            time.sleep(0.01)

    def interrupt(point: dict[str, Any]) -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(forever, workers=cluster, on_metrics=interrupt)
    assert ranks_alive() == []
    assert train(lambda ctx: ctx.rank, workers=cluster).results == [0, 1], (
        "the workers can be used again"
    )


def test_ctrl_c_in_a_terminal_leaves_the_workers_alone(cluster: Cluster) -> None:
    pids = [worker.pid for worker in cluster.workers.values()]
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    assert train(lambda ctx: ctx.rank, workers=cluster).results == [0, 1]
    assert [worker.pid for worker in cluster.workers.values()] == pids


def test_a_callback_that_raises_ends_the_ranks_and_its_error_is_seen(
    cluster: Cluster,
) -> None:
    def endless(ctx: Any) -> None:
        import time

        while True:
            ctx.log(loss=1.0)
            time.sleep(0.05)

    def fails(point: dict[str, Any]) -> None:
        raise ZeroDivisionError("in the callback")

    with pytest.raises(ZeroDivisionError, match="in the callback"):
        train(endless, workers=cluster, on_metrics=fails)
    assert ranks_alive() == []


def test_a_run_that_takes_too_long_is_ended(cluster: Cluster) -> None:
    with pytest.raises(TrainingError, match="took longer than the time given"):
        train(lambda ctx: time.sleep(60), workers=cluster, timeout=3)
    assert ranks_alive() == []


def test_uneven_partitions_of_a_dask_table_do_not_hang(cluster: Cluster) -> None:
    import dask.dataframe as dd
    import pandas as pd

    frames = [
        pd.DataFrame({"row": np.arange(rows, dtype="float64")})
        for rows in (1, 300, 7, 50)
    ]
    data = dd.concat([dd.from_pandas(frame, npartitions=1) for frame in frames])

    def loop(ctx: Any) -> int:
        return sum(ctx.mean(len(x)) > 0 for x in ctx.data(16))

    result = train(loop, data, workers=cluster)
    assert result.results == [12, 12]
    assert result.rows == 358


def test_prints_of_the_ranks_are_shown(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    train(lambda ctx: print("here is", ctx.rank), workers=cluster)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "[rank 1] here is 1",
        "here is 0",
    ]


def test_a_kept_checkpoint_is_taken_up_by_the_next_run(
    cluster: Cluster, table: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    train(fit, table, workers=cluster, epochs=1, checkpoint_dir=kept)
    result = train(fit, table, workers=cluster, epochs=2, checkpoint_dir=kept)
    assert [point["step"] for point in result.metrics] == list(range(9, 17))
    assert [file.name for file in kept.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loop": 3}, "loop: expected a function"),
        ({"epochs": 0}, "epochs: expected a whole number from 1 up"),
        ({"max_restarts": -1}, "max_restarts: expected a whole number from 0 up"),
        ({"seed": -1}, "seed: expected a whole number from 0 up"),
        ({"seed": "one"}, "seed: expected a whole number from 0 up"),
        ({"timeout": 0}, "timeout: expected a number of seconds above 0, or None"),
        (
            {"stall_timeout": float("nan")},
            "stall_timeout: expected a number of seconds",
        ),
        ({"workers": "two"}, "workers: expected a Cluster, a Dask client or a number"),
    ],
)
def test_arguments_that_make_no_sense_are_named(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        train(**{"loop": fit, "workers": 1, **arguments})


def test_a_cluster_without_workers_is_told_with_what_to_do(
    cpu_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "START_SECONDS", 0.2)
    words = r"workers: the cluster did not have 1 workers within 0\.2 s; show the"
    with Cluster(0, "cpu:1/4") as empty, pytest.raises(TrainingError, match=words):
        train(fit, workers=empty)


def test_asking_for_data_that_was_not_given_says_so(cluster: Cluster) -> None:
    with pytest.raises(TrainingError, match=r"data: train\(\) was given none"):
        train(lambda ctx: list(ctx.data()), workers=cluster)
