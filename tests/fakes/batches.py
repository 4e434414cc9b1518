"""Batches of a shard, read to their end."""

from __future__ import annotations

import torch

from jupyter_aistack.compute.data.batches import ShardReader
from jupyter_aistack.compute.data.shards import Shard

CPU = torch.device("cpu")


def read(shard: Shard, epoch: int = 0, **options: object) -> list[torch.Tensor]:
    options = {"size": 64, "features": ["row"], **options}
    return list(ShardReader(shard, seed=5, device=CPU).batches(epoch, **options))  # type: ignore[arg-type]
