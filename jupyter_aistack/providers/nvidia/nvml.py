"""The only access to NVML, NVIDIA's management library. No other module imports
`pynvml`.

Nothing is opened before the first question, and the connection reopens itself after the
driver was reset or another library in this process closed NVML.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any

from jupyter_aistack.core.model.device_health import HealthCode
from jupyter_aistack.exceptions import DeviceLost, DriverNotFound, ProviderError

from .surroundings import Surroundings

UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
INSUFFICIENT_POWER = 8
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
IRQ_ISSUE = 11
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
ARGUMENT_VERSION_MISMATCH = 25

MEMORY_V2 = 0x02000028
"""The version of ``nvmlMemory_t`` that tells what the driver reserves for itself from
what is in use.
"""

LEAST_BINDING = (12, 535, 108)
"""The first nvidia-ml-py that reads lists of processes rightly. The struct of 12.535.77
misreads the ids of processes on drivers from 535.98 on (XuehaiPan/nvitop#75).
"""

FIRST_WITHOUT_BINDING = 12
"""The first version of the package pynvml that brings no binding of its own."""

CANNOT_KNOW = frozenset(
    {
        NOT_SUPPORTED,
        NO_PERMISSION,
        NOT_FOUND,
        INSUFFICIENT_SIZE,
        FUNCTION_NOT_FOUND,
        ARGUMENT_VERSION_MISMATCH,
    }
)
"""Answers that mean "this cannot be known here", for which `NVML.query` gives its
default.
"""

_OF_THE_DRIVER: dict[int, tuple[type[ProviderError], str]] = {
    UNINITIALIZED: (
        ProviderError,
        "the NVIDIA driver closed the connection; it may be restarting, try again",
    ),
    DRIVER_NOT_LOADED: (
        DriverNotFound,
        "the NVIDIA driver is installed but not loaded; load its kernel module or reboot",
    ),
    LIBRARY_NOT_FOUND: (
        DriverNotFound,
        "no NVIDIA driver is installed on this host (libnvidia-ml.so.1 is missing)",
    ),
}
NOT_ALLOWED = (
    "may not be used by this user; ask the administrator for access to its device file"
)
# Each reads on after a device's name: "NVIDIA H200 fell off the bus ...".
_OF_A_DEVICE: dict[int, tuple[type[ProviderError], str, HealthCode | None]] = {
    NO_PERMISSION: (ProviderError, NOT_ALLOWED, None),
    INSUFFICIENT_POWER: (
        ProviderError,
        "lacks power; check its power cables",
        HealthCode.POWER_MISSING,
    ),
    IRQ_ISSUE: (
        ProviderError,
        "has an interrupt problem; see the kernel log, then reboot",
        HealthCode.INTERRUPT_PROBLEM,
    ),
    GPU_IS_LOST: (
        DeviceLost,
        "fell off the bus; reset it or reboot the host",
        HealthCode.FELL_OFF_BUS,
    ),
    RESET_REQUIRED: (
        DeviceLost,
        "needs a reset before it can be used again; end its processes, then reset it",
        HealthCode.RECOVERY_NEEDED,
    ),
}
_REOPEN_AFTER = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH})
_RAISE: Any = object()


class NVML:
    """A connection to the driver, safe to use from several threads, opened at the first
    question.

    Args:
        surroundings: the host, which tells why the driver may not answer.
    """

    def __init__(self, surroundings: Surroundings | None = None) -> None:
        self._surroundings = surroundings or Surroundings()
        self._lock = threading.RLock()
        self._library: Any = None
        self._before_close: list[Callable[[], None]] = []
        self.session = 0
        """Counts how often the driver was opened: what was made in one session must not
        be used in the next.
        """

    def query(
        self,
        function: str,
        *args: Any,
        default: Any = _RAISE,
        not_found: Any = _RAISE,
        not_supported: Any = _RAISE,
        is_repeated: bool = True,
    ) -> Any:
        """What ``pynvml.<function>(*args)`` answers.

        Args:
            function: its name; a driver too old to have it counts as "cannot be known".
            args: its arguments. Handles do not outlive a reset of the driver: fetch
                them anew for every round.
            default: given back where the answer cannot be known here (unsupported, not
                permitted, not found).
            not_found: given back for "not found" alone, where that is an answer (an
                empty slot, no samples).
            not_supported: the same for "not supported" (a GPU without that at all).
            is_repeated: it is asked again after the driver had to be opened anew, which
                frees what was made in the session before.

        Raises:
            DriverNotFound: no driver, or it is not loaded. ``facts["library_missing"]``
                tells which.
            DeviceLost: the device no longer answers.
            ProviderError: anything else. ``facts["nvml_code"]`` is NVML's error code.
        """
        with self._lock:
            code, answer = _ask(self._open(), function, args)
            if code in _REOPEN_AFTER:
                self.close()
            if code in _REOPEN_AFTER and is_repeated:
                code, answer = _ask(self._open(), function, args)
        if code == 0:
            return answer
        answers = {NOT_FOUND: not_found, NOT_SUPPORTED: not_supported}
        if answers.get(code, _RAISE) is not _RAISE:
            return answers[code]
        if code in CANNOT_KNOW and default is not _RAISE:
            return default
        raise self._error(code, function)

    def wait(self, function: str, *args: Any) -> tuple[int, Any]:
        """What a function that blocks answers, and before that NVML's error code, 0 for
        none. Others may ask meanwhile.

        Whoever calls it ends its call in a function given to `before_close`: the driver
        frees under it what is closed.

        Raises:
            ProviderError: the binding itself fails.
        """
        library = self._library
        if library is None:
            return UNINITIALIZED, None
        return _ask(library, function, args)

    def before_close(self, end_waiting: Callable[[], None]) -> None:
        """Have a function called whenever the driver is about to be closed."""
        self._before_close.append(end_waiting)

    def structure(self, name: str, **fields: Any) -> Any:
        """An argument of the driver's own make, such as ``c_nvmlSetMemoryLimits_v1_t``;
        None where the installed nvidia-ml-py is too old to know it. Raises
        `DriverNotFound`."""
        make = getattr(_import_pynvml(), name, None)
        return None if make is None else make(**fields)

    def gather(self, function: str, kind: str, *args: Any, most: int = 0) -> list[Any]:
        """What ``pynvml.<function>`` writes into an array of `kind` that it is given;
        so many at most, or it is asked.

        Raises:
            ProviderError: as `query`.
        """
        count = ctypes.c_uint(most)
        if not most:
            self.query(function, *args, None, ctypes.byref(count))
        with self._lock:
            array = (getattr(self._open(), kind) * count.value)()
        self.query(function, *args, array, ctypes.byref(count))
        return list(array[: count.value])

    def close(self) -> None:
        """Let go of the driver; the next question opens it again. Closing twice is
        allowed.
        """
        with self._lock:
            library = self._library
            self._library = None
            if library is not None:
                for end_waiting in self._before_close:
                    end_waiting()
                _ask(library, "nvmlShutdown", ())

    def _open(self) -> Any:
        if self._library is None:
            library = _import_pynvml()
            code, _ = _ask(library, "nvmlInit", ())
            if code:
                raise self._error(code, "nvmlInit")
            self._library = library
            self.session += 1
        return self._library

    def _error(self, code: int, function: str) -> ProviderError:
        """As `error_of`, with what the host tells of it."""
        if code == LIB_RM_VERSION_MISMATCH:
            return ProviderError(self._surroundings.mismatch(), nvml_code=code)
        reason = ""
        if code == LIBRARY_NOT_FOUND:
            reason = self._surroundings.without_library()
        if reason:
            return DriverNotFound(reason, nvml_code=code, library_missing=False)
        return error_of(code, function)


def address_of(handle: Any) -> int:
    """The address that a handle of the driver's is, by which two are compared."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def error_of(code: int, function: str) -> ProviderError:
    """The error for an NVML code. Where it concerns a device, ``facts["problem"]``
    reads on after its name, and ``facts["health_code"]`` says what is wrong with it;
    None for what is no sickness.
    """
    if code in _OF_THE_DRIVER:
        cls, sentence = _OF_THE_DRIVER[code]
        return cls(sentence, nvml_code=code, library_missing=code == LIBRARY_NOT_FOUND)
    if function.startswith("nvmlInit"):
        reason = (
            "is refused to this user"
            if code == NO_PERMISSION
            else f"fails with NVML error {code}"
        )
        return ProviderError(
            f"access to the NVIDIA driver {reason}; ask the administrator",
            nvml_code=code,
        )
    unnamed = (
        ProviderError,
        f"answers {function} with NVML error {code}; see the kernel log",
        None,
    )
    cls, problem, health = _OF_A_DEVICE.get(code, unnamed)
    return cls(f"a GPU {problem}", nvml_code=code, problem=problem, health_code=health)


def _ask(library: Any, function: str, args: tuple[Any, ...]) -> tuple[int, Any]:
    """NVML's error code, 0 for none, and the answer."""
    call = getattr(library, function, None)
    if call is None:
        return FUNCTION_NOT_FOUND, None
    try:
        return 0, call(*args)
    except library.NVMLError as error:
        return int(error.value), None
    except (
        library.NVMLLibraryMismatchError
    ):  # pynvml's word for "function not found" where there are versions of it
        return FUNCTION_NOT_FOUND, None
    except Exception as error:
        # The binding itself fails, over an answer it cannot decode, say: that is one
        # question about one GPU, and no reason to lose sight of the others.
        problem = f"cannot be asked {function} ({type(error).__name__}: {error})"
        raise ProviderError(f"a GPU {problem}", problem=problem) from error


def _import_pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        raise DriverNotFound(
            "the Python package nvidia-ml-py is not installed; install it to use this host's GPUs",
            library_missing=True,
        ) from None
    _check_binding()
    return pynvml


def _check_binding() -> None:
    """Refuse a nvidia-ml-py that would name the wrong processes, and an older package
    of others that is imported in its stead.
    """
    _refuse_other_package()
    try:
        version = metadata.version("nvidia-ml-py")
    except metadata.PackageNotFoundError:
        return  # it was put on the path by hand, and tells no version
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < LEAST_BINDING:
        least = ".".join(str(number) for number in LEAST_BINDING)
        raise ProviderError(
            f"the Python package nvidia-ml-py {version} misreads the ids of processes; "
            f"install {least} or newer to use this host's GPUs"
        )


def _refuse_other_package() -> None:
    """The package pynvml was a binding of its own, also called ``pynvml``, before
    version 12 made it depend on nvidia-ml-py; where both are installed, it wins.
    """
    try:
        version = metadata.version("pynvml")
    except metadata.PackageNotFoundError:
        return
    if int(version.partition(".")[0]) < FIRST_WITHOUT_BINDING:
        least = ".".join(str(number) for number in LEAST_BINDING)
        raise ProviderError(
            f"the Python package pynvml {version} hides NVIDIA's own; uninstall it, and "
            f"install nvidia-ml-py {least} or newer to use this host's GPUs"
        )
