"""The only access to AMD SMI, AMD's management library. No other module imports
`amdsmi`.

Nothing is opened before the first question. The package comes with ROCm, or from PyPI,
and binds the driver's library ``libamd_smi.so`` when it is imported.
"""

from __future__ import annotations

import contextlib
import io
import threading
from typing import Any

from jupyter_aistack.core.model.device_health import HealthCode
from jupyter_aistack.exceptions import DeviceLost, DriverNotFound, ProviderError

NOT_SUPPORTED = 2
NOT_YET_IMPLEMENTED = 3
NO_PERMISSION = 10
NOT_FOUND = 31
NOT_INIT = 32
NO_DATA = 40
API_FAILED = 7
IO_ERROR = 12
FILE_ERROR = 14
INIT_ERROR = 18
DRIVER_NOT_LOADED = 34
FILE_NOT_FOUND = 52
MISSING_FUNCTION = -1

HOTTEST = 250
"""No sensor of a GPU shows so many degrees Celsius."""

CANNOT_KNOW = frozenset(
    {
        MISSING_FUNCTION,
        NOT_SUPPORTED,
        NOT_YET_IMPLEMENTED,
        NO_PERMISSION,
        NO_DATA,
        FILE_NOT_FOUND,
    }
)
"""Answers that mean "this cannot be known here", for which `AMDSMI.query` gives its
default.
"""

_OF_THE_DRIVER: dict[int, tuple[type[ProviderError], str]] = {
    INIT_ERROR: (
        ProviderError,
        "AMD's management library does not start; see the kernel log for amdgpu",
    ),
    DRIVER_NOT_LOADED: (
        DriverNotFound,
        "AMD's management library is there, but the driver amdgpu is not loaded",
    ),
    NOT_INIT: (
        ProviderError,
        "AMD's management library closed the connection; try again",
    ),
}
# Each reads on after a device's name: "AMD Instinct MI300X no longer answers ...".
_LOST = (DeviceLost, "no longer answers; it fell off the bus or is being reset")
_OF_A_DEVICE: dict[int, tuple[type[ProviderError], str]] = {
    NO_PERMISSION: (
        ProviderError,
        "may not be used by this user; the groups render and video have access to it",
    ),
    **dict.fromkeys((API_FAILED, IO_ERROR, FILE_ERROR, NOT_FOUND), _LOST),
}
_RAISE: Any = object()


class AMDSMI:
    """A connection to AMD's library, safe to use from several threads, opened at the
    first question.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._library: Any = None
        self._is_missing = False

    def query(self, function: str, *args: Any, default: Any = _RAISE) -> Any:
        """What ``amdsmi.<function>(*args)`` answers.

        Args:
            function: its name; a library too old to have it counts as "cannot be
                known".
            args: its arguments; a name of ``AmdSmiMemoryType`` stands for that member.
            default: given back where the answer cannot be known here.

        Raises:
            DriverNotFound: no library, or the driver is not loaded.
                ``facts["library_missing"]`` tells which.
            DeviceLost: the device no longer answers.
            ProviderError: anything else. ``facts["smi_code"]`` is the library's error
                code.
        """
        with self._lock:
            library = self._open()
            code, answer = _ask(library, function, args)
            if code == NOT_INIT:
                self.close()
                library = self._open()
                code, answer = _ask(library, function, args)
        if code == 0:
            return answer
        if code in CANNOT_KNOW and default is not _RAISE:
            return default
        raise error_of(code, function)

    def memory_type(self, name: str) -> Any:
        """A member of ``AmdSmiMemoryType``, to ask for in
        ``amdsmi_get_gpu_memory_total``.
        """
        with self._lock:
            return self._open().AmdSmiMemoryType[name]

    def temperature(self, handle: Any, sensor: str, metric: str) -> int | None:
        """What a sensor of a GPU shows, or a limit of it, in degrees Celsius; None
        where that cannot be known here. The names are those of the library's
        enumerations.

        Raises:
            ProviderError: as `query`.
        """
        with self._lock:
            library = self._open()
            kind = library.AmdSmiTemperatureType[sensor]
            what = library.AmdSmiTemperatureMetric[metric]
        degrees = self.query("amdsmi_get_temp_metric", handle, kind, what, default=None)
        return degrees if degrees is not None and 0 < degrees < HOTTEST else None

    def close(self) -> None:
        """Let go of the library; the next question opens it again. Closing twice is
        allowed.
        """
        with self._lock:
            library = self._library
            self._library = None
            if library is not None:
                _ask(library, "amdsmi_shut_down", ())

    def _open(self) -> Any:
        if self._library is None:
            library = self._import()
            code, _ = _ask(library, "amdsmi_init", ())
            if code:
                raise error_of(code, "amdsmi_init")
            self._library = library
        return self._library

    def _import(self) -> Any:
        """The package. It is tried once: a library that is installed later is found by
        a new process.
        """
        if not self._is_missing:
            try:
                # Without its library it prints so, and then stumbles over that.
                with contextlib.redirect_stdout(io.StringIO()):
                    import amdsmi
                return amdsmi
            except (ImportError, KeyError, AttributeError, OSError):
                self._is_missing = True
        raise DriverNotFound(
            "AMD's management library is not installed (the package amdsmi and libamd_smi.so)",
            library_missing=True,
        )


def error_of(code: int, function: str) -> ProviderError:
    """The error for a code. ``facts["problem"]`` reads on after a device's name, where
    it concerns a device, and ``facts["health_code"]`` says what is wrong with it.
    """
    if code in _OF_THE_DRIVER:
        cls, sentence = _OF_THE_DRIVER[code]
        return cls(sentence, smi_code=code)
    if function == "amdsmi_init":
        reason = (
            "is refused to this user"
            if code == NO_PERMISSION
            else f"fails with AMD SMI error {code}"
        )
        return ProviderError(
            f"access to the AMD driver {reason}; ask the administrator", smi_code=code
        )
    cls, problem = _OF_A_DEVICE.get(
        code, (ProviderError, f"answers {function} with AMD SMI error {code}")
    )
    is_lost = issubclass(cls, DeviceLost)
    health = HealthCode.FELL_OFF_BUS if is_lost else None
    return cls(
        f"an AMD GPU {problem}", smi_code=code, problem=problem, health_code=health
    )


def _ask(library: Any, function: str, args: tuple[Any, ...]) -> tuple[int, Any]:
    """The library's error code, 0 for none, and the answer."""
    call = getattr(library, function, None)
    if call is None:
        return MISSING_FUNCTION, None
    try:
        return 0, call(*args)
    except library.AmdSmiLibraryException as error:
        return int(error.get_error_code()), None
    except Exception as error:
        # The binding itself fails, over an answer it cannot decode, say: that is one
        # question about one GPU, and no reason to lose sight of the others.
        problem = f"cannot be asked {function} ({type(error).__name__}: {error})"
        raise ProviderError(f"an AMD GPU {problem}", problem=problem) from error
