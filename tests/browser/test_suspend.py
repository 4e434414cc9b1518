"""A notebook gives its GPU memory back and finds it again, through a real server; on
simulated devices.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from .labpage import LabPage
from .labserver import LabServer, lab_server

pytestmark = pytest.mark.browser

# Small, so that all of it has room in the memory of any host.
DEVICES = "simulated:2xL4-4GB"
SETTINGS = {
    "cycle_seconds": 0.5,
    "queues": {"default": {"suspend": True}},
    "suspend": {"warm": 0.1, "retry": 1.0},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A JupyterLab of these tests' own, whose kernels may be suspended."""
    with lab_server(
        tmp_path_factory.mktemp("suspending"), devices=DEVICES, settings=SETTINGS
    ) as running:
        yield running


def test_slice_is_suspended_and_brought_back_by_its_buttons(lab: LabPage) -> None:
    lab.open_panel()
    expect(lab.panel.locator("header")).to_contain_text(
        "Idle notebooks give back what they have registered: "
    )
    lab.open_notebook("gives.ipynb")
    lab.run("%gpu request 1/4")
    expect(standing(lab)).to_have_text("warm")
    lab.mine.get_by_role("button", name="Suspend").click()
    expect(standing(lab)).to_have_text("suspended")
    expect(lab.mine).to_contain_text("in host memory; comes back when a cell needs it.")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name("GPU 0: free")
    expect(lab.status_item).to_contain_text("suspended")
    explained = lab.toasts.filter(
        has_text="gives.ipynb is suspended: its GPU memory moved to the host"
    )
    expect(explained).to_be_in_viewport(ratio=1)
    lab.picture("suspend-suspended")

    lab.mine.get_by_role("button", name="Resume").click()
    expect(standing(lab)).to_have_text("warm")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name(
        "GPU 0: gives.ipynb 1/4, 3/4 free"
    )
    assert residence(lab)["phase"] == "resident"
    expect(explained.get_by_role("button", name="Resume")).to_have_count(0)
    lab.picture("suspend-resumed")

    lab.command("jupyter-aistack:suspend")
    expect(standing(lab)).to_have_text("suspended")
    assert lab.run("6 * 7").endswith("42")
    # It has registered nothing that could have moved, so no cell needs the device.
    assert residence(lab)["phase"] == "parked"


def test_pinned_slice_stays_until_it_is_unpinned(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("stays.ipynb")
    lab.run("%gpu request 1/4")
    lab.mine.get_by_role("button", name="Pin", exact=True).click()
    expect(standing(lab)).to_have_text("pinned")
    expect(lab.mine.get_by_role("button", name="Suspend")).to_be_disabled()
    lab.picture("suspend-pinned")
    lab.toasts.filter(
        has_text="stays.ipynb: its slice stays on its device"
    ).get_by_role("button", name="Undo").click()
    expect(standing(lab)).to_have_text("warm")
    assert residence(lab)["is_kept"] is False


def standing(lab: LabPage) -> Locator:
    """How the slice of the notebook in front stands."""
    return lab.mine.locator(".jp-AIStack-standing")


def residence(lab: LabPage) -> dict[str, object]:
    """Where the state of the only lease is."""
    (lease,) = lab.server.leases()
    return dict(lease["residence"])
