"""A GPU that is sick, in the panel: taken out of placement, its holder told, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.fakes.child import write_state
from tests.fakes.nvml.plugin import fake_nvml_environment
from tests.fakes.nvml.states import h200

from .labpage import LabPage
from .labserver import LabServer, lab_server

pytestmark = pytest.mark.browser

WELL = h200(recovery=0) + h200(1, clocks=0x40)
XID = "xid gpu=0 code=95\n"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a driver of two GPUs, of which one is slowed down by heat."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.state").write_text(WELL)
    return folder


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, driver: Path
) -> Iterator[LabServer]:
    """A JupyterLab whose host has those GPUs."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in fake_nvml_environment(driver, WELL).items():
            environment.setenv(name, value)
        with lab_server(tmp_path_factory.mktemp("sick"), devices="gpu,cpu") as running:
            yield running


def test_a_sick_gpu_is_shown_told_to_its_holder_and_comes_back(
    lab: LabPage, driver: Path
) -> None:
    lab.open_panel()
    expect(lab.device(1)).to_contain_text("Slowed down by heat")
    expect(lab.device(1)).to_contain_text("see to its cooling")
    lab.open_notebook("train.ipynb")
    lab.run("%gpu request 1")
    expect(lab.mine).to_contain_text("H200")

    write_state(driver / "nvml.state", WELL.replace("recovery=0", "recovery=1") + XID)
    sick = lab.device(0)
    expect(sick).to_contain_text("Xid 95 (a memory error that could not be contained)")
    expect(sick.locator("[data-health-code=XidError]")).to_contain_text("error")
    expect(sick.locator("[data-health-code=RecoveryNeeded]")).to_be_visible()
    expect(lab.mine).to_contain_text("save what you can")
    assert "XidError" in lab.run("%gpu")
    lab.picture("sick-device")

    write_state(driver / "nvml.state", WELL + XID)
    expect(sick.locator(".jp-AIStack-health")).to_have_count(0)
    expect(lab.mine).not_to_contain_text("save what you can")
