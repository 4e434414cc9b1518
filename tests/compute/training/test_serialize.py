"""What users keep and return comes across whole, or is refused in a sentence."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_aistack.compute.training import serialize
from jupyter_aistack.compute.training.serialize import (
    dump_argument,
    load_value,
    save_value,
)
from jupyter_aistack.exceptions import InvalidRequest, TrainingError
from jupyter_aistack.system.files import replacing


def test_numbers_arrays_and_tensors_come_across(tmp_path: Path) -> None:
    value = {
        "step": np.int64(4),
        "loss": np.float32(0.5),
        "rows": np.arange(3),
        "tensor": torch.ones(2, requires_grad=True) * 2,
    }
    save_value(value, tmp_path / "file", name="it")
    read = load_value(tmp_path / "file", "cpu", name="it")
    assert (read["step"], read["loss"]) == (4, 0.5)
    assert read["rows"].tolist() == [0, 1, 2]
    assert read["tensor"].tolist() == [2.0, 2.0]


def test_a_class_that_no_module_holds_travels_whole(tmp_path: Path) -> None:
    class Best:
        loss = 0.25

    save_value(Best(), tmp_path / "file", name="it")
    assert load_value(tmp_path / "file", "cpu", name="it").loss == 0.25


@pytest.mark.parametrize("value", [threading.Lock(), iter(x for x in [1])])
def test_what_cannot_be_pickled_leaves_the_old_file(value: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    save_value(1, file, name="it")
    with pytest.raises(
        TrainingError, match=r"^it cannot be pickled: .*keep to numbers"
    ):
        save_value(value, file, name="it")
    assert load_value(file, "cpu", name="it") == 1
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_too_large_says_where_and_leaves_the_old_file(
    tmp_path: Path, small_files: None
) -> None:
    file = tmp_path / "file"
    save_value(1, file, name="the checkpoint")
    with pytest.raises(
        TrainingError,
        match=f"^the checkpoint cannot be written to {tmp_path}: File too",
    ):
        save_value(torch.zeros(100_000), file, name="the checkpoint")
    assert load_value(file, "cpu", name="it") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_says_how_much_is_free_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def on_a_full_device(path: Path, **options: Any) -> Iterator[Path]:
        with replacing(path, **options) as part:
            part.unlink()
            part.symlink_to("/dev/full")
            yield part

    monkeypatch.setattr(serialize, "replacing", on_a_full_device)
    with pytest.raises(
        TrainingError, match=r"No space left on device \(\d+ MiB are free\); keep less"
    ):
        save_value(torch.zeros(100_000), tmp_path / "file", name="it")


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no")
    with pytest.raises(TrainingError, match=f"^it cannot be read from {tmp_path}/file"):
        load_value(tmp_path / "file", "cpu", name="it")


def test_an_argument_that_cannot_be_sent_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(InvalidRequest, match=r"^loop: it cannot be sent") as caught:
        dump_argument("loop", lambda: lock)
    assert caught.value.facts == {"field": "loop"}
