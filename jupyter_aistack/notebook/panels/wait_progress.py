"""A line that shows how the waiting for a slice goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jupyter_aistack.client.display import Panel

from . import views


class Progress:
    """A line that shows how the waiting goes, updated in place.

    As a context manager it gives the function to call with position and reason.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._line: Any = None
        self._began_at = time.monotonic()

    def __enter__(self) -> Callable[[int | None, str], None]:
        return self._show

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._line is None:
            return
        what = "was granted" if kind is None else "is no longer waited for,"
        seconds = time.monotonic() - self._began_at
        self._line.update(Panel(title=f"{self._spec} {what} after {seconds:.0f} s"))

    def _show(self, position: int | None, reason: str) -> None:
        from IPython.display import display

        request = {"spec": self._spec, "position": position, "reason": reason}
        panel = Panel(
            title=views.waiting_line(request),
            remark="Interrupt the kernel to stop waiting.",
        )
        if self._line is None:
            # IPython has no types for it.
            self._line = display(panel, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._line.update(panel)
