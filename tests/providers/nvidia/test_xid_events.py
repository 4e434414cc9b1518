"""Events of the driver, which one thread waits for, over a fake driver that ends whoever
waits when it is closed.
"""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.device_health import HealthCode
from tests.fakes.nvml.states import CLOCKED, h200

WAITED = (
    CLOCKED
    + """
import ctypes, os, threading
fake = ctypes.CDLL("libnvidia-ml.so.1")
def waiting():
    return [t for t in threading.enumerate() if t.name == "aistack-gpu-events"]
def look_twice():
    # Whoever looks but once waits for nothing.
    look()
    return look()
def reported(gpu=0):
    return look_until(lambda found: found[gpu].health.figures.xid)[gpu]
"""
)
XID = "xid gpu=0 code=31\n"


def test_one_thread_waits_for_all_gpus_while_they_are_looked_at(fake_nvml) -> None:
    child = fake_nvml.python(h200() + h200(1), WAITED)
    assert child("len(waiting())") == 0, "nothing is opened before the first question"
    child("look()")
    assert child("len(waiting())") == 0, "who looks but once is kept waiting by nothing"
    for _ in range(3):
        child("look_twice()")
        assert child("len(waiting())") == 1
    fake_nvml.change(h200() + h200(1) + "xid gpu=1 code=31\n")
    assert child("reported(1).health.figures.xid") == 31
    assert child("look()[0].health.figures.xid") == 0


def test_it_ends_before_the_driver_is_closed_and_begins_again_with_it(
    fake_nvml,
) -> None:
    child = fake_nvml.python(h200(), WAITED)
    for _ in range(3):
        child("look_twice()")
        child("provider.close()")
        assert child("len(waiting())") == 0
    child("look_twice()")
    fake_nvml.change(h200() + XID)
    assert child("reported().health.figures.xid") == 31


def test_a_driver_that_is_loaded_anew_ends_it(fake_nvml) -> None:
    child = fake_nvml.python("session 1\n" + h200(), WAITED)
    child("look_twice()")
    fake_nvml.change("session 2\n" + h200())
    child("wait_until(lambda: not waiting())")
    child("look_twice()")
    assert child("len(waiting())") == 1


@pytest.mark.parametrize("code", [3, 13])
def test_a_driver_that_cannot_wait_is_said_to_report_nothing(
    fake_nvml, code: int
) -> None:
    refuses = f"fail nvmlEventSetWait_v2 {code}\n"
    child = fake_nvml.python(h200() + refuses, WAITED)
    child("look_twice()")
    child("wait_until(lambda: not waiting())")
    (device,) = child("look_twice()")
    codes = [condition.code for condition in device.conditions]
    assert codes == [HealthCode.EVENTS_MISSING]
    assert child("len(waiting())") == 0, "it is not asked again and again"


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_what_cannot_be_registered_is_not_waited_for(fake_nvml, function: str) -> None:
    child = fake_nvml.python(h200() + f"fail {function} 3\n", WAITED)
    (device,) = child("look_twice()")
    codes = [condition.code for condition in device.conditions]
    assert codes == [HealthCode.EVENTS_MISSING]
    assert child("len(waiting())") == 0


def test_a_driver_in_trouble_is_waited_for_at_rest(fake_nvml) -> None:
    child = fake_nvml.python(h200() + "fail nvmlEventSetWait_v2 15\n", WAITED)
    child("look_twice()")
    child("wait_until(lambda: fake.fakeWaits() > 0)")
    before = child("fake.fakeWaits()")
    for _ in range(20):
        child("look_twice()")
    assert child("fake.fakeWaits()") - before < 10
    fake_nvml.change(h200() + XID)
    assert child("reported().health.figures.xid") == 31, "and is back"


def test_where_no_thread_is_to_be_had_events_are_taken_at_each_look(fake_nvml) -> None:
    child = fake_nvml.python(h200(), WAITED)
    child.run(
        "def refuse(self): raise RuntimeError('no thread')\n"
        "threading.Thread.start = refuse\n"
        "look()"
    )
    fake_nvml.change(h200() + XID)
    child("look_twice()")
    assert child("look()[0].health.figures.xid") == 31


def test_a_forked_process_waits_for_itself(fake_nvml) -> None:
    child = fake_nvml.python(h200(), WAITED)
    child("look_twice()")
    child.run(
        "reader, writer = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    before = len(waiting())\n"
        "    look()\n"
        "    answer = b'%d %d' % (before, len(waiting()))\n"
        "    provider.close()\n"
        "    os.write(writer, answer)\n"
        "    os._exit(0)\n"
        "os.close(writer)\n"
        "os.waitpid(pid, 0)\n"
    )
    assert child("os.read(reader, 9)") == b"0 1"
    assert child("len(waiting())") == 1
