"""The kernel's own part in suspending: cells and moves kept apart, orders carried out,
cells that wait.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.notebook.suspend.resume_hooks import ONCE, ResumeHooks
from tests.fakes.shells import new_shell
from tests.fakes.suspend_orders import JSON, residence


class Server:
    """Answers the verbs of one kernel; `phases` are what the cell's questions find, one
    after the other.
    """

    def __init__(self, *phases: str) -> None:
        self.phases, self.called = list(phases), list[str]()
        self.on_ask: Any = None

    def __call__(self, verb: str, **payload: Any) -> JSON:
        if verb == "orders":
            threading.Event().wait()  # the agent's thread is not part of these tests
        self.called.append(verb)
        if verb == "begin_cell" and self.on_ask is not None:
            self.on_ask()
        phase = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        return {"residence": residence(phase) if phase else None, "ahead": 2}


class Notebook:
    """A shell with the hooks in it."""

    def __init__(self, *phases: str, has_lease: bool = True) -> None:
        self.server, self.messages = Server(*phases), list[str]()
        self.shell = new_shell()
        self.hooks = ResumeHooks(self.shell, self.server, self.messages.append)
        self.hooks.register()
        if has_lease:
            self.hooks.agent.lease_id = "l-1"
        self.shell.user_ns["model"] = sys.modules["pytest"].Item

    def run(self, code: str) -> Any:
        done = self.shell.run_cell(code)
        for thread in threading.enumerate():
            if thread.name == "aistack-cell-ends":
                thread.join()
        return done


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is displayed, as text."""
    shown: list[str] = []

    class Line:
        def update(self, panel: Any) -> None:
            shown.append(repr(panel))

    monkeypatch.setattr(
        "IPython.display.display",
        lambda panel, display_id: shown.append(repr(panel)) or Line(),
    )
    return shown


def test_without_a_residence_nobody_is_asked() -> None:
    book = Notebook("resident", has_lease=False)
    assert book.run("model").success
    assert book.server.called == []


def test_a_cell_that_needs_the_gpu_says_so_and_says_when_it_is_over() -> None:
    book = Notebook("resident")
    assert book.run("model").success
    assert book.server.called == ["begin_cell", "end_cell"]
    assert book.run("1 + 1").success
    assert book.run("%gpu_unknown_magic").error_in_exec is not None
    assert book.server.called[2:] == ["begin_cell", "end_cell"], (
        "plain Python is nobody's business"
    )


def test_a_value_that_cannot_be_looked_at_may_be_anything() -> None:
    class Shy:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("not now")

    book = Notebook("resident")
    Shy.__module__ = "__main__"
    book.shell.user_ns["shy"] = Shy()
    assert book.run("shy is None").success
    assert book.server.called == ["begin_cell", "end_cell"]


def test_a_cell_waits_until_its_state_is_back_and_then_runs(
    no_display: list[str],
) -> None:
    book = Notebook("parked", "restoring", "resident")
    assert book.run("ran = bool(model)").success
    assert book.shell.user_ns["ran"]
    assert book.server.called == ["begin_cell"] * 3 + ["end_cell"]
    assert "Resuming 8.0 GiB, behind 2 that waited before" in no_display[0]
    assert "8.0 GiB came back to the GPU" in no_display[-1]


def test_a_state_that_is_lost_keeps_its_cells_from_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    book = Notebook("parked", "lost")
    assert (
        type(book.run("ran = bool(model)").error_before_exec).__name__
        == "InputRejected"
    )
    assert "ran" not in book.shell.user_ns
    assert "the GPU memory of this kernel is lost" in capsys.readouterr().out
    assert book.run("1 + 1").success, "what needs no GPU runs"


def test_ctrl_c_ends_the_wait_and_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    book = Notebook("parked")

    def interrupt() -> None:
        if len(book.server.called) == 2:
            raise KeyboardInterrupt

    book.server.on_ask = interrupt
    assert (
        type(book.run("ran = bool(model)").error_before_exec).__name__
        == "InputRejected"
    )
    assert book.server.called[-1] == "end_cell"
    assert (
        "stopped waiting for the GPU; the cell did not run" in capsys.readouterr().out
    )
    assert book.run("1 + 1").success


def test_a_server_that_does_not_answer_does_not_keep_a_cell_from_running() -> None:
    book = Notebook("resident")

    def fail() -> None:
        raise LedgerUnavailable("no Jupyter server answers")

    book.server.on_ask = fail
    assert book.run("ran = bool(model)").success
    assert "no Jupyter server answers" in book.messages[0]


def test_what_being_parked_means_is_told_once() -> None:
    book = Notebook("resident")
    book.hooks.agent.execute({"residence": residence("parked"), "orders": []})
    book.run("1")
    book.run("2")
    assert book.messages == [ONCE]


def test_that_nothing_has_moved_is_said_of_a_simulated_gpu() -> None:
    book = Notebook("resident")
    book.hooks.agent.execute(
        {"residence": residence("parked", tier="simulated"), "orders": []}
    )
    book.run("1")
    assert book.messages == [f"{ONCE} (The GPU is simulated: nothing has moved.)"]


def test_unloading_takes_the_hooks_out() -> None:
    book = Notebook("resident")
    book.hooks.unregister()
    assert book.run("model").success
    assert book.server.called == []


# -- cells and moves -------------------------------------------------------------------


# -- orders ----------------------------------------------------------------------------


# -- reports ---------------------------------------------------------------------------
