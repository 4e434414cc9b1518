"""Widgets: alive while their kernel lives, a picture afterwards."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from .labpage import LabPage

pytestmark = pytest.mark.browser

CURVE = "import jupyter_aistack as aistack; curve = aistack.TrainingCurve(['loss']); display(curve)"
MONITOR = "import jupyter_aistack as aistack; monitor = aistack.ResourceMonitor(interval=0.5); display(monitor)"


def test_training_curve_follows_the_training_and_stays_as_a_picture(
    lab: LabPage,
) -> None:
    lab.open_notebook("curve.ipynb")
    lab.run(CURVE)
    expect(live_curve(lab, "no points yet")).to_be_visible()
    lab.run("for step in range(20): curve.add(step, loss=1 / (1 + step))")
    line = live_curve(lab, "0.05 at step 19").locator("polyline")
    expect(line).to_have_attribute("points", re.compile(r"^(\S+ ){19}\S+$"))
    expect(kept(lab)).to_be_hidden()
    lab.picture("widget-curve")

    lab.run("curve.close()")
    come_back_without_kernel(lab, "curve.ipynb")
    expect(kept(lab)).to_be_visible()
    expect(kept(lab).get_by_role("img", name="loss: 0.05 at step 19")).to_be_visible()
    lab.picture("widget-curve-kept")


def test_resource_monitor_sees_a_lease_come_and_stays_as_a_picture(
    lab: LabPage,
) -> None:
    lab.open_notebook("monitor.ipynb")
    lab.run(MONITOR)
    expect(live_meter(lab, "GPU 0")).to_have_accessible_name(re.compile("memory 0 "))
    lab.run("%gpu request 1/4")
    expect(live_meter(lab, "1/4 of GPU 0")).to_be_visible()
    expect(live_meter(lab, "GPU 0: NVIDIA")).to_have_accessible_name(
        re.compile("memory 17.5 GiB of 80.0 GiB")
    )
    expect(kept(lab)).to_be_hidden()
    lab.picture("widget-monitor")

    lab.run("monitor.close()")
    come_back_without_kernel(lab, "monitor.ipynb")
    expect(kept(lab)).to_be_visible()
    expect(kept(lab)).to_contain_text("17.5 GiB of 80.0 GiB")
    expect(kept(lab)).to_contain_text("simulated")
    lab.picture("widget-monitor-kept")


def test_resource_monitor_says_how_the_memory_of_a_slice_stands(lab: LabPage) -> None:
    lab.open_notebook("stands.ipynb")
    lab.run("%gpu request 1/4")
    lab.run(MONITOR.replace("interval=0.5", "interval=3600"))
    lab.run("first, *rest = monitor.rows")
    lab.run(
        "monitor.rows = [{**first, 'standing': 'suspended, 9.0 GiB in host memory'}, *rest]"
    )
    stands = lab.page.locator(".jp-Notebook").get_by_text(
        "suspended, 9.0 GiB in host memory", exact=True
    )
    expect(stands).to_be_visible()
    lab.picture("widget-monitor-stands")
    lab.run("monitor.close()")


def kept(lab: LabPage) -> Locator:
    """The picture in the notebook file."""
    return lab.page.locator("[data-aistack-picture]").last


def live_curve(lab: LabPage, text: str) -> Locator:
    """The live curve, when it says so."""
    return lab.page.locator(f".jp-Notebook svg[aria-label='loss: {text}']")


def live_meter(lab: LabPage, name: str) -> Locator:
    """A bar of the live monitor."""
    return lab.page.locator(".jp-Notebook").get_by_role("img", name=name)


def come_back_without_kernel(lab: LabPage, name: str) -> None:
    """Save, end the kernel, and open the notebook on a fresh page."""
    lab.command("docmanager:save")
    lab.command("notebook:shutdown-kernel")
    lab.page.goto("about:blank")
    lab.load()
    lab.show_file(name)
