"""The process a self-test is made on: holds a pattern on the first GPU it sees, and
compares it on request.

Run as ``python -I -S victim.py``; it needs the driver's library alone. One JSON object
per line: the first once the pattern is on the GPU, one more object for each line it
reads.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

SIZE_BYTES = 64 << 20
STRIDE = 4099
"""A prime, so that no page of the pattern is like its neighbour."""


class DriverRefused(Exception):
    """The driver's answer to a call."""


def main() -> None:
    """Serve one self-test."""
    try:
        pattern = TestPattern()
    except (OSError, DriverRefused) as error:
        _say({"ok": False, "message": f"its process could not use the GPU: {error}"})
        return
    _say({"ok": True})
    for _ in sys.stdin:
        try:
            _say({"ok": pattern.is_whole()})
        except DriverRefused as error:
            _say({"ok": False, "message": str(error)})


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


class TestPattern:
    """Bytes on the GPU, and the same bytes on the host.

    Raises:
        OSError: there is no driver library.
        Refused: the driver refuses a call.
    """

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        block = bytes(range(256)) * (STRIDE // 256 + 1)
        self._bytes = (block[:STRIDE] * (SIZE_BYTES // STRIDE + 1))[:SIZE_BYTES]
        self._address = ctypes.c_uint64()
        device = ctypes.c_int()
        context = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call(
            "cuMemAlloc_v2", ctypes.byref(self._address), ctypes.c_size_t(SIZE_BYTES)
        )
        self._call(
            "cuMemcpyHtoD_v2", self._address, self._bytes, ctypes.c_size_t(SIZE_BYTES)
        )
        self._call("cuCtxSynchronize")

    def is_whole(self) -> bool:
        """Whether the GPU still holds it."""
        copied = ctypes.create_string_buffer(SIZE_BYTES)
        self._call(
            "cuMemcpyDtoH_v2", copied, self._address, ctypes.c_size_t(SIZE_BYTES)
        )
        return copied.raw == self._bytes

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise DriverRefused(f"{name} answers {code}")


if __name__ == "__main__":
    main()
