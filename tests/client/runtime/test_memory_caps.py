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

    @classmethod
    def get_per_process_memory_fraction(cls, index):
        return cls.shares.get(index, 1.0)
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

# As TensorFlow's eager context keeps its devices: configured before the first start,
# fixed from then on.
TENSORFLOW = """
from collections import namedtuple

LogicalDeviceConfiguration = namedtuple(
    "LogicalDeviceConfiguration", ["memory_limit", "experimental_priority"], defaults=[None, None]
)

class Context:
    def __init__(self, own=None):
        self._context_handle, self._virtual_device_map = None, dict(own or {})

    def list_physical_devices(self, kind):
        return ["GPU:0", "GPU:1"]

    def get_logical_device_configuration(self, device):
        return self._virtual_device_map.get(device)

    def set_logical_device_configuration(self, device, parts):
        if self._context_handle is not None:
            raise RuntimeError("Virtual devices cannot be modified after being initialized")
        self._virtual_device_map[device] = parts

    def ensure_initialized(self):
        self._context_handle = object()

    def limits(self):
        self.ensure_initialized()
        return {d: [part.memory_limit for part in parts] for d, parts in self._virtual_device_map.items()}
"""

VLLM = """
from dataclasses import dataclass

@dataclass
class EngineArgs:
    model: str = "m"
    gpu_memory_utilization: float = 0.9
    def __post_init__(self):
        self.tokenizer = self.model

@dataclass
class AsyncEngineArgs(EngineArgs):
    enable_log_requests: bool = False
"""

BEGIN = """
import os, sys
from jupyter_aistack.client.runtime import attach; from jupyter_aistack.client.runtime import memory_caps as caps
from jupyter_aistack.core.enforcement.preparation import Preparation

def share(fraction):
    return attach.attach(Preparation(environment={"AISTACK_MEMORY_FRACTION": fraction} if fraction else {}))

"""


@pytest.fixture
def frameworks(tmp_path: Path) -> Path:
    """Stand-ins that write down how they are capped; the real ones need a GPU for
    that.
    """
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "rmm.py").write_text(RMM)
    for name, text in (
        ("tensorflow.python.eager.context", TENSORFLOW),
        ("vllm.engine.arg_utils", VLLM),
    ):
        *packages, module = name.split(".")
        folder = tmp_path.joinpath(*packages)
        folder.mkdir(parents=True)
        (folder / f"{module}.py").write_text(text)
    return tmp_path


def run(program: str, path: Path | None = None, **environment: str) -> list[str]:
    env = {**os.environ, **environment, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_torch_is_capped_once_it_is_imported_and_starts(frameworks: Path) -> None:
    program = "share('0.25'); import torch; print(torch.cuda.shares); torch.cuda.start(); print(torch.cuda.shares)"
    assert run(program, frameworks) == ["{}", "{0: 0.25, 1: 0.25}"]


def test_the_latest_share_counts_when_torch_is_imported_late(frameworks: Path) -> None:
    program = (
        "before = share('0.25'); attach.detach(before); share('0.5'); share('0.75')\n"
    )
    program += "import torch; torch.cuda.start(); print(torch.cuda.shares[0], 'torch' in caps._awaited)"
    assert run(program, frameworks) == ["0.75 False"]


@pytest.mark.parametrize(
    "after", ["attach.detach(before)", "share(None)"], ids=["detached", "whole device"]
)
def test_a_cap_goes_with_its_share(frameworks: Path, after: str) -> None:
    late = f"before = share('0.25'); {after}; print(caps._watch in sys.meta_path)\n"
    late += "import torch; torch.cuda.start(); print(torch.cuda.shares)"
    assert run(late, frameworks) == ["False", "{}"]
    early = f"import torch; before = share('0.25'); {after}; torch.cuda.start(); print(torch.cuda.shares[0])"
    assert run(early, frameworks) == ["1.0"]
    running = f"import torch; torch.cuda.start(); before = share('0.25'); print(torch.cuda.shares[0]); {after}\n"
    assert run(running + "print(torch.cuda.shares[0])", frameworks) == ["0.25", "1.0"]


def test_torch_that_was_never_capped_is_not_touched(frameworks: Path) -> None:
    assert run("import torch; share(None); print(torch.cuda.queued)", frameworks) == [
        "[]"
    ]


def test_a_kernel_launched_with_a_share_is_capped_when_the_magics_load(
    frameworks: Path,
) -> None:
    program = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "jupyter_aistack.magics")
import torch
torch.cuda.start()
print(torch.cuda.shares[0])
"""
    assert run(program, frameworks, AISTACK_MEMORY_FRACTION="0.125") == ["0.125"]


def test_rmm_is_limited_on_every_visible_device_and_set_free_again(
    frameworks: Path,
) -> None:
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


def test_a_version_that_works_another_way_does_not_break_the_users_import(
    tmp_path: Path,
) -> None:
    (tmp_path / "rmm.py").write_text("answer = 42")
    assert run(
        "caps.cap_rmm_memory('1024', {}); import rmm; print(rmm.answer)", tmp_path
    ) == ["42"]


def test_what_is_awaited_may_be_missing() -> None:
    program = "caps.cap_rmm_memory('1024', {})\ntry: import rmm\nexcept ImportError: print('missing')"
    assert run(program) == ["missing"]


def test_capping_torch_itself_never_starts_cuda() -> None:
    pytest.importorskip(
        "torch", reason="needs torch: pip install jupyter_aistack[train]"
    )
    program = "share('0.25'); import torch; print(torch.cuda.is_initialized(), 'torch' in caps._capped)"
    assert run(program) == ["False True"]


def test_a_lower_share_that_a_program_has_set_itself_stands_and_ours_may_rise(
    frameworks: Path,
) -> None:
    program = """
import torch
torch.cuda.start()
torch.cuda.set_per_process_memory_fraction(0.1, 0)
share('0.25')
print(torch.cuda.shares)
share('0.5')
print(torch.cuda.shares)
share(None)
print(torch.cuda.shares)
"""
    assert run(program, frameworks) == [
        "{0: 0.1, 1: 0.25}",
        "{0: 0.1, 1: 0.5}",
        "{0: 0.1, 1: 1.0}",
    ]


def test_our_share_in_torchs_own_variable_is_not_taken_for_the_programs(
    frameworks: Path,
) -> None:
    torch_library(frameworks, b"per_process_memory_fraction")
    program = """
share('0.25')
import torch
torch.cuda.shares = {0: 0.25, 1: 0.1}  # as torch starts with what the variable says, and a program lowers one
torch.cuda.start()
share('0.5')
print(torch.cuda.shares)
"""
    assert run(program, frameworks) == ["{0: 0.5, 1: 0.1}"]


def torch_library(frameworks: Path, content: bytes) -> None:
    """What a torch with CUDA has beside its Python files."""
    folder = frameworks / "torch" / "lib"
    folder.mkdir(parents=True)
    (frameworks / "torch.py").rename(frameworks / "torch" / "__init__.py")
    (folder / "libc10_cuda.so").write_bytes(content)


CONF = "before = share('0.25'); import torch; print(os.environ.get('PYTORCH_ALLOC_CONF'))\n"


def test_children_of_a_torch_that_knows_the_key_are_told_and_then_no_longer(
    frameworks: Path,
) -> None:
    torch_library(frameworks, b"\0backend\0per_process_memory_fraction\0")
    program = (
        CONF + "attach.detach(before); print(os.environ.get('PYTORCH_ALLOC_CONF'))"
    )
    assert run(program, frameworks) == ["per_process_memory_fraction:0.25", "None"]
    own = run(program, frameworks, PYTORCH_ALLOC_CONF="expandable_segments:True")
    assert own == [
        "expandable_segments:True,per_process_memory_fraction:0.25",
        "expandable_segments:True",
    ]


def test_children_are_told_by_the_name_the_user_has_chosen(frameworks: Path) -> None:
    torch_library(frameworks, b"per_process_memory_fraction")
    program = CONF + "print(os.environ['PYTORCH_CUDA_ALLOC_CONF'])"
    own = "per_process_memory_fraction:0.1,backend:native"
    assert run(program, frameworks, PYTORCH_CUDA_ALLOC_CONF=own) == ["None", own]


def test_a_torch_that_does_not_know_the_key_is_not_told_it(frameworks: Path) -> None:
    torch_library(frameworks, b"\0backend\0max_split_size_mb\0")
    assert run(CONF, frameworks) == ["None"]


TF = "from tensorflow.python.eager import context\n"
PART = "context.LogicalDeviceConfiguration"


def test_tensorflow_is_limited_when_it_starts_and_no_longer_after(
    frameworks: Path,
) -> None:
    program = "caps.cap_memory({'AISTACK_TENSORFLOW_MEMORY_LIMIT': '4000'})\n" + TF
    program += "running = context.Context(); print(running.limits(), running.limits() == running.limits())\n"
    program += "caps.cap_memory({}); print(context.Context().limits(), 'within' in repr(context.Context.__dict__))"
    assert run(program, frameworks) == [
        "{'GPU:0': [4000], 'GPU:1': [4000]} True",
        "{} False",
    ]


def test_of_tensorflows_own_limits_the_lower_stand_and_the_others_share_the_slice(
    frameworks: Path,
) -> None:
    program = TF + "caps.cap_memory({'AISTACK_TENSORFLOW_MEMORY_LIMIT': '4000'})\n"
    program += (
        f"own = {{'GPU:0': [{PART}(1000)], 'GPU:1': [{PART}(1500), {PART}(9000)]}}\n"
    )
    program += "print(context.Context(own).limits())"
    assert run(program, frameworks) == ["{'GPU:0': [1000], 'GPU:1': [1500, 2000]}"]


def test_vllm_takes_its_share_of_the_total_or_less_if_told_so(frameworks: Path) -> None:
    program = """
caps.cap_memory({'AISTACK_MEMORY_FRACTION': '0.24'})
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
made = EngineArgs(), AsyncEngineArgs(gpu_memory_utilization=0.95), EngineArgs(gpu_memory_utilization=0.1)
print([one.gpu_memory_utilization for one in made], made[0].tokenizer)
caps.cap_memory({'AISTACK_MEMORY_FRACTION': '0.5'})
print(EngineArgs().gpu_memory_utilization)
caps.cap_memory({})
print(EngineArgs().gpu_memory_utilization, caps._watch in sys.meta_path)
"""
    assert run(program, frameworks) == ["[0.24, 0.24, 0.1] m", "0.5", "0.9 False"]
