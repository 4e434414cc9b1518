"""Before a cell: have the kernel's device state on the device, or wait for it where
Ctrl-C is heard. After the cell: say that it has ended.
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
from jupyter_aistack.notebook.module_names import OFFLOAD_REGISTRY

from .agent import SuspendAgent
from .execution_lock import ExecutionLock

FIRST_POLL_SECONDS = 0.05
LAST_POLL_SECONDS = 0.5
ENDING_SECONDS = 2.0
"""How long a cell waits until the server knows of the end of the previous cell."""
ONCE = (
    "While this notebook was idle its GPU memory was moved to host memory for others to use. Nothing is lost: it comes "
    "back with the next cell that needs it. %gpu pin keeps it on the GPU."
)

Shell = Any
"""IPython's ``InteractiveShell``, of which only parts are typed."""

Answer = Mapping[str, Any]
"""To ``begin_cell``: ``residence``, and how many wait ``ahead``."""


class ResumeHooks:
    """The hooks of one shell. With no device state to watch over they cost one
    comparison.

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
        self.execution_lock = ExecutionLock()
        self.agent = SuspendAgent(self.execution_lock, call)
        self.gate = CellGate()
        self._is_in_use = False
        self._is_explained = False
        self._ending: threading.Thread | None = None

    def register(self) -> None:
        """Be called around cells from now on."""
        for event, hook in self._hooks().items():
            self._shell.events.register(event, hook)
        self._shell.ast_transformers.append(self.gate)

    def unregister(self) -> None:
        """Be called no more."""
        for event, hook in self._hooks().items():
            self._shell.events.unregister(event, hook)
        self._shell.ast_transformers.remove(self.gate)

    def _hooks(self) -> dict[str, Callable[..., None]]:
        return {
            "pre_execute": self.before_execution,
            "pre_run_cell": self.before_cell,
            "post_execute": self.execution_lock.release,
            "post_run_cell": self.after_cell,
        }

    def before_execution(self) -> None:
        """IPython's ``pre_execute``: let a move that is under way end."""
        self.gate.allow_cells()
        try:
            self.execution_lock.acquire()
        except KeyboardInterrupt:
            self.gate.block_cells(
                "interrupted while its registered objects were being moved"
            )

    def before_cell(self, info: Any = None) -> None:
        """IPython's ``pre_run_cell``; never raises."""
        if not self.agent.lease_id:
            return
        self._explain_once()
        try:
            if self._needs_device(str(getattr(info, "raw_cell", "") or "")):
                self._begin()
        except KeyboardInterrupt:
            self._end()
            self.gate.block_cells("stopped waiting for the GPU; the cell did not run")
        except AIStackError as error:
            self._say(
                f"Whether this kernel's GPU memory is there could not be asked: {error.message}"
            )

    def after_cell(self, *_: Any) -> None:
        """IPython's ``post_run_cell``; tells the server in a thread, beside whatever
        comes next.
        """
        if self._is_in_use:
            self._is_in_use = False
            self._ending = threading.Thread(
                target=self._end, name="aistack-cell-ends", daemon=True
            )
            self._ending.start()

    def _explain_once(self) -> None:
        """Say once what has happened while the notebook was idle."""
        if self._is_explained or not self.agent.was_suspended:
            return
        self._is_explained = True
        device_state = self.agent.device_state or {}
        if device_state.get("tier") == "simulated":
            self._say(f"{ONCE} (The GPU is simulated: nothing has moved.)")
        else:
            self._say(ONCE)

    def _needs_device(self, raw: str) -> bool:
        from .gpu_use import may_use_gpu

        try:
            return may_use_gpu(self._shell.transform_cell(raw), self._shell.user_ns)
        except Exception:  # a value of the user's raises when it is inspected
            return True

    def _begin(self) -> None:
        # The end of the previous cell must arrive first, or it would end this cell.
        if self._ending is not None:
            self._ending.join(ENDING_SECONDS)
        self._is_in_use = True

        answer = self._ask()
        if not _is_resident(answer):
            answer = self._wait_for_return(answer)
        if _phase(answer) == "lost":
            self._is_in_use = False
            self.gate.block_cells(
                f"the GPU memory of this kernel is lost ({answer['residence']['note']}); restart the kernel"
            )
            return
        self._move_registered_in()

    def _wait_for_return(self, answer: Answer) -> Answer:
        # The server moves registered objects through this kernel's agent, which would
        # wait for this very cell if it counted as running.
        with _ReturnProgress(answer) as progress, self.execution_lock.released():
            pause = FIRST_POLL_SECONDS
            while not _is_settled(answer):
                time.sleep(pause)
                pause = min(LAST_POLL_SECONDS, pause * 1.5)
                answer = self._ask()
                progress.show(answer)
        return answer

    def _move_registered_in(self) -> None:
        """Move in what is out though the server says that all is here: it gave up on
        this kernel, or this kernel was slow.
        """
        registry = sys.modules.get(OFFLOAD_REGISTRY)
        if registry is None or not registry.is_out():
            return
        try:
            registry.move_in()
        except AIStackError as error:
            self.gate.block_cells(error.message)

    def _ask(self) -> Answer:
        answer = self._call("begin_cell", lease_id=self.agent.lease_id)
        if answer["residence"] is not None:
            self.agent.device_state = answer["residence"]
        return answer

    def _end(self) -> None:
        self._is_in_use = False
        # Without it the server sees the kernel fall idle all the same.
        with contextlib.suppress(AIStackError):
            self._call("end_cell", lease_id=self.agent.lease_id)


class CellGate(ast.NodeTransformer):
    """An AST transformer that keeps the next cell from running: hooks may not, whatever
    they raise.
    """

    def __init__(self) -> None:
        self._reason = ""

    def block_cells(self, reason: str) -> None:
        """Reject the next cell, with this sentence."""
        self._reason = reason

    def allow_cells(self) -> None:
        """Let the next cell run."""
        self._reason = ""

    def visit(self, node: ast.AST) -> Any:
        """Called by IPython with each cell, before it runs."""
        reason = self._reason
        self._reason = ""
        if not reason:
            return node
        from IPython.core.error import InputRejected

        error = InputRejected(reason)
        # IPython asks the instance for it.
        error._render_traceback_ = lambda: [reason]  # type: ignore[attr-defined]
        raise error


class _ReturnProgress:
    """A line that shows how the return goes, updated in place."""

    def __init__(self, answer: Answer) -> None:
        self._began_at = time.monotonic()
        self._size = format_bytes(answer["residence"]["state_bytes"] or 0)
        self._answer = answer
        self._line: Any = None

    def __enter__(self) -> _ReturnProgress:
        from IPython.display import display

        # IPython has no types.
        self._line = display(self._panel(), display_id=True)  # type: ignore[no-untyped-call]
        return self

    def show(self, answer: Answer) -> None:
        self._answer = answer
        if self._line is not None:
            self._line.update(self._panel())

    def _panel(self) -> Panel:
        ahead = self._answer.get("ahead") or 0
        place = f", behind {ahead} that waited before" if ahead else ""
        why = str((self._answer["residence"] or {}).get("note") or "")
        hint = "interrupt the kernel to stop waiting"
        return Panel(
            title=f"Resuming {self._size}{place}, {self._seconds()}",
            remark=f"{why}; {hint}" if why else hint,
        )

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began_at:.1f} s"

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._line is None:
            return
        if kind is None and _is_resident(self._answer):
            title = f"{self._size} came back to the GPU in {self._seconds()}"
        else:
            title = f"The GPU memory is not back after {self._seconds()}"
        self._line.update(Panel(title=title))


def _phase(answer: Answer) -> str:
    """The phase of the device state; empty where there is none to watch over."""
    device_state = answer["residence"]
    return "" if device_state is None else str(device_state["phase"])


def _is_resident(answer: Answer) -> bool:
    return _phase(answer) in ("", "resident")


def _is_settled(answer: Answer) -> bool:
    return _is_resident(answer) or _phase(answer) == "lost"
