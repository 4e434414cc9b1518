"""The kernel's own part in suspending: cells and moves kept apart, orders carried out,
cells that wait.
"""

from __future__ import annotations

import sys
import threading
import types
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.notebook.suspend import report as reports
from jupyter_aistack.notebook.suspend.agent import SuspendAgent
from jupyter_aistack.notebook.suspend.execution_lock import ExecutionLock
from jupyter_aistack.notebook.suspend.resume_hooks import ONCE, ResumeHooks

JSON = dict[str, Any]


def residence(phase: str, **more: Any) -> JSON:
    return {"phase": phase, "state_bytes": 8 << 30, "note": "", "asked": "", **more}


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
        self.server, self.said = Server(*phases), list[str]()
        self.shell = InteractiveShell()
        self.hooks = ResumeHooks(self.shell, self.server, self.said.append)
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
    assert "no Jupyter server answers" in book.said[0]


def test_what_being_parked_means_is_told_once() -> None:
    book = Notebook("resident")
    book.hooks.agent.execute({"residence": residence("parked"), "orders": []})
    book.run("1")
    book.run("2")
    assert book.said == [ONCE]


def test_that_nothing_has_moved_is_said_of_a_simulated_gpu() -> None:
    book = Notebook("resident")
    book.hooks.agent.execute(
        {"residence": residence("parked", tier="simulated"), "orders": []}
    )
    book.run("1")
    assert book.said == [f"{ONCE} (The GPU is simulated: nothing has moved.)"]


def test_unloading_takes_the_hooks_out() -> None:
    book = Notebook("resident")
    book.hooks.unregister()
    assert book.run("model").success
    assert book.server.called == []


# -- cells and moves -------------------------------------------------------------------


def test_nothing_moves_while_a_cell_runs_and_no_cell_begins_while_something_moves() -> (
    None
):
    lock = ExecutionLock()
    lock.acquire()
    with lock.block() as is_blocked:
        assert not is_blocked
    with lock.released(), lock.block() as is_blocked:
        assert is_blocked, "a cell that only waits is none"
        is_blocked = False
    lock.release()
    lock.release()  # an empty cell ends without having begun
    cell = threading.Thread(target=lock.acquire)
    with lock.block() as is_blocked:
        assert is_blocked
        cell.start()
        cell.join(0.05)
        assert cell.is_alive(), "it waits"
    cell.join()
    with lock.block() as is_blocked:
        assert not is_blocked


def test_an_order_waits_for_the_end_of_the_cell_it_came_from() -> None:
    lock = ExecutionLock()
    lock.acquire()
    threading.Timer(0.05, lock.release).start()
    with lock.block(patience_seconds=10) as is_blocked:
        assert is_blocked


# -- orders ----------------------------------------------------------------------------


class Mail:
    """What an agent answers."""

    def __init__(self) -> None:
        self.answers: dict[str, JSON] = {}

    def __call__(self, verb: str, **payload: Any) -> JSON:
        assert verb == "done"
        self.answers[payload["order_id"]] = payload["answer"]
        return {}


def orders(*acts: str) -> JSON:
    found = [{"id": act, "act": act, "kinds": ["cpu"]} for act in acts]
    return {"residence": residence("parking"), "orders": found}


def test_an_order_amid_a_cell_is_turned_down_and_nonsense_is_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jupyter_aistack.notebook.suspend.agent.PATIENCE_SECONDS", 0.0)
    lock, mail = ExecutionLock(), Mail()
    lock.acquire()
    agent = SuspendAgent(lock, mail)
    agent.execute(orders("trim"))
    assert mail.answers["trim"] == {"error": "a cell runs", "is_busy": True}
    lock.release()
    agent.execute(orders("dance"))
    assert mail.answers["dance"] == {"error": "KeyError: 'dance'"}


def test_an_agent_ends_with_the_residence() -> None:
    agent = SuspendAgent(ExecutionLock(), Mail())
    agent.lease_id = "l-1"
    agent.execute({"residence": None, "orders": []})
    assert agent.lease_id == ""
    agent.observe({"id": "l-2", "residence": None})
    assert agent.lease_id == ""


# -- reports ---------------------------------------------------------------------------


def module(
    monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any
) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(contents)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_managed_memory_is_told_by_who_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reports.managed() == ""

    class ManagedMemoryResource:
        pass

    class Pool:
        def get_upstream(self) -> ManagedMemoryResource:
            return ManagedMemoryResource()

    mr = types.SimpleNamespace(get_current_device_resource=Pool)
    module(monkeypatch, "rmm", mr=mr)
    assert reports.managed() == "RMM"
    mr.get_current_device_resource = object
    assert reports.managed() == ""
    module(monkeypatch, "cudf.pandas")
    assert reports.managed() == "cudf.pandas"


def test_a_paged_optimizer_is_seen_while_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module(monkeypatch, "bitsandbytes")

    class Adam:
        __module__ = "bitsandbytes.optim"
        is_paged = True

    keep = Adam()
    assert reports.managed() == "bitsandbytes"
    del keep
    assert reports.managed() == ""


def test_memory_shared_with_another_process_is_told_from_that_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reference:
        def __init__(self, is_expired: bool = False) -> None:
            self.expired = lambda: is_expired

    cache: dict[Any, Any] = {
        (3, 4): Reference(),
        b"/torch_1_2_3": Reference(),
        b"x" * 66: Reference(True),
    }
    module(monkeypatch, "torch.multiprocessing.reductions", shared_cache=cache)
    assert not reports.shares_memory()
    cache[b"x" * 66] = Reference()
    assert reports.shares_memory()
    del cache[b"x" * 66]
    cache[(b"x" * 66, 0)] = Reference()
    assert reports.shares_memory()


def test_a_report_of_a_plain_process_finds_nothing() -> None:
    found = reports.report({"cuda"})
    assert (
        found["cuda"],
        found["managed"],
        found["nccl"],
        found["ipc"],
        found["graphs"],
    ) == (
        False,
        "",
        False,
        False,
        0,
    )
    reports.trim()
