"""Cells and moves are kept apart."""

from __future__ import annotations

import threading

from jupyter_aistack.notebook.suspend.execution_lock import ExecutionLock


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
