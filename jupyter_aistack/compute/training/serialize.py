"""Sending a notebook's functions to other processes."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any


def dump_by_value(thing: Any) -> bytes:
    """Pickle a function (or anything) so that it arrives as it is here and now.

    What is defined in the notebook travels whole; so does what comes from a module that
    is not installed, such as a file beside the notebook, which may have been edited and
    reloaded since.
    """
    import cloudpickle

    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    # cloudpickle sends what is defined in __main__ by value as it is.
    is_main = module is not None and module.__name__ == "__main__"
    if module is None or is_main or _is_installed(module):
        return cloudpickle.dumps(thing)
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(thing)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _is_installed(module: ModuleType) -> bool:
    """Whether other processes import the same module: of Python, of an installed
    package, or of this one.
    """
    file = getattr(module, "__file__", None)
    package = module.__name__.partition(".")[0]
    own_package = (__package__ or "").partition(".")[0]
    if file is None or package == own_package:
        return True
    paths = ("stdlib", "platstdlib", "purelib", "platlib")
    homes = {Path(sysconfig.get_path(name)).resolve() for name in paths}
    return not homes.isdisjoint(Path(file).resolve().parents)
