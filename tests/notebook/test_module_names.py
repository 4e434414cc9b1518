from __future__ import annotations

import importlib
from importlib.util import find_spec

import pytest

from jupyter_aistack.notebook import module_names

NAMES = {name: value for name, value in vars(module_names).items() if name.isupper()}
ATTRIBUTES = {
    "PROCESS_LEASES": ["attached"],
    "OFFLOAD_REGISTRY": ["is_out", "move_in", "registered_bytes"],
    "CLUSTER": [],
}
"""What is asked of each without an import, which a type checker does not see."""


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_that_of_a_module(name: str) -> None:
    assert find_spec(NAMES[name]) is not None


@pytest.mark.parametrize("name", NAMES)
def test_each_module_has_what_is_asked_of_it(name: str) -> None:
    if name == "CLUSTER":
        pytest.importorskip("distributed")
    module = importlib.import_module(NAMES[name])
    assert all(callable(getattr(module, part)) for part in ATTRIBUTES[name])
