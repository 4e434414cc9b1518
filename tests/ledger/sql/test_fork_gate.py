"""A fork waits for the database calls of other threads, and they for it."""

from __future__ import annotations

import threading

from jupyter_aistack.ledger.sql.fork_gate import ForkGate


def test_a_fork_waits_for_the_call_that_is_under_way() -> None:
    gate = ForkGate()
    with gate:
        assert not gate.close(seconds=0.0)
    gate.open()
    assert gate.close(seconds=0.0)


def test_a_call_begins_when_the_fork_is_over() -> None:
    gate = ForkGate()
    begun = threading.Event()

    def call() -> None:
        with gate:
            begun.set()

    gate.close()
    thread = threading.Thread(target=call)
    thread.start()
    assert not begun.is_set()
    gate.open()
    thread.join()
    assert begun.is_set()


def test_two_forks_at_once_are_both_waited_for() -> None:
    gate = ForkGate()
    begun = threading.Event()

    def call() -> None:
        with gate:
            begun.set()

    gate.close()
    gate.close()
    thread = threading.Thread(target=call)
    thread.start()
    gate.open()
    assert not begun.wait(0.01)
    gate.open()
    thread.join()


def test_a_child_waits_for_none_of_its_parents_calls() -> None:
    gate = ForkGate()
    with gate:
        gate.close(seconds=0.0)
        gate.renew()
        assert gate.close(seconds=0.0)
        gate.renew()
        with gate:
            pass
