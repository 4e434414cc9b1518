from __future__ import annotations

from dataclasses import replace

from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.testing import holder


def test_an_id_says_who_only_with_its_user_and_its_kind() -> None:
    kernel = holder("a")
    assert kernel.kind is HolderKind.KERNEL
    assert kernel.is_same(replace(kernel, label="renamed.ipynb", pid=7))
    assert not kernel.is_same(replace(kernel, kind=HolderKind.WORKER))
    assert not kernel.is_same(replace(kernel, user="somebody-else"))
