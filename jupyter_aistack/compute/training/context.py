"""What a training loop is handed: who it is, its data, and where to put metrics and
checkpoints. Runs in a rank.
"""

from __future__ import annotations

import json
import operator
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import torch
import torch.distributed as dist

from jupyter_aistack.compute.data.batches import ShardReader
from jupyter_aistack.exceptions import InvalidRequest, TrainingError

from .heartbeat import Heartbeat
from .serialize import load_value, save_value


class Context:
    """One rank's side of a training run.

    Attributes:
        rank: 0 to ``world_size - 1``.
        world_size: how many ranks there are.
        device: where this rank computes.
        backend: ``nccl`` or ``gloo``.
        config: what `train` was given as ``config``.
        seed: what `train` was given as ``seed``; torch has been seeded with it, alike
            in all ranks.
        attempt: 0, and one more after each restart.
        epoch: the epoch under way.
        rows: rows this rank has been given so far in this attempt.
    """

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        device: torch.device,
        backend: str,
        epochs: int,
        config: Mapping[str, Any],
        seed: int,
        attempt: int,
        reader: ShardReader,
        metrics_file: Path,
        checkpoint_file: Path,
        notice_file: Path,
        heartbeat: Heartbeat,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.backend = backend
        self.config = config
        self.seed = seed
        self.attempt = attempt
        self.epoch = 0
        self.rows = 0
        self._epochs = epochs
        self._reader = reader
        self._checkpoint = checkpoint_file
        self._metrics_descriptor = os.open(
            metrics_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        # Epoch and batch from which a checkpoint written now goes on.
        self._next = (0, 0)
        self._stopped = threading.Event()
        self._notice_file = notice_file
        self._last_notice = ""
        self._heartbeat = heartbeat

    # -- epochs and data ---------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether the run has been asked to stop; `epochs` and `data` then end by
        themselves.
        """
        return self._stopped.is_set()

    def stop(self) -> None:
        """End `epochs` and `data` at their next step."""
        self._stopped.set()

    def epochs(self) -> Iterator[int]:
        """The epochs that are still to be done; after `restore` it begins where the
        checkpoint was taken.
        """
        has_data = bool(self._reader.shard.rows)
        for epoch in range(self._next[0], self._epochs):
            if self.stopped:
                return
            self.epoch = epoch
            self._heartbeat.advance(epoch=epoch, batch=0)
            if not has_data:
                # Without batches to count, a checkpoint belongs to its epoch's end.
                self._next = (epoch + 1, 0)
            elif self._next[0] < epoch:
                self._next = (epoch, 0)
            yield epoch

    def data(
        self,
        batch_size: SupportsIndex = 1024,
        *,
        features: Sequence[str] | None = None,
        label: str | None = None,
        shuffle: bool = True,
    ) -> Iterator[Any]:
        """This epoch's batches of this rank's own rows, on `device`; all ranks get
        equally many.

        Args:
            batch_size: rows; the last batch may be smaller.
            features: columns of a table, in this order; by default all but the label.
            label: the column to hand out apart.
            shuffle: shuffle blocks, and rows within blocks; the order depends on seed
                and epoch alone.

        Yields:
            Of a table ``x``, or ``(x, y)`` with a `label`, in float32; of a dict of
            arrays a dict of tensors.
        """
        if not self._reader.shard.rows:
            raise TrainingError("data: train() was given none", field="data")
        rows = _whole_number("batch_size", batch_size)
        if rows < 1:
            raise InvalidRequest(
                f"batch_size: expected a whole number from 1 up, got {rows}",
                field="batch_size",
            )
        epoch, done = self._next
        first = done if epoch == self.epoch else 0
        batches = self._reader.batches(
            self.epoch,
            size=rows,
            features=features,
            label=label,
            shuffle=shuffle,
            skip=first,
        )
        for count, batch in enumerate(batches, first + 1):
            # Before the batch is used: a checkpoint written after this step must not
            # repeat it.
            self._next = (self.epoch, count)
            self._heartbeat.advance(batch=count)
            self.rows += len(_first_tensor(batch))
            yield batch
            if self.stopped:
                return
        self._next = (self.epoch + 1, 0)

    # -- all ranks together ------------------------------------------------------------

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model on this rank's device, its gradients averaged over all ranks."""
        model = model.to(self.device)
        if self.world_size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def mean(self, value: float | torch.Tensor) -> float:
        """The mean over all ranks, which must all call it."""
        tensor = torch.as_tensor(value, dtype=torch.float32, device=self.device)
        total = tensor.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        self._heartbeat.advance()
        return float(total) / self.world_size

    # -- metrics -----------------------------------------------------------------------

    def log(
        self,
        step: SupportsIndex | None = None,
        *,
        every_rank: bool = False,
        **metrics: float | torch.Tensor,
    ) -> None:
        """Send metrics to the notebook; costs microseconds, never waits.

        Args:
            step: a whole number of any kind to plot them against.
            every_rank: also from ranks other than 0.
            metrics: numbers, or arrays and tensors of one number.

        Raises:
            InvalidRequest: one of them is no number; nothing is sent.
        """
        self._heartbeat.advance()
        if self.rank and not every_rank:
            return
        point = {
            "at": time.time(),
            "rank": self.rank,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "step": None if step is None else _whole_number("step", step),
            "metrics": {name: _number(name, value) for name, value in metrics.items()},
        }
        # One write for a line, so that no reader finds half a line.
        os.write(self._metrics_descriptor, json.dumps(point).encode() + b"\n")

    # -- checkpoints -------------------------------------------------------------------

    @property
    def should_checkpoint(self) -> bool:
        """Whether a slice of this notebook will be reclaimed soon: true once for each
        notice, in each rank.

        A loop that writes a checkpoint only now and then reads it after each step; that
        costs microseconds.
        """
        try:
            notice = self._notice_file.read_text()
        except OSError:
            return False
        is_new = notice != self._last_notice
        self._last_notice = notice
        return is_new

    def checkpoint(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        **extra: Any,
    ) -> None:
        """Write the state from which a restart goes on; call it in all ranks, rank 0
        writes.

        The file is replaced whole: a rank that dies while writing leaves the previous
        checkpoint.

        Raises:
            TrainingError: it cannot be pickled or written; the previous checkpoint is
                kept.
        """
        self._heartbeat.advance()
        if self.rank:
            return
        state = {
            "model": _unwrapped(model).state_dict(),
            "optimizer": optimizer.state_dict() if optimizer is not None else None,
            "next": self._next,
            "extra": extra,
        }
        save_value(state, self._checkpoint, name="the checkpoint", is_durable=True)

    def restore(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
    ) -> dict[str, Any] | None:
        """Go on from the last checkpoint; call it in all ranks, before `epochs`.

        Returns:
            What was kept as ``extra``, or None when there is no checkpoint, and nothing
            was changed.

        Raises:
            TrainingError: the file is not a checkpoint.
        """
        if not self._checkpoint.exists():
            return None
        state = load_value(self._checkpoint, self.device, name="the checkpoint")
        _unwrapped(model).load_state_dict(state["model"])
        if optimizer is not None and state["optimizer"] is not None:
            optimizer.load_state_dict(state["optimizer"])
        self._next = tuple(state["next"])
        extra: dict[str, Any] = state["extra"]
        return extra


def _whole_number(name: str, value: Any) -> int:
    """`value`, of whatever library, as Python's own number."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidRequest(
            f"{name}: expected a whole number, got {value!r}", field=name
        ) from None


def _number(name: str, value: Any) -> float:
    try:
        # An array of one number is no float to NumPy, but has an item.
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidRequest(
            f"{name}: expected a number, or a tensor of one number, got {value!r}",
            field=name,
        ) from None


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The model itself, without the wrapper that averages its gradients."""
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return model.module
    return model


def _first_tensor(batch: Any) -> torch.Tensor:
    if isinstance(batch, dict):
        return next(iter(batch.values()))
    return batch[0] if isinstance(batch, tuple) else batch
