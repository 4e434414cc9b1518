from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import numpy
import pytest

from jupyter_aistack.client import client
from jupyter_aistack.exceptions import InvalidRequest, LedgerUnavailable
from tests.fakes.shells import new_shell
from tests.fakes.threads import NewThreads
from tests.fakes.waiting import wait_until
from tests.paths import DATA

pytest.importorskip("anywidget")
from jupyter_aistack.notebook.widgets import ResourceMonitor
from jupyter_aistack.notebook.widgets.resource_monitor import monitor_rows

SAMPLES = json.loads((DATA / "wire_samples.json").read_text())


def rows() -> list[dict[str, Any]]:
    return monitor_rows(
        SAMPLES["host"], SAMPLES["leases"][:2], SAMPLES["leases"][:1], SAMPLES["usage"]
    )


def test_own_slices_come_first_then_every_device_with_its_holders():
    own, *devices = rows()
    assert (own["is_mine"], own["who"], own["name"]) == (
        True,
        "this kernel",
        "1/4 of GPU 0",
    )
    assert own["memory"].endswith("of 20.0 GiB")
    assert len(devices) == len(SAMPLES["host"]["devices"])
    assert devices[0]["who"] == "work/tour.ipynb (1/4, suspended), worker-0 (1/2)"
    assert devices[1]["who"] == "the driver reports a pending reset"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "suspended, 9.0 GiB in host memory"),
        ({"state_bytes": None}, "suspended"),
        ({"standing": "held"}, "held"),
        ({"standing": "warm", "why": "a lock timed out"}, "warm"),
        ({"standing": "pinned", "why": "NCCL runs"}, "pinned: NCCL runs"),
        ({"standing": "lost", "why": "the helper ended"}, "lost: restart the kernel"),
    ],
)
def test_own_slice_says_how_its_memory_stands(changes: dict[str, Any], words: str):
    lease = SAMPLES["leases"][0]
    lease = {**lease, "residence": {**lease["residence"], **changes}}
    own, *devices = monitor_rows(SAMPLES["host"], [lease], [lease], SAMPLES["usage"])
    assert own["standing"] == words
    assert {device["standing"] for device in devices} == {""}


def test_slice_that_never_leaves_its_device_says_nothing_of_it():
    lease = {**SAMPLES["leases"][0], "residence": None}
    (own, device, *_) = monitor_rows(
        SAMPLES["host"], [lease], [lease], SAMPLES["usage"]
    )
    assert own["standing"] == ""
    assert device["who"] == "work/tour.ipynb (1/4)"


def test_picture_and_line_say_how_it_stands(simulated: client.Client):
    monitor = ResourceMonitor(client=simulated)
    monitor.close()
    monitor.rows = rows()
    assert "this kernel; suspended, 9.0 GiB in host memory" in monitor.picture()
    assert "suspended, 9.0 GiB" in monitor.summary()


def test_what_cannot_be_measured_is_not_zero():
    unknown = {"devices": {}, "leases": {}}
    for row in monitor_rows(SAMPLES["host"], [], [], unknown):
        assert (row["share"], row["busy"]) == (None, "n/a")
        assert row["memory"].startswith("n/a of")


def test_it_shows_a_lease_of_this_process_and_says_simulated(simulated: client.Client):
    with simulated.request("1/4", attach=False):
        monitor = ResourceMonitor(client=simulated)
        assert monitor.is_running
        assert monitor.rows[0]["is_mine"]
        assert "simulated" in monitor.note
        assert "20.0 GiB" in monitor.picture()
        monitor.close()


def test_close_stops_the_thread_and_keeps_the_last_state(simulated: client.Client):
    started = NewThreads()
    monitor = ResourceMonitor(client=simulated)
    monitor.close()
    monitor.close()
    wait_until(lambda: not started.named("aistack-monitor"))
    assert not monitor.is_running
    assert "80.0 GiB" in monitor.picture()


def test_a_broker_that_stops_answering_is_said_and_the_last_state_stays(
    simulated: client.Client, monkeypatch: pytest.MonkeyPatch
):
    monitor = ResourceMonitor(client=simulated)

    def fail() -> None:
        raise LedgerUnavailable("no Jupyter server answers")

    monkeypatch.setattr(simulated, "host", fail)
    monitor.sample()
    assert monitor.note == "not live: no Jupyter server answers"
    assert monitor.rows
    monitor.close()


def test_names_in_the_picture_are_escaped(simulated: client.Client):
    monitor = ResourceMonitor(client=simulated)
    monitor.rows = [{**rows()[0], "who": "<script>alert(1)</script>"}]
    assert "<script>" not in monitor.picture()
    monitor.close()


def test_an_interval_may_be_any_number() -> None:
    assert ResourceMonitor(numpy.int64(2)).interval == 2.0


@pytest.mark.parametrize("interval", [0, 0.1, -1, float("nan"), "2", None, True])
def test_it_samples_at_most_twice_a_second(interval: Any):
    with pytest.raises(InvalidRequest, match="interval: expected at least"):
        ResourceMonitor(interval)


def test_displaying_makes_a_live_view_and_a_picture_that_follows(
    simulated: client.Client, monkeypatch: pytest.MonkeyPatch
):
    from IPython.core.interactiveshell import InteractiveShell

    shell = new_shell()
    monkeypatch.setattr(
        "IPython.core.interactiveshell.InteractiveShell._instance", shell
    )
    published: list[tuple[dict[str, Any], bool]] = []
    monkeypatch.setattr(
        shell.display_pub,
        "publish",
        lambda data, update=False, **_: published.append((data, bool(update))),
    )
    monkeypatch.setattr(InteractiveShell, "initialized", classmethod(lambda cls: True))
    monkeypatch.setattr(InteractiveShell, "instance", classmethod(lambda cls: shell))
    monitor = ResourceMonitor(client=simulated)
    monitor._ipython_display_()
    monitor.close()
    (live, _), (picture, _), (last, is_update) = published
    assert "application/vnd.jupyter.widget-view+json" in live
    assert f'data-aistack-picture="{monitor.picture_id}"' in picture["text/html"]
    assert "80.0 GiB" in last["text/html"]
    assert is_update


@pytest.mark.parametrize("name", ["training_curve.js", "resource_monitor.js"])
def test_each_module_is_short_and_draws_text_without_html(name: str):
    import jupyter_aistack.notebook.widgets.base as live

    text = live.module(name)
    assert len((live._STATIC / name).read_text().splitlines()) < 150
    assert len(re.findall("export default", text)) == 1
    assert "innerHTML" not in text


def test_without_anywidget_one_sentence_says_what_to_install():
    code = """
import sys
sys.modules["anywidget"] = None
import jupyter_aistack
try:
    jupyter_aistack.ResourceMonitor
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (
        done.stdout.strip()
        == 'Widgets need anywidget; run: pip install "jupyter_aistack[lab]"'
    )
