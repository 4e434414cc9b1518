"""What a vendor's runtime is called, reads and answers is known in the vendor's folder
alone; elsewhere it comes by `DeviceVisibility`, `Preparation` and `Expectation`.

Docstrings may speak of vendors. Names and texts that do are listed here, each module
with its words and the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house import MODULES, place, tree_of

FOLDERS = ("providers/nvidia/", "providers/amd/")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
VENDORS = {
    "amd",
    "amdsmi",
    "cuda",
    "hip",
    "libcuda",
    "mps",
    "nccl",
    "nvidia",
    "nvml",
    "rocm",
    "rocr",
}

ENFORCEMENT = {"mps"}
"""The level of a share is a word of the wire, of traits and of what users read."""
FRAMEWORK = {"cuda"}
"""Torch's and Dask's own names for a device and its module."""

ALLOWED: dict[str, set[str]] = {
    "client/offload/cuda.py": FRAMEWORK,
    "client/offload/offload.py": FRAMEWORK,
    "client/offload/registry.py": FRAMEWORK,
    "client/runtime/frameworks.py": FRAMEWORK,
    "compute/clusters/worker.py": ENFORCEMENT,
    "compute/clusters/worker_plugins.py": FRAMEWORK,
    # dask-cuda, and a setting of Dask's that is called nvml.
    "compute/clusters/worker_spec.py": FRAMEWORK | {"nvml"},
    "compute/data/batches.py": FRAMEWORK,
    # Torch's names of its communication backends.
    "compute/training/backend.py": {"nccl"},
    "compute/training/context.py": FRAMEWORK,
    "compute/training/rank.py": FRAMEWORK | {"nccl"},
    # Helps of traits say what the providers are for.
    "config/host_traits.py": {"mps"},
    "config/settings.py": ENFORCEMENT | {"amd", "nvidia"},
    "core/accounting/measurement.py": ENFORCEMENT,
    "core/accounting/mps_service.py": ENFORCEMENT,
    "core/enforcement/faults.py": ENFORCEMENT,
    "core/enforcement/preparation.py": ENFORCEMENT,
    "core/enforcement/verification.py": ENFORCEMENT,
    "core/model/device.py": ENFORCEMENT,
    "core/scheduling/demand_value.py": ENFORCEMENT,
    "kernel/combine.py": ENFORCEMENT,
    # What a kernel reports of torch, CuPy and RMM, and the rules of the driver's
    # checkpoint, in sentences for people.
    "notebook/suspend/report.py": FRAMEWORK | {"nccl"},
    "server/suspend/executor.py": FRAMEWORK,
    "server/suspend/kernel_agent.py": FRAMEWORK,
    "server/suspend/preflight.py": FRAMEWORK | ENFORCEMENT | {"nccl", "nvidia"},
    "providers/base.py": ENFORCEMENT,
    "providers/registry.py": ENFORCEMENT,
    # Hides the GPUs of that vendor, and is called like one.
    "providers/simulated.py": {"nvidia"},
    "system/verify/child.py": ENFORCEMENT,
}
VARIABLE = re.compile(r"\b(?:CUDA|GPU|HIP|HSA|NVIDIA|ROCR)_[A-Z_]+|lib\w+\.so\.\d")
"""Variables that a runtime reads, and libraries by version: allowed nowhere else."""


def docstrings(tree: ast.AST) -> set[int]:
    """The texts that stand alone, by the identity of their nodes."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def literals(tree: ast.AST) -> Iterator[str]:
    """Every text of a module, docstrings left out."""
    told = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield "" if id(node) in told else node.value


def texts(tree: ast.AST) -> Iterator[str]:
    """Every name and text of a module, docstrings and imports left out."""
    yield from literals(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def vendor_words(tree: ast.AST) -> set[str]:
    words = {word.lower() for text in texts(tree) for word in WORD.findall(text)}
    return words & VENDORS


def test_vendors_are_named_in_their_folders_alone() -> None:
    elsewhere = [path for path in MODULES if not place(path).startswith(FOLDERS)]
    named = {place(path): vendor_words(tree_of(path)) for path in elsewhere}
    assert {module: words for module, words in named.items() if words} == ALLOWED


def test_variables_and_libraries_are_known_in_their_folders_alone() -> None:
    elsewhere = [path for path in MODULES if not place(path).startswith(FOLDERS)]
    known = {
        place(path): VARIABLE.findall(text)
        for path in elsewhere
        for text in literals(tree_of(path))
        if VARIABLE.search(text)
    }
    assert known == {}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('"""CUDA."""\nx = 1\n"""Of NVIDIA."""', set()),
        ('environment["CUDA_VISIBLE_DEVICES"]', {"cuda"}),
        ("ctypes.CDLL('libcuda.so.1').cuInit(0)", {"libcuda"}),
        ("MPSManager(is_mps=True)", {"mps"}),
        ("timestamps = camps", set()),
        ("f'{ROCR} of AMD'", {"rocr", "amd"}),
    ],
)
def test_a_vendor_is_seen_in_names_and_texts(code: str, words: set[str]) -> None:
    assert vendor_words(ast.parse(code)) == words
