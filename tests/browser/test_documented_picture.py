"""The picture of the panel in the documents, made anew: ``docs/panel.png`` is
``tests/artifacts/panel.png`` as this test leaves it.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .labpage import LabPage

pytestmark = pytest.mark.browser


def test_panel_shows_a_slice_in_use_and_a_request_that_waits(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("waiting.ipynb")
    lab.open_notebook("busy.ipynb")
    lab.run("%gpu request 1/2 --for 1h")
    lab.show_notebook("waiting.ipynb")
    lab.run("%gpu request 2 --no-wait")
    lab.show_notebook("busy.ipynb")

    queue = lab.panel.get_by_role("region", name="Queue")
    expect(lab.mine.locator(".jp-AIStack-size")).to_have_text("1/2")
    expect(lab.fact("State")).to_have_text("in use")
    expect(lab.fact("Time left")).to_have_text("59 min")
    expect(queue).to_contain_text("waiting.ipynb")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name(
        "GPU 0: busy.ipynb 1/2, 1/2 free"
    )
    expect(lab.status_item).to_contain_text("GPU 1/2")
    lab.picture("panel")
