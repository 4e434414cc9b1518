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
    if module is None or _is_known_elsewhere(module):
        return cloudpickle.dumps(thing)
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(thing)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _is_known_elsewhere(module: ModuleType) -> bool:
    """Whether other processes import the same module: of Python, of an installed
    package, or of this package.
    """
    # cloudpickle sends what is defined in __main__ by value by itself.
    package = module.__name__.partition(".")[0]
    own_package = (__package__ or "").partition(".")[0]
    if package in ("__main__", own_package):
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return True
    schemes = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {Path(sysconfig.get_path(name)).resolve() for name in schemes}
    return not installed.isdisjoint(Path(file).resolve().parents)
