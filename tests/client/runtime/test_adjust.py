"""A running process follows what its lease may use now; what its user set lower stays."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from jupyter_aistack.client.runtime.adjust import adjust, adjustable
from jupyter_aistack.client.runtime.memory_caps import cap_memory
from jupyter_aistack.core.enforcement.memory_caps import CUPY, SHARE

GRANTED = {SHARE: "0.490000", CUPY: "40000", "OMP_NUM_THREADS": "2"}
RAISED = {SHARE: "0.980000", CUPY: "80000", "OMP_NUM_THREADS": "4"}


class Torch(ModuleType):
    """A torch of one device that has started."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.__file__ = "/nowhere/torch/__init__.py"
        self.cuda = self
        self.share = 1.0
        self.threads = 2

    def _lazy_call(self, call) -> None:  # type: ignore[no-untyped-def]
        call()

    def device_count(self) -> int:
        return 1

    def set_per_process_memory_fraction(self, share: float, index: int) -> None:
        self.share = share

    def get_per_process_memory_fraction(self, index: int) -> float:
        return self.share

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, count: int) -> None:
        self.threads = count


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Torch]:
    module = Torch()
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    for name, value in GRANTED.items():
        monkeypatch.setenv(name, value)
    cap_memory(os.environ)
    yield module
    cap_memory({})


def test_caps_and_threads_rise_and_fall_with_the_limit(torch: Torch) -> None:
    assert torch.share == pytest.approx(0.49)
    adjust(RAISED, GRANTED)
    assert torch.share == pytest.approx(0.98)
    assert torch.threads == 4
    assert {name: os.environ[name] for name in RAISED} == RAISED
    adjust(GRANTED, RAISED)
    assert torch.share == pytest.approx(0.49)
    assert torch.threads == 2
    assert {name: os.environ[name] for name in GRANTED} == GRANTED


def test_what_the_user_has_set_lower_stays(
    torch: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CUPY, "1000")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.threads = 1
    adjust(RAISED, GRANTED)
    assert os.environ[CUPY] == "1000"
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert torch.threads == 1
    monkeypatch.setenv(CUPY, "50%")
    adjust(GRANTED, RAISED)
    assert os.environ[CUPY] == "50%"


def test_what_is_higher_than_the_limit_falls_whoever_set_it(torch: Torch) -> None:
    os.environ[CUPY] = "70000"
    adjust(GRANTED, {})
    assert os.environ[CUPY] == "40000"


def test_only_what_a_running_process_can_follow_is_followed() -> None:
    environment = {**GRANTED, "CUDA_VISIBLE_DEVICES": "GPU-0", "AISTACK_LEASE": "l-1"}
    assert adjustable(environment) == GRANTED
