"""Sending a notebook's functions to other processes, and values with tensors both
ways.
"""

from __future__ import annotations

import errno
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest, TrainingError
from jupyter_aistack.system.files import replacing


def save_value(value: Any, file: Path, *, name: str, is_durable: bool = False) -> None:
    """Write a value with its tensors, whatever device they are on.

    Classes and functions of the notebook travel whole: the other side has no module to
    find them in.

    Args:
        value: anything that can be pickled.
        file: replaced whole; as it was where this fails.
        name: what to call the value in an error.
        is_durable: have it on the disk before this returns.

    Raises:
        TrainingError: it cannot be pickled, or the file cannot be written.
    """
    import cloudpickle
    import torch

    try:
        with (
            replacing(file, is_durable=is_durable) as part,
            part.open("wb") as written,
        ):
            torch.save(value, written, pickle_module=cloudpickle)
            written.flush()
    except Exception as error:
        failure = _os_error(error)
        if failure is not None:
            raise TrainingError(_unwritable(name, file, failure)) from error
        raise TrainingError(
            f"{name} cannot be pickled: {error}; keep to numbers, arrays, tensors, state_dicts "
            "and plain objects that hold no locks, open files or generators"
        ) from error


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's refusal behind an error; torch hides it behind its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause


def load_value(file: Path, device: Any, *, name: str) -> Any:
    """What `save_value` wrote, its tensors on `device`.

    Raises:
        TrainingError: the file cannot be read here.
    """
    import torch

    try:
        return torch.load(file, map_location=device, weights_only=False)
    except Exception as error:
        raise TrainingError(f"{name} cannot be read from {file}: {error}") from error


def _unwritable(name: str, file: Path, error: OSError) -> str:
    failure = f"{name} cannot be written to {file.parent}: {error.strerror or error}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return failure
    free = shutil.disk_usage(file.parent).free // 2**20
    return (
        f"{failure} ({free} MiB are free); keep less in it, "
        "or set checkpoint_dir or TMPDIR to a folder with more room"
    )


def dump_argument(name: str, value: Any) -> bytes:
    """An argument of `train`, pickled.

    Raises:
        InvalidRequest: it holds what cannot be pickled; it is named.
    """
    try:
        return dump_by_value(value)
    except Exception as error:
        raise InvalidRequest(
            f"{name}: it cannot be sent to the workers: {error}; open files, locks and clients "
            "must be made inside the loop",
            field=name,
        ) from error


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
