"""What becomes of slices that nobody uses, or that others need, and of hours that are
kept for a class.
"""

from __future__ import annotations

import getpass
import re
import time
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from playwright.sync_api import expect

from .labpage import LabPage
from .labserver import LabServer, lab_server, until

pytestmark = pytest.mark.browser

# Simulated devices are always busy; a share of the real CPU is idle when nobody uses
# it.
DEVICES = "cpu,simulated:2xH100-80GB"
# Idle soon, told soon after, and never taken back while a test looks.
IDLE = {"badge": "2s", "notice": "8s", "reclaim": "10min"}
SETTINGS = {
    "admins": [getpass.getuser()],
    "cycle_seconds": 1.0,
    "min_runtime": 0,
    "notice_seconds": 15,
    "queues": {
        "default": {"idle": IDLE},
        "spare": {"idle": False},
        "urgent": {"idle": False, "priority": 10, "quota": 1},
    },
}
HOUR = 3600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A JupyterLab of these tests' own, whose queues lose patience soon."""
    with lab_server(
        tmp_path_factory.mktemp("impatient"), devices=DEVICES, settings=SETTINGS
    ) as running:
        yield running


def test_slice_that_nobody_uses_is_marked_then_told_then_kept_by_extend(
    lab: LabPage,
) -> None:
    lab.open_panel()
    lab.open_notebook("idle.ipynb")
    lab.run("%gpu request cpu:1")
    expect(lab.fact("State")).to_contain_text(re.compile(r"idle \d+ s"))
    expect(lab.panel.locator(".jp-AIStack-slice .jp-mod-idle")).to_contain_text("idle")
    lab.picture("notice-badge")

    banner = lab.mine.locator(".jp-AIStack-notice")
    expect(banner).to_contain_text("This slice is idle. It is reclaimed in 9 min")
    toast = lab.toasts.filter(has_text="idle.ipynb: its slice is idle")
    expect(toast).to_contain_text("The kernel keeps running, on the CPU.")
    assert notice(lab)["kind"] == "idle"
    lab.picture("notice-idle")

    used = lab.server.leases()[0]["active_at"]
    toast.get_by_role("button", name="Extend").click()
    expect(banner).to_have_count(0)
    expect(toast).to_have_count(0)
    (lease,) = lab.server.leases()
    assert lease["active_at"] > used
    lab.picture("notice-extended")


def test_cell_that_runs_keeps_the_slice_as_extend_does(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("used.ipynb")
    lab.run("%gpu request cpu:1")
    banner = lab.mine.locator(".jp-AIStack-notice")
    expect(banner).to_be_visible()
    lab.run("2 + 2")
    expect(banner).to_have_count(0)


def test_slice_that_others_need_is_told_saved_and_taken_back(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("modest.ipynb")
    lab.mine.get_by_role("button", name="Request…").click()
    lab.dialog.get_by_role("textbox").fill("2")
    lab.dialog.get_by_role("combobox", name="Queue").select_option("spare")
    expect(lab.dialog).to_contain_text("Holds 0 devices")
    lab.dialog.get_by_role("checkbox", name="May be preempted").check()
    lab.picture("notice-dialog")
    lab.dialog.get_by_role("button", name="Request").click()
    expect(lab.fact("Preemptible")).to_be_visible()
    (lease,) = lab.server.leases()
    assert (lease["queue"], lease["preemptible"]) == ("spare", True)
    lab.attach(lease["id"])
    lab.run("kept = 'in the kernel'")

    lab.open_notebook("urgent.ipynb")
    lab.run("%gpu request 1 --queue urgent --no-wait")
    toast = lab.toasts.filter(
        has_text="modest.ipynb: a higher-priority request preempts its slice"
    )
    expect(toast).to_contain_text(
        "cannot be extended. The kernel keeps running, on the CPU."
    )
    expect(toast.get_by_role("button", name="Extend")).to_have_count(0)
    lab.picture("notice-preempt-toast")
    toast.get_by_role("button", name="Save notebook").click()
    until(
        lambda: "kept =" in saved(lab, "modest.ipynb"), 60, "the notebook is not saved"
    )
    lab.show_notebook("modest.ipynb")
    expect(lab.mine.locator(".jp-AIStack-notice")).to_contain_text(
        "This slice is preempted in"
    )
    expect(lab.mine.get_by_role("button", name="Extend")).to_be_disabled()
    lab.picture("notice-preempt")

    expect(
        lab.toasts.filter(has_text="modest.ipynb: its slice was preempted.")
    ).to_be_visible()
    expect(lab.mine).to_contain_text("This notebook has no slice of a device.")
    assert "in the kernel" in lab.run("print(kept)")
    lab.picture("notice-taken")
    until(
        lambda: [each["queue"] for each in lab.server.leases()] == ["urgent"],
        60,
        "the higher-priority request gets nothing",
    )


def test_reservations_are_listed_while_they_last(lab: LabPage) -> None:
    lab.open_panel()
    reservations = lab.panel.get_by_role("region", name="Reservations")
    expect(reservations).to_have_count(0)
    now = time.time()
    coming = reserve(
        lab,
        "deep learning class",
        starts_at=now + 30 * HOUR,
        ends_at=now + 32 * HOUR,
        weekly=True,
    )
    running = reserve(lab, "second group", starts_at=now - HOUR, ends_at=now + HOUR)
    names = reservations.locator(".jp-AIStack-reservationName")
    expect(names).to_have_text(["second group", "deep learning class"])
    expect(reservations).to_contain_text("4 × 1/8 in queue spare")
    expect(reservations.get_by_text("running")).to_have_count(1)
    expect(reservations).to_contain_text(
        re.compile(r"\d\d:\d\d.\d\d:\d\d, every week|\d\d:\d\d – .+, every week")
    )
    lab.picture("reservations")
    for made in (coming, running):
        lab.server.call("DELETE", f"aistack/api/v1/reservations/{made['id']}")
    expect(reservations).to_have_count(0)


def notice(lab: LabPage) -> dict[str, Any]:
    """What the only lease was told."""
    (lease,) = lab.server.leases()
    return dict(lease["notice"])


def saved(lab: LabPage, name: str) -> str:
    """The code in the file; none while the server is writing that."""
    try:
        cells = nbformat.read(lab.server.root / name, as_version=4).cells
    except nbformat.reader.NotJSONError:
        return ""
    return "\n".join(cell.source for cell in cells)


def reserve(lab: LabPage, name: str, **window: Any) -> dict[str, Any]:
    """Keep half a device, as an admin does."""
    body = {"name": name, "spec": "1/8", "count": 4, "queue": "spare", **window}
    made: dict[str, Any] = lab.server.call("POST", "aistack/api/v1/reservations", body)
    return made
