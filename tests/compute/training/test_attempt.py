"""Ctrl-C at any moment of a run, and once more while that is being cleared up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.compute.training.interrupted import MOMENTS


def test_interrupts_at_random_moments_leave_nothing_but_the_checkpoint(
    own_ledger: str, tmp_path: Path
) -> None:
    folders = tmp_path / "tmp"
    folders.mkdir()
    kept = tmp_path / "kept"
    script = Path(__file__).with_name("interrupted.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(kept)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "AISTACK_PROVIDERS": "cpu", "TMPDIR": str(folders)},
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    *moments, workers, leases = map(json.loads, lines)
    assert len(moments) == MOMENTS
    for moment in moments:
        assert moment["outcome"] == "KeyboardInterrupt()", moment
        assert (moment["ranks"], moment["folders"]) == ([], 0), moment
    assert (workers, leases) == ({"workers": 2}, {"leases": []})
    checkpoint = torch.load(kept / "checkpoint.pt", weights_only=False)
    assert checkpoint["extra"]["step"] > 1
