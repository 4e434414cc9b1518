from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .labpage import LabPage

pytestmark = pytest.mark.browser


def test_a_slice_is_listed_among_what_runs_and_released_there(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("running.ipynb")
    lab.run("%gpu request 1/4")
    expect(lab.status_item).to_contain_text("GPU 1/4")
    lab.page.evaluate("window.jupyterapp.commands.execute('running:show-panel')")
    row = lab.page.locator(
        "#jp-running-sessions .jp-RunningSessions-item", has_text="1/4"
    )
    expect(row).to_have_count(1)
    lab.picture("running")
    row.hover()
    row.locator(".jp-RunningSessions-itemShutdown").click()
    expect(row).to_have_count(0)
    expect(lab.status_item).to_have_text("no slice")
