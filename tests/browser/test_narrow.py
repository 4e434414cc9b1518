"""Whether all that the panel may have to say finds room in a narrow one; it is told
here what to say.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from .labpage import LabPage
from .told import Told, fits, samples

pytestmark = pytest.mark.browser

WIDTH = 280
HOUR = 3600.0


@pytest.mark.parametrize("theme", ["light", "dark"], indirect=True)
def test_everything_at_once_fits_into_a_narrow_panel(
    told: Told, lab: LabPage, theme: str
) -> None:
    lab.open_panel()
    lab.open_notebook(f"{theme}.ipynb")
    kernel_id = lab.kernel_id()
    told.say(full(kernel_id, "idle"))
    lab.resize_panel(WIDTH)
    assert lab.panel.evaluate("panel => panel.offsetWidth") == pytest.approx(
        WIDTH, abs=2
    )

    expect(lab.mine).to_contain_text("This slice is idle. It is reclaimed in 4 min")
    expect(lab.fact("State")).to_have_text("idle 56 min")
    toast = lab.toasts.filter(has_text="its slice is idle; it is reclaimed in 5 min.")
    expect(toast.get_by_role("button", name="Extend")).to_be_visible()
    expect(toast.locator(".jp-toast-message")).to_contain_text(
        "keeps running, on the CPU."
    )
    fits(lab, f"narrow-idle-{theme}")

    told.say(full(kernel_id, "preempt"))
    expect(lab.mine).to_contain_text(
        "A higher-priority request needs the capacity. This slice is preempted in 4 min"
    )
    expect(lab.mine.get_by_role("button", name="Extend")).to_be_disabled()
    expect(toast).to_have_count(0)
    toast = lab.toasts.filter(has_text="a higher-priority request preempts its slice")
    expect(toast.locator(".jp-toast-message")).to_contain_text(
        "keeps running, on the CPU."
    )
    expect(toast.get_by_role("button", name="Save notebook")).to_be_visible()
    expect(toast.get_by_role("button", name="Extend")).to_have_count(0)
    fits(lab, f"narrow-preempt-{theme}")

    told.say(waiting(kernel_id))
    expect(toast).to_have_count(0)
    expect(lab.mine).to_contain_text("expected in about 12 min")
    fits(lab, f"narrow-waiting-{theme}")


def full(kernel_id: str, kind: str) -> dict[str, Any]:
    """All that may be said of a slice that is asked back, as of now."""
    snapshot = samples()
    now = snapshot["usage"]["at"]
    mine = snapshot["leases"][0]
    mine["holder"].update(
        id=kernel_id, label="work/a-notebook-with-rather-a-long-name.ipynb"
    )
    request_id = "" if kind == "idle" else "r-urgent"
    mine["notice"] = {
        "kind": kind,
        "at": now,
        "ends_at": now + 250,
        "request_id": request_id,
    }
    mine.update(active_at=now - 56 * 60, preemptible=True)
    (slice_,) = mine["slices"]
    limit = {
        "device_id": slice_["device_id"],
        "fraction": "3/4",
        "memory_bytes": 3 * slice_["memory_bytes"],
        "cores": [],
    }
    mine.update(up_to="1", limits=[limit])
    why = "an NCCL communicator of its torch.distributed process group exists"
    mine["residence"].update(phase="resident", standing="pinned", pinned=why, why=why)
    snapshot["leases"][1]["holder"]["label"] = (
        "work/deep/another-notebook-with-a-long-name.ipynb"
    )
    return snapshot


def waiting(kernel_id: str) -> dict[str, Any]:
    """The kernel waits behind somebody, and a class has begun."""
    snapshot = samples()
    now = snapshot["usage"]["at"]
    (first,) = snapshot["queue"]
    reason = "needs a whole GPU; the next one frees in about 12 min when alexandra.longname's lease ends"
    second = {
        **first,
        "id": "r-mine",
        "position": 2,
        "reason": reason,
        "holder": {**first["holder"], "id": kernel_id},
    }
    snapshot["queue"] = [{**first, "eta_at": now + 20}, second]
    (weekly,) = snapshot["host"]["reservations"]
    running = {
        "id": "v-2",
        "is_running": True,
        "next_starts_at": now - HOUR,
        "next_ends_at": now + HOUR,
    }
    snapshot["host"]["reservations"].append(
        {**weekly, **running, "name": "Distributed training, second group"}
    )
    return snapshot
