"""Before a cell: have the kernel's device state there, or wait for it where Ctrl-C is
heard. After it: say so.
"""

from __future__ import annotations

import ast
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.exceptions import AIStackError

from .agent import SuspendAgent
from .execution_lock import ExecutionLock
from .gpu_use import may_use_gpu

FIRST_POLL_SECONDS = 0.05
LAST_POLL_SECONDS = 0.5
ENDING_SECONDS = 2.0
"""How long a cell waits for the word about the end of the one before."""
ONCE = (
    "While this notebook was idle its GPU memory was moved to host memory for others to use. Nothing is lost: it comes "
    "back with the next cell that needs it. %gpu pin keeps it on the GPU."
)

Shell = Any
"""IPython's ``InteractiveShell``, of which only parts are typed."""


class ResumeHooks:
    """The hooks of one shell. With no residence to look after they cost one comparison.

    Args:
        shell: the shell.
        call: carries a verb to the server; raises `AIStackError`.
        say: shows a line.
    """

    def __init__(
        self,
        shell: Shell,
        call: Callable[..., dict[str, Any]],
        say: Callable[[str], None] = print,
    ) -> None:
        self._shell = shell
        self._call = call
        self._say = say
        self.presence = ExecutionLock()
        self.agent = SuspendAgent(self.presence, call)
        self.gate = CellGate()
        self._is_in_use = self._is_told = False
        self._ending: threading.Thread | None = None

    def register(self) -> None:
        """Hear of cells from now on."""
        for event, hook in self._hooks().items():
            self._shell.events.register(event, hook)
        self._shell.ast_transformers.append(self.gate)

    def unregister(self) -> None:
        """Hear of cells no more."""
        for event, hook in self._hooks().items():
            self._shell.events.unregister(event, hook)
        self._shell.ast_transformers.remove(self.gate)

    def _hooks(self) -> dict[str, Callable[..., None]]:
        return {
            "pre_execute": self.before_anything,
            "pre_run_cell": self.before_cell,
            "post_execute": self.presence.ends,
            "post_run_cell": self.after_cell,
        }

    def before_anything(self) -> None:
        """IPython's ``pre_execute``: let a move that is under way end."""
        self.gate.open()
        try:
            self.presence.begins()
        except KeyboardInterrupt:
            self.gate.shut("interrupted while its registered objects were being moved")

    def before_cell(self, info: Any = None) -> None:
        """IPython's ``pre_run_cell``; never raises."""
        if not self.agent.lease_id:
            return
        self._tell_once()
        try:
            if self._needs_device(str(getattr(info, "raw_cell", "") or "")):
                self._begin()
        except KeyboardInterrupt:
            self._end()
            self.gate.shut("stopped waiting for the GPU; the cell did not run")
        except AIStackError as error:
            self._say(
                f"Whether this kernel's GPU memory is there could not be asked: {error.message}"
            )

    def after_cell(self, *_: Any) -> None:
        """IPython's ``post_run_cell``; the word goes out beside whatever comes next."""
        if self._is_in_use:
            self._is_in_use = False
            self._ending = threading.Thread(
                target=self._end, name="aistack-cell-ends", daemon=True
            )
            self._ending.start()

    def _tell_once(self) -> None:
        if self.agent.has_been_parked and not self._is_told:
            self._is_told = True
            is_simulated = (self.agent.residence or {}).get("tier") == "simulated"
            self._say(
                ONCE
                + (
                    " (The GPU is simulated: nothing has moved.)"
                    if is_simulated
                    else ""
                )
            )

    def _needs_device(self, raw: str) -> bool:
        try:
            return may_use_gpu(self._shell.transform_cell(raw), self._shell.user_ns)
        except Exception:  # some value does not even bear to be looked at
            return True

    def _begin(self) -> None:
        if self._ending is not None:
            self._ending.join(ENDING_SECONDS)
        self._is_in_use = True
        said = self._ask()
        if _is_back(said):
            self._check_registered()
            return
        with _Returning(said) as returning, self.presence.away():
            pause = FIRST_POLL_SECONDS
            while not _is_settled(said):
                time.sleep(pause)
                pause = min(LAST_POLL_SECONDS, pause * 1.5)
                said = self._ask()
                returning.show(said)
        if said["residence"] is not None and said["residence"]["phase"] == "lost":
            self._is_in_use = False
            self.gate.shut(
                f"the GPU memory of this kernel is lost ({said['residence']['note']}); restart the kernel"
            )
            return
        self._check_registered()

    def _check_registered(self) -> None:
        """Bring in what is out though all is said to be here: whoever moved it out gave
        up on us, or we were slow.
        """
        registry = sys.modules.get("jupyter_aistack.client.offload.registry")
        if registry is None or not registry.is_out():
            return
        try:
            registry.move_in()
        except AIStackError as error:
            self.gate.shut(error.message)

    def _ask(self) -> dict[str, Any]:
        said = self._call("begin_cell", lease_id=self.agent.lease_id)
        if said["residence"] is not None:
            self.agent.residence = said["residence"]
        return said

    def _end(self) -> None:
        self._is_in_use = False
        with contextlib.suppress(
            AIStackError
        ):  # the server sees the kernel fall idle all the same
            self._call("end_cell", lease_id=self.agent.lease_id)


class CellGate(ast.NodeTransformer):
    """An AST transformer that keeps the next cell from running: hooks may not, whatever
    they raise.
    """

    def __init__(self) -> None:
        self._why = ""

    def shut(self, why: str) -> None:
        """Turn the next cell down, with this sentence."""
        self._why = why

    def open(self) -> None:
        """Let the next cell run."""
        self._why = ""

    def visit(self, node: ast.AST) -> Any:
        """Called by IPython with each cell, before it runs."""
        why = self._why
        self._why = ""
        if not why:
            return node
        from IPython.core.error import InputRejected

        error = InputRejected(why)
        error._render_traceback_ = lambda: [why]  # type: ignore[attr-defined] # IPython asks the instance for it
        raise error


class _Returning:
    """A line that tells how the return goes, updated in place."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._since = time.monotonic()
        self._size = format_bytes(said["residence"]["state_bytes"] or 0)
        self._said = said
        self._line: Any = None

    def __enter__(self) -> _Returning:
        from IPython.display import display

        self._line = display(self._panel(), display_id=True)  # type: ignore[no-untyped-call] # IPython has no types
        return self

    def show(self, said: Mapping[str, Any]) -> None:
        self._said = said
        if self._line is not None:
            self._line.update(self._panel())

    def _panel(self) -> Panel:
        ahead = self._said.get("ahead") or 0
        place = f", behind {ahead} that waited before" if ahead else ""
        title = f"Resuming {self._size}{place}, {time.monotonic() - self._since:.1f} s"
        why = str((self._said["residence"] or {}).get("note") or "")
        return Panel(
            title=title,
            remark="; ".join(
                filter(None, [why, "interrupt the kernel to stop waiting"])
            ),
        )

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._line is None:
            return
        took = f"{time.monotonic() - self._since:.1f} s"
        is_back = kind is None and _is_back(self._said)
        title = (
            f"{self._size} came back to the GPU in {took}"
            if is_back
            else f"The GPU memory is not back after {took}"
        )
        self._line.update(Panel(title=title))


def _is_back(said: Mapping[str, Any]) -> bool:
    return said["residence"] is None or said["residence"]["phase"] == "resident"


def _is_settled(said: Mapping[str, Any]) -> bool:
    return _is_back(said) or said["residence"]["phase"] == "lost"
