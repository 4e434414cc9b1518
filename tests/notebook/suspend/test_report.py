"""What a kernel reports of its own memory."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from jupyter_aistack.notebook.suspend import report as reports


def module(
    monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any
) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(contents)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_managed_memory_is_told_by_who_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reports.managed() == ""

    class ManagedMemoryResource:
        pass

    class Pool:
        def get_upstream(self) -> ManagedMemoryResource:
            return ManagedMemoryResource()

    mr = types.SimpleNamespace(get_current_device_resource=Pool)
    module(monkeypatch, "rmm", mr=mr)
    assert reports.managed() == "RMM"
    mr.get_current_device_resource = object
    assert reports.managed() == ""
    module(monkeypatch, "cudf.pandas")
    assert reports.managed() == "cudf.pandas"


def test_a_paged_optimizer_is_seen_while_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module(monkeypatch, "bitsandbytes")

    class Adam:
        __module__ = "bitsandbytes.optim"
        is_paged = True

    keep = Adam()
    assert reports.managed() == "bitsandbytes"
    del keep
    assert reports.managed() == ""


def test_memory_shared_with_another_process_is_told_from_that_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reference:
        def __init__(self, is_expired: bool = False) -> None:
            self.expired = lambda: is_expired

    cache: dict[Any, Any] = {
        (3, 4): Reference(),
        b"/torch_1_2_3": Reference(),
        b"x" * 66: Reference(True),
    }
    module(monkeypatch, "torch.multiprocessing.reductions", shared_cache=cache)
    assert not reports.shares_memory()
    cache[b"x" * 66] = Reference()
    assert reports.shares_memory()
    del cache[b"x" * 66]
    cache[(b"x" * 66, 0)] = Reference()
    assert reports.shares_memory()


def test_a_profiler_is_reported_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    assert reports.profiler() == ""
    with torch.autograd.profiler.profile():
        assert reports.report({"cuda"})["profiler"] == "torch.profiler"
    assert reports.profiler() == ""
    session = types.SimpleNamespace(profile_session=object())
    module(monkeypatch, "jax._src.profiler", _profile_state=session)
    assert reports.profiler() == "jax.profiler"
    session.profile_session = None
    assert reports.profiler() == ""


def test_what_pools_hold_is_reported_where_nothing_else_takes_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in reports.OTHER_ALLOCATORS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_reserved=lambda index: 100 + index,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    pool = types.SimpleNamespace(total_bytes=lambda: 7)
    module(monkeypatch, "cupy", get_default_memory_pool=lambda: pool)
    assert reports.pool_bytes() == 208
    module(monkeypatch, "numba.cuda")
    assert reports.pool_bytes() is None
    monkeypatch.delitem(sys.modules, "numba.cuda")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "cupy")
    assert reports.pool_bytes() is None


def test_a_report_of_a_plain_process_finds_nothing() -> None:
    result = reports.report({"cuda"})
    assert (
        result["cuda"],
        result["managed"],
        result["nccl"],
        result["ipc"],
        result["graphs"],
    ) == (
        False,
        "",
        False,
        False,
        0,
    )
    reports.trim()
