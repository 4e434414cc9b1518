"""Which cells are held up for the GPU, by a look at them."""

from __future__ import annotations

import collections
import datetime
import functools
import math
import sys
import types
from typing import Any

import numpy
import pytest

from jupyter_aistack.notebook.suspend.gpu_use import may_use_gpu

GPU = types.ModuleType("torch")


class Foreign:
    """Stands for a tensor, a model, an optimizer: anything of a library that is not
    known to leave GPUs alone.
    """

    __module__ = "torch.nn"


def names(code: str = "", **more: Any) -> dict[str, Any]:
    """A notebook's namespace after running `code`."""
    known: dict[str, Any] = {
        "__name__": "__main__",
        "torch": GPU,
        "np": numpy,
        "math": math,
        "model": Foreign(),
        **more,
    }
    exec(code, known)
    return known


@pytest.mark.parametrize(
    "code",
    [
        "1 + 1",
        "x = [i ** 2 for i in range(10)]\nprint(sum(x))",
        "np.linalg.inv(np.eye(3))",
        "import json, numpy.random\njson.dumps({})",
        "from pathlib import Path\nPath('a').exists()",
        "def later():\n    pass",
        "table = {'a': [1, 2]}; table['a'].append(3)",
        "get_ipython().run_line_magic('gpu', 'status')",
        "data.mean() + when.year",
        "this does not parse",
        "helper(3)",
        "Point(1, 2).length()",
        "unheard_of + 1",
    ],
)
def test_a_cell_of_plain_python_goes_on(code: str) -> None:
    defined = """
def helper(n):
    return math.sqrt(n) + inner(n)
def inner(n):
    import statistics
    return statistics.mean([n, scale])
scale = 3
class Point:
    unit = 1
    def __init__(self, x, y):
        self.x, self.y = x, y
    def length(self):
        return math.hypot(self.x, self.y) * self.unit
"""
    namespace = names(
        defined,
        data=numpy.ones(3),
        when=datetime.datetime.now(),
        get_ipython=lambda: None,
    )
    assert not may_use_gpu(code, namespace)


@pytest.mark.parametrize(
    "code",
    [
        "torch.ones(1)",
        "model(3)",
        "model",
        "model = None",
        "del model",
        "for model in range(3): pass",
        "import torch",
        "from cupy import array",
        "import helpers_of_mine",
        "train(3)",
        "wrapped(3)",
        "hidden()",
        "holder.run()",
        "Holder",
        "[1, [2, models]]",
        "queue.popleft()",
        "lazy()",
        "eval('1')",
        "later()",
        "objects",
        "get_ipython().run_line_magic('timeit', 'model(3)')",
        "get_ipython().run_cell_magic('time', '', 'model(3)')",
        "default()",
        "method()",
        "numbers",
    ],
)
def test_a_cell_with_a_way_to_the_gpu_waits_for_it(code: str) -> None:
    defined = """
def train(n):
    def step():
        return deep(n)
    return step()
def deep(n):
    return model(n)
def lazy():
    import cupy
def make():
    inside = model
    return lambda: inside
hidden = make()
def default(what=model):
    return what
class Holder:
    def __init__(self):
        self.part = model
    def run(self):
        return self.part
holder = Holder()
class Holder:
    def run(self):
        return model
method = holder.run
numbers = (n for n in [1])
"""
    namespace = names(
        defined,
        models={"first": Foreign()},
        queue=collections.deque([Foreign()]),
        objects=numpy.array([Foreign()], dtype=object),
        later=functools.partial(Foreign),
        get_ipython=Foreign(),
    )
    namespace["wrapped"] = functools.wraps(namespace["train"])(
        functools.partial(namespace["train"], 1)
    )
    assert may_use_gpu(code, namespace)


def test_pandas_counts_as_plain_until_cudf_stands_in_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not may_use_gpu("import pandas", names())
    monkeypatch.setitem(sys.modules, "cudf", types.ModuleType("cudf"))
    assert may_use_gpu("import pandas", names())


def test_what_is_too_much_to_look_at_is_not_known() -> None:
    assert may_use_gpu("many", names(many=[[i] for i in range(3000)]))
    assert not may_use_gpu("few", names(few=[[i] for i in range(30)]))


def test_circles_end() -> None:
    assert not may_use_gpu(
        "a",
        names("a = []; b = [a]; a.append(b)\ndef f(): return g()\ndef g(): return f()"),
    )
    assert not may_use_gpu("f()", names("def f(): return g()\ndef g(): return f()"))
