from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TORCH = """
class cuda:
    started = False
    queued, shares = [], {}

    @classmethod
    def _lazy_call(cls, call):
        call() if cls.started else cls.queued.append(call)

    @classmethod
    def start(cls):
        cls.started = True
        for call in cls.queued:
            call()

    @staticmethod
    def device_count():
        return 2

    @classmethod
    def set_per_process_memory_fraction(cls, share, index):
        cls.shares[index] = share
"""

RMM = """
class mr:
    resources = {0: "plain", 1: "plain", 2: "plain"}

    @classmethod
    def get_per_device_resource(cls, index):
        return cls.resources[index]

    @classmethod
    def set_per_device_resource(cls, index, resource):
        cls.resources[index] = resource

    class LimitingResourceAdaptor:
        def __new__(cls, upstream, *, allocation_limit):
            return (upstream, allocation_limit)
"""

BEGIN = """
import os, sys
from jupyter_aistack import attach, caps
from jupyter_aistack.wire import Preparation

def share(fraction):
    return attach.attach(Preparation(environment={"AISTACK_MEMORY_FRACTION": fraction} if fraction else {}))

"""


@pytest.fixture
def frameworks(tmp_path: Path) -> Path:
    """Stand-ins that write down how they are capped; the real ones need a GPU for that."""
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "rmm.py").write_text(RMM)
    return tmp_path


def run(program: str, path: Path | None = None, **environment: str) -> list[str]:
    env = {**os.environ, **environment, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_torch_is_capped_once_it_is_imported_and_starts(frameworks: Path) -> None:
    program = "share('0.25'); import torch; print(torch.cuda.shares); torch.cuda.start(); print(torch.cuda.shares)"
    assert run(program, frameworks) == ["{}", "{0: 0.25, 1: 0.25}"]


def test_the_latest_share_counts_when_torch_is_imported_late(frameworks: Path) -> None:
    program = "before = share('0.25'); attach.detach(before); share('0.5'); share('0.75')\n"
    program += "import torch; torch.cuda.start(); print(torch.cuda.shares[0], caps._watch in sys.meta_path)"
    assert run(program, frameworks) == ["0.75 False"]


@pytest.mark.parametrize("after", ["attach.detach(before)", "share(None)"], ids=["detached", "whole device"])
def test_a_cap_goes_with_its_share(frameworks: Path, after: str) -> None:
    late = f"before = share('0.25'); {after}; print(caps._watch in sys.meta_path)\n"
    late += "import torch; torch.cuda.start(); print(torch.cuda.shares)"
    assert run(late, frameworks) == ["False", "{}"]
    early = f"import torch; before = share('0.25'); {after}; torch.cuda.start(); print(torch.cuda.shares[0])"
    assert run(early, frameworks) == ["1.0"]
    running = f"import torch; torch.cuda.start(); before = share('0.25'); print(torch.cuda.shares[0]); {after}\n"
    assert run(running + "print(torch.cuda.shares[0])", frameworks) == ["0.25", "1.0"]


def test_torch_that_was_never_capped_is_not_touched(frameworks: Path) -> None:
    assert run("import torch; share(None); print(torch.cuda.queued)", frameworks) == ["[]"]


def test_a_kernel_launched_with_a_share_is_capped_when_the_magics_load(frameworks: Path) -> None:
    program = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "jupyter_aistack.magics")
import torch
torch.cuda.start()
print(torch.cuda.shares[0])
"""
    assert run(program, frameworks, AISTACK_MEMORY_FRACTION="0.125") == ["0.125"]


def test_rmm_is_limited_on_every_visible_device_and_set_free_again(frameworks: Path) -> None:
    program = """
given = {"AISTACK_RMM_MAXIMUM_POOL_SIZE": "1024", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
caps.cap_memory(given)
import rmm
print(rmm.mr.resources)
caps.cap_memory({**given, "AISTACK_RMM_MAXIMUM_POOL_SIZE": "512"})
print(rmm.mr.resources[0])
caps.cap_memory({})
print(set(rmm.mr.resources.values()))
"""
    limited = {0: ("plain", 1024), 1: ("plain", 1024), 2: "plain"}
    assert run(program, frameworks) == [str(limited), "('plain', 512)", "{'plain'}"]


def test_a_version_that_works_another_way_does_not_break_the_users_import(tmp_path: Path) -> None:
    (tmp_path / "rmm.py").write_text("answer = 42")
    assert run("caps.cap_rmm_memory('1024'); import rmm; print(rmm.answer)", tmp_path) == ["42"]


def test_what_is_awaited_may_be_missing() -> None:
    program = "caps.cap_rmm_memory('1024')\ntry: import rmm\nexcept ImportError: print('missing')"
    assert run(program) == ["missing"]


def test_capping_torch_itself_never_starts_cuda() -> None:
    pytest.importorskip("torch", reason="needs torch: pip install jupyter_aistack[train]")
    program = "share('0.25'); import torch; print(torch.cuda.is_initialized(), 'torch' in caps._capped)"
    assert run(program) == ["False True"]
