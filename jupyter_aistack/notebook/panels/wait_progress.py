"""A line that tells how the waiting for a slice goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jupyter_aistack.client.display import Panel

from . import views


class Progress:
    """A line that says how the waiting goes, updated in place."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._line: Any = None
        self._since = time.monotonic()

    def __enter__(self) -> Callable[[int | None, str], None]:
        return self._show

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._line is not None:
            what = "was granted" if kind is None else "is no longer waited for,"
            self._line.update(
                Panel(
                    title=f"{self._spec} {what} after {time.monotonic() - self._since:.0f} s"
                )
            )

    def _show(self, position: int | None, reason: str) -> None:
        from IPython.display import display

        title = views.waiting_line(
            {"spec": self._spec, "position": position, "reason": reason}
        )
        panel = Panel(title=title, remark="Interrupt the kernel to stop waiting.")
        if self._line is None:
            self._line = display(panel, display_id=True)  # type: ignore[no-untyped-call] # IPython has no types for it
        else:
            self._line.update(panel)
