"""Devices of a provider that another package brings, in the panel."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from jupyter_aistack.core.model.units import GIB
from tests.paths import FAKES

from .labpage import LabPage
from .labserver import LabServer, lab_server

pytestmark = pytest.mark.browser

OUTSIDE = FAKES / "outside_provider"


@pytest.fixture(scope="module")
def abaci(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one device, of which 3 of 16 GiB are in use."""
    folder = tmp_path_factory.mktemp("abaci")
    beads = {"memory_bytes": 16 * GIB, "used_bytes": 3 * GIB, "busy": 0.25}
    (folder / "a0.json").write_text(json.dumps(beads))
    return folder


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, abaci: Path
) -> Iterator[LabServer]:
    """A JupyterLab whose host has that device; the package is on its path."""
    paths = [str(OUTSIDE), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        environment.setenv("ABACUS_DEVICES", str(abaci))
        folder = tmp_path_factory.mktemp("outside")
        with lab_server(folder, devices="abacus,cpu") as running:
            yield running


def test_its_device_is_shown_granted_and_measured(lab: LabPage) -> None:
    lab.open_panel()
    expect(lab.device(0)).to_contain_text("Abacus 9000")
    expect(lab.device(0)).to_contain_text("3 / 16 GiB")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name("GPU 0: free")

    lab.open_notebook("counts.ipynb")
    lab.run("%gpu request 1")
    shown = "import os; print(os.environ['ABACUS_VISIBLE_DEVICES'])"
    assert "ABACUS-a0" in lab.run(shown)
    expect(lab.mine).to_contain_text("Abacus 9000")
    expect(lab.mine).to_contain_text("3 / 16 GiB")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name(
        "GPU 0: counts.ipynb 1"
    )
    lab.picture("outside-provider")
