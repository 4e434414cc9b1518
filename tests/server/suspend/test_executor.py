"""A kernel's state out and back by the driver, and whatever may go wrong: real
processes, a helper with faults.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    DisplayState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
    with_pin_reason,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import Policy, Queue, SuspendPolicy
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.server.suspend.driver_checkpoint import DriverCheckpoint
from jupyter_aistack.server.suspend.executor import SuspendExecutor
from jupyter_aistack.server.suspend.memory_probe import MemoryProbe
from jupyter_aistack.server.suspend.worker import SuspendWorker
from jupyter_aistack.system.processes import tree
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import CAN_SUSPEND, ManualClock
from tests.fakes.fake_gpu import GIB, FakeGPU
from tests.paths import FAKES

FAKE = FAKES / "fake_checkpoint.py"
SLEEP = "import time; time.sleep(600)"
WITH_CUDA = "import ctypes, time; ctypes.CDLL({library!r}); print('mapped', flush=True); time.sleep(600)"
WITH_CHILD = """
import ctypes, subprocess, sys, time
ctypes.CDLL({library!r})
child = subprocess.Popen([sys.executable, "-S", "-c", {code!r}], stdout=subprocess.PIPE)
print(child.stdout.readline(), flush=True)
child.wait()
"""
HELD = 4 * GIB
Start = Callable[[str], int]


class World:
    """A host with one kernel on a fake GPU, and a server that may suspend it."""

    def __init__(self, folder: Path, script: dict[str, list[str]]) -> None:
        self.states = folder / "states.json"
        self.states.write_text("{}")
        self.gpu, self.clock = FakeGPU(self.states), ManualClock()
        self.command = (sys.executable, str(FAKE), str(self.states), json.dumps(script))
        self.helper = CheckpointClient(self.command)
        self.capability = SuspendCapability(tier=SuspendMethod.CHECKPOINT)
        self.report: dict[str, Any] | None = {"registered_bytes": 0}
        self.on_copy_out: Callable[[], None] = lambda: None
        self.host_memory = 64 * GIB
        self.broker = Broker(
            MemoryLedger(),
            [self.gpu],
            policy=Policy(queues=(Queue(name="default", suspend=True),)),
            host="box",
            ttl_seconds=1e9,
            clock=self.clock,
            suspend=SuspendPolicy(lock_seconds=1.0),
            capability=CAN_SUSPEND,
            host_memory=lambda: self.host_memory,
        )
        self.worker = self.server()

    def server(self) -> SuspendWorker:
        """A server's worker, as after its start."""
        self.executor = SuspendExecutor(
            probe=MemoryProbe(self.broker),
            checkpoints=DriverCheckpoint(self.helper, lock_seconds=1.0),
            call_agent=self.call_agent,
            capability=lambda: self.capability,
            policy=SuspendPolicy(),
            clock=self.clock,
            host_capacity=self.broker.suspend_capacity_bytes,
            log=logging.getLogger("test"),
        )
        return SuspendWorker(
            self.broker,
            self.executor,
            is_own=lambda lease: True,
            log=logging.getLogger("test"),
        )

    def call_agent(
        self,
        kernel_id: str,
        act: str,
        *,
        kinds: Collection[str] = (),
        patience: float,
        seconds: float,
    ) -> dict[str, Any] | None:
        """What the kernel's agent answers."""
        if act == "out":
            self.on_copy_out()
        return self.report

    def kernel(self, pid: int, *works: int) -> Lease:
        """A lease on the whole GPU for a kernel that is process `pid`, once its server
        has looked at it.

        Meanwhile the processes `works` use the GPU.
        """
        holder = Holder(
            kind=HolderKind.KERNEL, id="k", user=current_user(), host="box", pid=pid
        )
        lease = self.broker.lease(self.broker.submit("1", holder).lease_id)
        lease = self.broker.bind(lease.id, lease.token, pid=pid, root_pid=pid)
        self.works(*works)
        self.broker.activate(lease.id, lease.token, verified=None)
        self.work()
        return self.now()

    def works(self, *pids: int) -> None:
        """These processes use the GPU."""
        self.states.write_text(json.dumps({str(pid): "running" for pid in pids}))
        self.gpu.held = dict.fromkeys(pids, HELD)
        self.broker.devices.forget()

    def now(self) -> Lease:
        (lease,) = self.broker.leases()
        return lease

    @property
    def home(self) -> DeviceState:
        residence = self.now().residence
        assert residence is not None
        return residence

    def work(self) -> None:
        """What the server's threads would do now."""
        for lease in self.worker.owned_leases():
            if self.worker.claim(lease):
                self.worker.work(lease)

    def suspend(self) -> DeviceState:
        self.clock.advance(3600)
        self.broker.request_action(self.now().id, RequestedAction.SUSPEND)
        assert self.home.phase is StatePhase.PARKING
        self.work()
        return self.home

    def resume(self) -> DeviceState:
        self.clock.advance(60)
        self.broker.begin_cell(self.now().id)
        assert self.home.phase is StatePhase.RESTORING
        self.work()
        return self.home

    def state(self, pid: int) -> str:
        return str(json.loads(self.states.read_text())[str(pid)])

    def events(self) -> list[str]:
        return [event.kind.value for event in self.broker.events()]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that runs this code until the test is over; its id."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str = SLEEP) -> int:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        if "print" in code:
            assert process.stdout is not None
            assert process.stdout.readline()
        return process.pid

    yield run
    for process in started:
        process.kill()
        process.wait()


Make = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def make(**script: list[str]) -> World:
        made.append(World(tmp_path, script))
        return made[-1]

    yield make
    for each in made:
        each.helper.close()


@pytest.fixture
def kernel(start: Start, driver: str) -> int:
    """A process that has opened the driver's library."""
    return start(WITH_CUDA.format(library=f"{driver}/libcuda.so.1"))


def resident(world: World, kernel: int) -> World:
    world.kernel(kernel, kernel)
    assert world.home.pinned == ""
    return world


def test_out_and_back_with_bytes_and_seconds(world: Make, kernel: int) -> None:
    box = resident(world(), kernel)
    gone = box.suspend()
    assert (gone.phase, gone.tier, gone.state_bytes) == (
        StatePhase.PARKED,
        SuspendMethod.CHECKPOINT,
        HELD,
    )
    assert gone.note.startswith("4.0 GiB in ")
    assert box.state(kernel) == "checkpointed"
    back = box.resume()
    assert (back.phase, back.is_busy, back.state_bytes) == (
        StatePhase.RESIDENT,
        True,
        None,
    )
    assert back.note.startswith("4.0 GiB in ")
    assert box.state(kernel) == "running"
    told = {event.kind.value: event.detail for event in box.broker.events()}
    assert (told["LeaseSuspended"], told["LeaseResumed"]) == (gone.note, back.note)


def test_a_slow_copy_is_waited_for(world: Make, kernel: int) -> None:
    box = resident(world(checkpoint=["slow"], restore=["slow"]), kernel)
    assert box.suspend().phase is StatePhase.PARKED
    assert box.resume().phase is StatePhase.RESIDENT


def test_work_that_does_not_end_in_time_leaves_it_there_for_longer_each_time(
    world: Make, kernel: int
) -> None:
    box = resident(world(lock=["timeout", "timeout"]), kernel)
    stays = box.suspend()
    assert (stays.phase, stays.failures, stays.note) == (
        StatePhase.RESIDENT,
        1,
        "its device work did not end in time",
    )
    assert stays.pinned == ""
    assert box.suspend().failures == 2
    assert box.suspend().phase is StatePhase.PARKED


@pytest.mark.parametrize("fault", ["denied", "unsupported"])
def test_what_the_driver_will_never_do_is_not_tried_again_until_it_has_run(
    world: Make, kernel: int, fault: str
) -> None:
    box = resident(world(lock=[fault]), kernel)
    stays = box.suspend()
    assert stays.phase is StatePhase.RESIDENT
    assert stays.pinned.startswith("the driver could not suspend it: ")
    box.work()
    assert box.home.pinned == stays.pinned
    box.broker.begin_cell(box.now().id)
    box.clock.advance(1)
    box.broker.end_cell(box.now().id)
    box.work()
    assert box.home.pinned == ""


@pytest.mark.parametrize("fault", ["crash", "crash_after"])
def test_a_helper_that_crashes_while_it_locks_leaves_a_kernel_that_goes_on(
    world: Make, kernel: int, fault: str
) -> None:
    box = resident(world(lock=[fault]), kernel)
    gone = box.suspend()
    assert (gone.phase, box.state(kernel)) in (
        (StatePhase.RESIDENT, "running"),
        (StatePhase.PARKED, "checkpointed"),
    )


@pytest.mark.parametrize("fault", ["crash", "crash_after"])
def test_a_helper_that_crashes_while_it_copies_is_followed_by_one_that_goes_on(
    world: Make, kernel: int, fault: str
) -> None:
    box = resident(world(checkpoint=[fault]), kernel)
    assert box.suspend().phase is StatePhase.PARKED
    assert box.resume().phase is StatePhase.RESIDENT
    assert box.state(kernel) == "running"


@pytest.mark.parametrize("step", ["restore", "unlock"])
@pytest.mark.parametrize("fault", ["crash", "crash_after"])
def test_a_helper_that_crashes_while_it_restores_is_followed_by_one_that_goes_on(
    world: Make, kernel: int, step: str, fault: str
) -> None:
    box = resident(world(**{step: [fault]}), kernel)
    box.suspend()
    assert box.resume().phase is StatePhase.RESIDENT
    assert box.state(kernel) == "running"


def test_helpers_that_crash_again_and_again_do_not_lose_a_kernel_that_can_go_on(
    world: Make, kernel: int
) -> None:
    box = resident(world(checkpoint=["crash"] * 3), kernel)
    stays = box.suspend()
    assert (stays.phase, box.state(kernel)) == (StatePhase.RESIDENT, "running")
    assert "the checkpoint helper ended (139)" in stays.note


def test_a_restore_without_memory_loses_the_kernel_for_good_and_says_what_to_do(
    world: Make, kernel: int
) -> None:
    box = resident(world(restore=["oom"]), kernel)
    box.suspend()
    lost = box.resume()
    assert lost.phase is StatePhase.LOST
    assert "CUDA_ERROR_OUT_OF_MEMORY: out of memory; restart the" in lost.note
    assert "LeaseStateLost" in box.events()
    with pytest.raises(LeaseError, match="its state is lost"):
        box.broker.request_action(box.now().id, RequestedAction.RESUME)
    box.work()
    assert box.home == lost


def test_a_restore_that_failed_otherwise_and_left_it_whole_is_tried_again(
    world: Make, kernel: int
) -> None:
    box = resident(world(restore=["unlucky"]), kernel)
    box.suspend()
    waits = box.resume()
    assert waits.phase is StatePhase.RESTORING, "the next turn has begun already"
    box.work()
    assert box.home.phase is StatePhase.RESIDENT


def test_memory_that_somebody_took_after_the_plan_is_seen_before_the_restore(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.suspend()
    box.clock.advance(60)
    box.broker.begin_cell(box.now().id)
    box.gpu.taken = 13 * GIB
    box.work()
    assert box.home.phase is StatePhase.PARKED
    assert "GPU-a has 3.0 GiB free, and " in box.home.note
    assert box.state(kernel) == "checkpointed"
    box.gpu.taken = 0
    box.clock.advance(10)
    box.broker.cycle()
    box.work()
    assert box.home.phase is StatePhase.RESIDENT


def test_memory_that_stays_on_the_device_is_not_believed_away(
    world: Make, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jupyter_aistack.server.suspend.memory_probe.SETTLE_SECONDS", 0.0
    )
    box = resident(world(), kernel)
    box.gpu.stuck = GIB
    stays = box.suspend()
    assert (stays.phase, stays.note, box.state(kernel)) == (
        StatePhase.RESIDENT,
        "1.0 GiB stayed on its device",
        "running",
    )


def test_a_figure_that_is_kept_back_while_it_is_away_is_made_up_by_what_is_free(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.gpu.stuck = None
    assert box.suspend().phase is StatePhase.PARKED


def test_a_figure_that_is_kept_back_frees_nothing_by_itself(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.gpu.stuck, box.gpu.stays_in_use = None, HELD
    stays = box.suspend()
    assert (stays.phase, box.state(kernel)) == (StatePhase.RESIDENT, "running")
    assert "the driver does not say what is left on its device" in stays.note


def test_a_child_that_is_listed_with_nothing_stays_and_hinders_nobody(
    world: Make, start: Start, driver: str
) -> None:
    library = f"{driver}/libcuda.so.1"
    kernel = start(
        WITH_CHILD.format(library=library, code=WITH_CUDA.format(library=library))
    )
    child = next(iter(tree({"k": kernel})["k"] - {kernel}))
    box = world()
    box.kernel(kernel, kernel)
    box.gpu.held[child] = 0
    box.states.write_text(
        json.dumps({str(kernel): "running", str(child): "no context"})
    )
    gone = box.suspend()
    assert (gone.phase, gone.state_bytes) == (StatePhase.PARKED, HELD)
    assert (box.state(kernel), box.state(child)) == ("checkpointed", "no context")
    assert box.resume().phase is StatePhase.RESIDENT
    assert box.state(kernel) == "running"


def test_a_kernel_that_is_listed_with_nothing_leaves_and_returns_without_the_driver(
    world: Make, kernel: int
) -> None:
    box = world()
    box.kernel(kernel, kernel)
    box.gpu.held[kernel] = 0
    box.states.write_text(json.dumps({str(kernel): "no context"}))
    gone = box.suspend()
    assert (gone.phase, gone.state_bytes) == (StatePhase.PARKED, 0)
    assert box.resume().phase is StatePhase.RESIDENT


def test_a_process_that_is_listed_elsewhere_with_nothing_holds_nothing_there(
    world: Make, kernel: int
) -> None:
    box = world()
    box.gpu.elsewhere, box.gpu.elsewhere_bytes = kernel, 0
    box.kernel(kernel, kernel)
    assert box.home.pinned == ""


def test_a_host_without_room_keeps_it_on_the_device(world: Make, kernel: int) -> None:
    box = resident(world(), kernel)
    box.clock.advance(3600)
    box.broker.request_action(box.now().id, RequestedAction.SUSPEND)
    box.host_memory = GIB
    box.work()
    assert box.home.phase is StatePhase.RESIDENT
    assert box.home.note == "the host has no memory for 4.0 GiB: 614.4 MiB may be used"


def test_a_device_that_works_on_is_left_alone_whoever_says_that_it_is_idle(
    world: Make, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_aistack.server.suspend.memory_probe.REST_SECONDS", 0.0)
    box = resident(world(), kernel)
    box.gpu.busy = 0.3
    assert box.suspend().note == "its device works"


def test_the_end_of_what_a_cell_has_just_done_is_waited_for(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.gpu.busy = 0.3
    rest = threading.Timer(0.2, setattr, (box.gpu, "busy", 0.0))
    rest.start()
    assert box.suspend().phase is StatePhase.PARKED
    rest.join()


def test_a_cell_that_begins_before_anything_has_moved_goes_on_at_once(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.clock.advance(3600)
    box.broker.request_action(box.now().id, RequestedAction.SUSPEND)
    box.broker.begin_cell(box.now().id)
    box.work()
    assert (box.home.phase, box.home.is_busy, box.home.note) == (
        StatePhase.RESIDENT,
        True,
        "a cell began",
    )
    assert box.state(kernel) == "running"


def test_all_processes_with_a_context_move_together(
    world: Make, start: Start, driver: str
) -> None:
    library = f"{driver}/libcuda.so.1"
    parent = start(
        WITH_CHILD.format(library=library, code=WITH_CUDA.format(library=library))
    )
    box = world()
    (child,) = map(
        int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    )
    box.kernel(parent, parent, child)
    assert box.suspend().state_bytes == 2 * HELD
    assert {box.state(parent), box.state(child)} == {"checkpointed"}
    assert box.resume().phase is StatePhase.RESIDENT
    assert {box.state(parent), box.state(child)} == {"running"}


def test_a_kernel_that_uses_another_gpu_too_is_pinned(world: Make, kernel: int) -> None:
    box = world()
    box.gpu.elsewhere = kernel
    box.kernel(kernel, kernel)
    assert box.home.pinned == "it holds memory on GPU b, which is not of its lease"
    box.gpu.elsewhere = None
    box.clock.advance(1)
    box.broker.begin_cell(box.now().id)
    box.broker.end_cell(box.now().id)
    box.work()
    assert box.home.pinned == "", "what made it unfit is gone"


def test_a_kernel_that_holds_nothing_leaves_and_returns_without_the_driver(
    world: Make, kernel: int
) -> None:
    box = world()
    box.kernel(kernel)
    gone = box.suspend()
    assert (gone.phase, gone.tier, gone.state_bytes) == (
        StatePhase.PARKED,
        SuspendMethod.OFF,
        0,
    )
    assert box.resume().phase is StatePhase.RESIDENT


def test_a_driver_that_does_not_say_what_is_held_is_not_worked_with(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.gpu.is_silent = True
    assert box.suspend().note == "the driver does not say what it holds"


@pytest.mark.parametrize("state", ["running", "locked", "checkpointed"])
def test_a_new_server_goes_on_with_a_suspend_from_where_the_old_one_was(
    world: Make, kernel: int, state: str
) -> None:
    box = resident(world(), kernel)
    box.clock.advance(3600)
    box.broker.request_action(box.now().id, RequestedAction.SUSPEND)
    box.states.write_text(json.dumps({str(kernel): state}))
    box.worker = box.server()
    box.work()
    assert box.home.phase is StatePhase.PARKED
    assert box.home.state_bytes == (HELD if state == "running" else 16 * GIB), (
        "its budget, where nobody knows better"
    )
    assert box.resume().phase is StatePhase.RESIDENT
    assert box.state(kernel) == "running"


@pytest.mark.parametrize("state", ["checkpointed", "locked", "running"])
def test_a_new_server_goes_on_with_a_resume_from_where_the_old_one_was(
    world: Make, kernel: int, state: str
) -> None:
    box = resident(world(), kernel)
    box.suspend()
    box.clock.advance(60)
    box.broker.begin_cell(box.now().id)
    box.states.write_text(json.dumps({str(kernel): state}))
    box.worker = box.server()
    box.work()
    assert box.home.phase is StatePhase.RESIDENT
    assert box.state(kernel) == "running"


def test_a_new_server_finds_a_state_that_the_driver_has_given_up(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.suspend()
    box.clock.advance(60)
    box.broker.begin_cell(box.now().id)
    box.states.write_text(json.dumps({str(kernel): "failed"}))
    box.worker = box.server()
    box.work()
    assert box.home.phase is StatePhase.LOST
    assert box.now().residence is not None


def test_what_was_restored_is_suspended_again_before_it_is_killed(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.worker.suspend_before_kill("k", kernel)
    assert box.state(kernel) == "running", (
        "it was never moved, and may be killed as it is"
    )
    box.suspend()
    box.resume()
    box.worker.suspend_before_kill("k", kernel)
    assert box.state(kernel) == "checkpointed"
    assert box.gpu._listed() == {kernel: 0}


def test_what_an_earlier_server_restored_is_not_killed_as_it_is_either(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.suspend()
    box.resume()
    box.worker = box.server()
    box.worker.suspend_before_kill("k", kernel)
    assert box.state(kernel) == "checkpointed"


def test_what_came_back_as_its_neighbour_could_not_leave_is_not_killed_as_it_is(
    world: Make, start: Start, driver: str
) -> None:
    """Of two processes one was moved out, and back as the driver refused the other."""
    library = f"{driver}/libcuda.so.1"
    parent = start(
        WITH_CHILD.format(library=library, code=WITH_CUDA.format(library=library))
    )
    (child,) = tree({"k": parent})["k"] - {parent}
    box = world(checkpoint=["", "unlucky"])
    box.kernel(parent, parent, child)
    assert box.suspend().phase is StatePhase.RESIDENT
    assert {box.state(parent), box.state(child)} == {"running"}
    box.worker.suspend_before_kill("k", parent)
    assert {box.state(parent), box.state(child)} == {"checkpointed"}


def test_a_child_that_is_ended_alone_is_made_safe_alone(
    world: Make, start: Start, driver: str
) -> None:
    library = f"{driver}/libcuda.so.1"
    parent = start(
        WITH_CHILD.format(library=library, code=WITH_CUDA.format(library=library))
    )
    (child,) = tree({"k": parent})["k"] - {parent}
    box = world()
    box.kernel(parent, parent, child)
    box.suspend()
    box.resume()
    box.worker.suspend_before_kill("k", child)
    assert (box.state(parent), box.state(child)) == ("running", "checkpointed")


def test_what_was_restored_for_a_lease_that_has_ended_since_is_not_killed_as_it_is(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.suspend()
    box.resume()
    lease = box.now()
    box.broker.release(lease.id, lease.token)
    box.worker.suspend_before_kill("k", kernel)
    assert box.state(kernel) == "checkpointed"


def test_a_kernel_that_cannot_be_made_safe_is_ended_all_the_same_and_that_is_said(
    world: Make, kernel: int, caplog: pytest.LogCaptureFixture
) -> None:
    box = resident(world(lock=["", "timeout"]), kernel)
    box.suspend()
    box.resume()
    box.worker.suspend_before_kill("k", kernel)
    assert "could not be suspended before it is ended" in caplog.text


def test_an_end_waits_for_the_move_that_is_under_way(world: Make, kernel: int) -> None:
    box = resident(world(restore=["slow"]), kernel)
    box.suspend()
    box.clock.advance(60)
    box.broker.begin_cell(box.now().id)
    lease = box.now()
    assert box.worker.claim(lease)
    assert not box.worker.claim(lease), "one thread at a time"
    moving = threading.Thread(target=box.worker.work, args=(lease,))
    moving.start()
    box.worker.suspend_before_kill("k", kernel)
    assert box.state(kernel) == "checkpointed"
    moving.join()


def test_two_servers_that_look_after_one_kernel_do_not_move_it_at_once(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.clock.advance(3600)
    box.broker.request_action(box.now().id, RequestedAction.SUSPEND)
    lease, other = box.now(), box.server()
    assert box.worker.claim(lease)
    assert not other.claim(lease)
    box.worker.work(lease)
    assert box.home.phase is StatePhase.PARKED
    assert other.claim(lease), "it is free again"
    other.work(lease)
    assert (box.home.phase, box.state(kernel)) == (StatePhase.PARKED, "checkpointed"), (
        "and finds nothing left to do"
    )


def test_a_driver_that_does_not_say_how_a_restored_kernel_is_is_no_all_clear(
    world: Make, kernel: int, caplog: pytest.LogCaptureFixture
) -> None:
    box = resident(world(), kernel)
    box.suspend()
    box.resume()
    box.states.write_text("{}")
    box.worker.suspend_before_kill("k", kernel)
    assert "the driver does not say how it is" in caplog.text


def test_what_was_claimed_and_not_begun_holds_up_nobody(
    world: Make, kernel: int
) -> None:
    box = resident(world(), kernel)
    box.clock.advance(3600)
    box.broker.request_action(box.now().id, RequestedAction.SUSPEND)
    lease = box.now()
    assert box.worker.claim(lease)
    box.worker.give_up(lease)
    box.worker.suspend_before_kill("k", kernel)
    assert box.worker.claim(lease), "another may do it"


def test_a_process_that_ends_amid_a_move_ends_nothing_else(
    world: Make, start: Start
) -> None:
    dead = start("pass")
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    box = world()
    holder = Holder(
        kind=HolderKind.KERNEL, id="k", user=current_user(), host="box", pid=os.getpid()
    )
    lease = box.broker.lease(box.broker.submit("1", holder).lease_id)
    lease = box.broker.update_device_state(
        lease.id, lease.token, lambda item: with_pin_reason(item, "")
    )
    box.broker.bind(lease.id, lease.token, pid=os.getpid(), root_pid=dead)
    gone = box.suspend()
    assert (gone.phase, gone.state_bytes) == (StatePhase.PARKED, 0)


def test_what_is_not_the_drivers_to_move_is_moved_by_the_kernel_itself(
    world: Make, kernel: int
) -> None:
    box = world()
    box.capability = SuspendCapability(
        tier=SuspendMethod.OFFLOAD, why="driver 1 is old", context_bytes=GIB
    )
    box.report = {"registered_bytes": 3 * GIB, "size_bytes": 3 * GIB}
    box.kernel(kernel, kernel)
    assert box.home.pinned == ""
    box.gpu.held[kernel] = 0
    gone = box.suspend()
    assert (gone.phase, gone.tier) == (StatePhase.PARKED, SuspendMethod.OFFLOAD)
    assert box.state(kernel) == "running"
    box.report = {"error": "cannot resume weight: the device has no room"}
    assert box.resume().phase is StatePhase.RESTORING, "it is tried again"
    assert box.broker.events()[-1].kind.value != "LeaseStateLost"
    box.report = {"size_bytes": 3 * GIB}
    box.work()
    assert box.home.phase is StatePhase.RESIDENT


def test_what_stays_because_it_is_not_registered_is_said(
    world: Make, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jupyter_aistack.server.suspend.memory_probe.SETTLE_SECONDS", 0.0
    )
    box = world()
    box.capability = SuspendCapability(
        tier=SuspendMethod.OFFLOAD, why="driver 1 is old", context_bytes=GIB
    )
    box.report = {"registered_bytes": GIB, "size_bytes": GIB}
    box.kernel(kernel, kernel)
    stays = box.suspend()
    assert (stays.phase, stays.pinned) == (
        StatePhase.RESIDENT,
        "4.0 GiB stayed on its device: it is not registered",
    )


@pytest.mark.parametrize(
    ("context", "pools", "phase"),
    [
        (GIB, None, StatePhase.PARKED),
        (GIB // 2, None, StatePhase.RESIDENT),
        (GIB // 2, HELD - GIB, StatePhase.PARKED),
        (2 * GIB, HELD - GIB // 2, StatePhase.RESIDENT),
        (None, None, StatePhase.RESIDENT),
    ],
)
def test_what_may_stay_is_measured_and_never_guessed(
    world: Make,
    kernel: int,
    monkeypatch: pytest.MonkeyPatch,
    context: int | None,
    pools: int | None,
    phase: StatePhase,
) -> None:
    monkeypatch.setattr(
        "jupyter_aistack.server.suspend.memory_probe.SETTLE_SECONDS", 0.0
    )
    box = world()
    box.capability = SuspendCapability(
        tier=SuspendMethod.OFFLOAD, why="driver 1 is old", context_bytes=context
    )
    box.report = {
        "registered_bytes": 3 * GIB,
        "size_bytes": 3 * GIB,
        "pool_bytes": pools,
    }
    box.kernel(kernel, kernel)
    box.on_copy_out = lambda: box.gpu.held.update({kernel: GIB})
    stays = box.suspend()
    assert stays.phase is phase
    if context is None:
        assert "what a context takes here is not known" in stays.pinned


def test_a_standing_is_shown_with_its_reason(world: Make, kernel: int) -> None:
    from jupyter_aistack.core.wire.records import DEVICE_STATE

    box = resident(world(), kernel)
    assert DEVICE_STATE.to_dict(box.home)["standing"] == DisplayState.WARM.value
    shown = DEVICE_STATE.to_dict(box.suspend())
    assert (shown["standing"], shown["why"][:11]) == ("suspended", "4.0 GiB in ")
    assert (
        DEVICE_STATE.to_dict(replace(box.home, phase=StatePhase.LOST, note="gone"))[
            "why"
        ]
        == "gone"
    )
