"""What a loop may hand to its context, whatever library it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_aistack.compute.data.batches import ShardReader
from jupyter_aistack.compute.data.shards import plan_shards
from jupyter_aistack.compute.training.context import Context
from jupyter_aistack.compute.training.heartbeat import Heartbeat
from jupyter_aistack.exceptions import InvalidRequest, TrainingError

CPU = torch.device("cpu")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """The only rank of a run over ten rows."""
    (shard,) = plan_shards({"x": np.arange(10.0)}, 1, tmp_path)
    return Context(
        rank=0,
        world_size=1,
        device=CPU,
        backend="gloo",
        epochs=1,
        config={},
        seed=0,
        attempt=0,
        reader=ShardReader(shard, seed=0, device=CPU),
        metrics_file=tmp_path / "metrics",
        checkpoint_file=tmp_path / "checkpoint.pt",
        notice_file=tmp_path / "notice",
        heartbeat=Heartbeat(tmp_path / "beat"),
    )


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics").read_text().splitlines()]


@pytest.mark.parametrize(
    "step",
    [4, np.int64(4), np.uint8(4), np.array(4), torch.tensor(4)],
    ids=lambda step: type(step).__name__,
)
def test_a_step_may_be_any_whole_number(
    context: Context, step: Any, tmp_path: Path
) -> None:
    context.log(step, loss=1)
    assert logged(tmp_path)[0]["step"] == 4


@pytest.mark.parametrize(
    "loss",
    [0.5, np.float32(0.5), np.float64(0.5), np.array([0.5]), torch.tensor([0.5])],
    ids=lambda loss: type(loss).__name__,
)
def test_a_metric_may_be_a_number_of_any_library(
    context: Context, loss: Any, tmp_path: Path
) -> None:
    context.log(loss=loss)
    assert logged(tmp_path)[0]["metrics"] == {"loss": 0.5}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda ctx: ctx.log(1.5), "step: expected a whole number, got 1.5"),
        (lambda ctx: ctx.log("3"), "step: expected a whole number, got '3'"),
        (lambda ctx: ctx.log(x=None), "x: expected a number, or a tensor of one"),
        (lambda ctx: ctx.log(x=torch.ones(2)), "x: expected a number, or a tensor of"),
        (lambda ctx: next(ctx.data(0)), "batch_size: expected a whole number from 1"),
        (lambda ctx: next(ctx.data(0.5)), "batch_size: expected a whole number, got"),
    ],
)
def test_what_is_no_number_is_named_and_nothing_is_sent(
    context: Context, call: Callable[[Context], None], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        call(context)
    assert logged(tmp_path) == []


def test_a_batch_size_may_be_any_whole_number(context: Context) -> None:
    assert [len(batch["x"]) for batch in context.data(np.int64(4))] == [4, 4, 2]


def test_a_checkpoint_keeps_values_and_classes_of_the_notebook(
    context: Context,
) -> None:
    class Best:
        loss = np.float32(0.25)

    model = torch.nn.Linear(1, 1)
    context.checkpoint(model, step=np.int64(7), best=Best())
    kept = context.restore(model)
    assert kept is not None
    assert (kept["step"], kept["best"].loss) == (7, 0.25)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last(context: Context) -> None:
    model = torch.nn.Linear(1, 1)
    context.checkpoint(model, step=1)
    with pytest.raises(TrainingError, match=r"^the checkpoint cannot be pickled"):
        context.checkpoint(model, generator=iter(x for x in [1]))
    assert context.restore(model) == {"step": 1}
