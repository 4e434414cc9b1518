"""Slices whose memory may leave the device: how each standing looks, and what a person
can do about it.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from .labpage import LabPage
from .labserver import LabServer
from .looks import faint, sticking_out
from .told import Told, fits, samples

pytestmark = pytest.mark.browser

WIDTH = 280
LONG = "work/a-notebook-with-rather-a-long-name.ipynb"
GIB = 2**30
SETTINGS = "lab/api/settings/jupyter-aistack:commands"
WARM = {"phase": "resident", "standing": "warm", "state_bytes": None}
HELD = {**WARM, "is_busy": True, "standing": "held"}
WHY = "an NCCL communicator of its torch.distributed process group exists"
PINNED = {**WARM, "standing": "pinned", "pinned": WHY, "why": WHY}
LOST = {
    "phase": "lost",
    "standing": "lost",
    "why": "the checkpoint helper ended while its state moved",
}
LOOKS = {
    "warm": (WARM, "Idle; suspended when its memory is needed."),
    "held": (HELD, "A cell uses it."),
    "suspended": ({}, "9 GiB in host memory; comes back when a cell needs it."),
    "pinned": (PINNED, "Stays on its device: an NCCL communicator"),
    "lost": (LOST, "What it kept on its device is lost: the checkpoint helper ended"),
}


@pytest.fixture(autouse=True)
def explained(server: LabServer) -> None:
    """The user has been told before what it means."""
    server.call("PUT", SETTINGS, {"raw": '{"explainSuspend": false}'})


@pytest.mark.parametrize("theme", ["light", "dark"], indirect=True)
def test_each_standing_is_said_and_fits_into_a_narrow_panel(
    told: Told, lab: LabPage, theme: str
) -> None:
    kernel_id = opened(lab, f"stands-{theme}.ipynb")
    told.say(standing(kernel_id, WARM))
    lab.resize_panel(WIDTH)
    for word, (changes, text) in LOOKS.items():
        told.say(standing(kernel_id, changes))
        line = lab.mine.locator(".jp-AIStack-standingLine")
        expect(line.locator(".jp-AIStack-standing")).to_have_text(word)
        expect(line).to_contain_text(text)
        expect(lab.status_item).to_contain_text(word)
        expect(lab.toasts.filter(has_text="is lost")).to_have_count(int(word == "lost"))
        fits(lab, f"standing-{word}-{theme}")


@pytest.mark.parametrize("theme", ["light", "dark"], indirect=True)
def test_what_is_not_enforced_or_nearly_full_or_out_of_order_stands_out(
    told: Told, lab: LabPage, theme: str
) -> None:
    kernel_id = opened(lab, f"warns-{theme}.ipynb")
    snapshot = standing(kernel_id, {"wanted_at": samples()["usage"]["at"] - 12})
    told.say(snapshot)
    expect(lab.mine).to_contain_text(
        re.compile(r"has waited \d+ s for capacity to come back")
    )
    lab.picture(f"standing-waits-{theme}")

    seen = {
        "kind": "NotEnforced",
        "severity": "error",
        "message": "the process sees 80.0 GiB of memory instead of 20.0 GiB",
        "since": 1.0,
    }
    snapshot["leases"][0].update(verified=False, conditions=[seen], residence=None)
    snapshot["usage"]["leases"]["l-tour"]["memory_bytes"] = 19 * GIB
    told.say(snapshot)
    expect(lab.mine.locator(".jp-AIStack-problem")).to_contain_text(
        "Not enforced: the process sees"
    )
    expect(lab.mine).to_contain_text("19 / 20 GiB, nearly full")
    expect(lab.device(0)).to_contain_text("not enforced")
    expect(lab.toasts.filter(has_text="is not enforced")).to_have_count(1)
    lab.resize_panel(WIDTH)
    fits(lab, f"standing-warns-{theme}")


@pytest.mark.parametrize("theme", ["light", "dark"], indirect=True)
def test_keyboard_opens_why_nothing_stronger_holds_shares(
    told: Told, lab: LabPage, theme: str
) -> None:
    kernel_id = opened(lab, f"levels-{theme}.ipynb")
    snapshot = standing(kernel_id, {})
    snapshot["host"]["suspend"] = {"tier": "checkpoint", "why": ""}
    why_not = {
        "L4": "MIG mode is off; an administrator can switch it on with nvidia-smi -i 0 -mig 1",
        "L3": "no root helper answers on /run/aistack/dmem.sock",
        "L2": "the driver is 565.57.01; MPS namespaces need 610",
    }
    snapshot["host"]["devices"][0].update(level="L1", why_not=why_not)
    told.say(snapshot)
    lab.resize_panel(WIDTH)
    expect(lab.panel.locator("header")).to_contain_text(
        "Idle notebooks give their memory back: by driver checkpoint"
    )
    summary = lab.device(0).locator("summary")
    expect(summary).to_have_text("Shares are enforced by the driver: MPS (L1)")
    expect(lab.device(0)).to_contain_text("no root helper")
    expect(lab.device(0).get_by_text("no root helper")).to_be_hidden()
    summary.focus()
    lab.page.keyboard.press("Enter")
    expect(lab.device(0).get_by_text("no root helper")).to_be_visible()
    told.say(snapshot)
    lab.picture(f"standing-level-{theme}")
    expect(lab.device(0).get_by_text("no root helper")).to_be_visible()
    assert sticking_out(lab.panel) == []
    assert faint(lab.panel) == []


def test_suspend_by_button_is_undone_by_the_notification(
    told: Told, lab: LabPage
) -> None:
    told.say(standing(opened(lab, "suspends.ipynb"), WARM, "suspends.ipynb"))
    lab.mine.get_by_role("button", name="Suspend").click()
    toast = lab.toasts.filter(has_text="suspends.ipynb: its slice is being suspended")
    toast.get_by_role("button", name="Undo").click()
    expect(toast).to_have_count(0)
    assert told.asked == [
        "POST leases/l-tour/suspend {}",
        "POST leases/l-tour/resume {}",
    ]
    lab.mine.get_by_role("button", name="Pin", exact=True).click()
    expect(lab.toasts.filter(has_text="stays on its device")).to_be_in_viewport(ratio=1)
    assert told.asked[2] == "POST leases/l-tour/pin {}"
    lab.picture("standing-undo")


def test_first_suspend_is_explained_once_for_ever(
    told: Told, lab: LabPage, server: LabServer
) -> None:
    server.call("PUT", SETTINGS, {"raw": "{}"})
    lab.page.reload()
    lab.load()
    kernel_id = opened(lab, "first.ipynb")
    told.say(standing(kernel_id, WARM, "first.ipynb"))
    told.say(standing(kernel_id, {}, "first.ipynb"))
    toast = lab.toasts.filter(
        has_text="first.ipynb is suspended: its GPU memory moved to the host"
    )
    expect(toast).to_contain_text("it comes back when a cell needs it.")
    expect(toast).to_be_in_viewport(ratio=1)
    lab.picture("standing-explained")
    toast.get_by_role("button", name="Resume").click()
    expect(toast).to_have_count(0)
    assert told.asked == ["POST leases/l-tour/resume {}"]

    lab.load()
    kernel_id = opened(lab, "first.ipynb")
    told.say(standing(kernel_id, WARM, "first.ipynb"))
    told.say(standing(kernel_id, {}, "first.ipynb"))
    expect(
        lab.toasts.filter(has_text="first.ipynb is suspended: 9 GiB in host memory")
    ).to_be_visible()
    expect(lab.toasts.filter(has_text="Nothing is lost")).to_have_count(0)


def test_lost_state_is_left_behind_by_a_restart(told: Told, lab: LabPage) -> None:
    kernel_id = opened(lab, "lost.ipynb")
    lab.run("before = 1")
    told.say(standing(kernel_id, LOST, "lost.ipynb"))
    expect(
        lab.toasts.filter(has_text="lost.ipynb: what it kept on its device is lost.")
    ).to_be_in_viewport(ratio=1)
    lab.picture("standing-lost-toast")
    lab.mine.get_by_role("button", name="Restart Kernel…").click()
    lab.page.locator(".jp-Dialog").get_by_role(
        "button", name="Confirm Kernel Restart"
    ).click()
    expect(lab.page.locator(".jp-Dialog")).to_have_count(0)
    lab.page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )
    assert lab.run("print('before' in globals())").strip() == "False"


def test_what_runs_offers_to_bring_a_slice_back(told: Told, lab: LabPage) -> None:
    told.say(standing(opened(lab, "runs.ipynb"), {}))
    lab.page.evaluate("window.jupyterapp.commands.execute('running:show-panel')")
    row = lab.page.locator("#jp-running-sessions .jp-AIStack-running")
    expect(row).to_contain_text("1/4 · suspended")
    row.click(button="right")
    menu = lab.page.get_by_role("menu")
    expect(
        menu.get_by_role("menuitem", name="Pin the Slice to Its Device")
    ).to_be_visible()
    expect(menu.get_by_role("menuitem", name="Suspend the Slice")).to_have_count(0)
    lab.picture("standing-running")
    menu.get_by_role("menuitem", name="Resume the Slice").click()
    expect(
        lab.toasts.filter(has_text="its slice comes back as soon as there is capacity")
    ).to_be_visible()
    assert told.asked == ["POST leases/l-tour/resume {}"]


def opened(lab: LabPage, name: str) -> str:
    """The panel beside such a notebook; the id of its kernel."""
    lab.open_panel()
    lab.open_notebook(name)
    return lab.kernel_id()


def standing(
    kernel_id: str, changes: dict[str, Any], label: str = LONG
) -> dict[str, Any]:
    """The samples as of now, in which this kernel holds a slice that is suspended, or
    changed from there.
    """
    snapshot = samples()
    mine = snapshot["leases"][0]
    mine["holder"].update(id=kernel_id, label=label)
    mine["residence"].update(changes)
    return snapshot
