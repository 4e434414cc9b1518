"""A line that shows how the waiting for a slice goes."""

from __future__ import annotations

import time
from typing import Any

from jupyter_aistack.client.display import Panel

from . import views


class Progress:
    """A line that shows how the waiting goes, updated in place, until the end of the
    ``with`` block.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._line: Any = None
        self._began_at = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._line is None:
            return
        what = "was granted" if kind is None else "is no longer waited for,"
        seconds = time.monotonic() - self._began_at
        self._line.update(Panel(title=f"{self._spec} {what} after {seconds:.0f} s"))

    def show_place(self, position: int | None, reason: str) -> None:
        """The request waits, at a position of the queue."""
        request = {"spec": self._spec, "position": position, "reason": reason}
        self._show(views.waiting_line(request))

    def show_check(self, seconds: float) -> None:
        """It was granted, and is checked from inside this kernel, for so long now."""
        title = f"{self._spec} was granted, and is being checked from inside"
        self._show(f"{title}: the driver takes long to start, {seconds:.0f} s so far")

    def _show(self, title: str) -> None:
        from IPython.display import display

        panel = Panel(title=title, remark="Interrupt the kernel to stop waiting.")
        if self._line is None:
            # IPython has no types for it.
            self._line = display(panel, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._line.update(panel)
