"""Two notebooks that want the same devices."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

from .labpage import LabPage

pytestmark = pytest.mark.browser


def test_second_notebook_waits_and_is_granted_when_the_first_releases(
    lab: LabPage,
) -> None:
    lab.open_panel()
    lab.open_notebook("first.ipynb")
    lab.run("%gpu request 2")
    lab.open_notebook("second.ipynb")
    lab.run("%gpu request 1/2 --no-wait")

    queue = lab.panel.get_by_role("region", name="Queue")
    expect(lab.mine).to_contain_text("waiting, number 1")
    expect(queue.locator(".jp-AIStack-queueItem")).to_have_count(1)
    expect(queue).to_contain_text("second.ipynb")
    expect(queue.locator(".jp-AIStack-reason")).to_contain_text("needs 1/2 of a GPU")
    expect(lab.device(1).get_by_role("img")).to_have_accessible_name(
        "GPU 1: first.ipynb 1"
    )
    expect(lab.status_item).to_contain_text("waiting, number 1")
    lab.picture("queue-waiting")

    lab.show_notebook("first.ipynb")
    expect(lab.mine.locator(".jp-AIStack-size")).to_have_text("2")
    lab.mine.get_by_role("button", name="Release").click()
    question = lab.page.get_by_role("dialog")
    expect(question).to_contain_text(
        "1 request waits. It may be given your slice at once."
    )
    question.get_by_role("button", name="OK").click()

    expect(queue).to_contain_text("No requests are waiting.")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name(
        "GPU 0: second.ipynb 1/2, 1/2 free"
    )
    lab.show_notebook("second.ipynb")
    expect(lab.mine.locator(".jp-AIStack-size")).to_have_text("1/2")
    (lease,) = lab.server.leases()
    lab.attach(lease["id"])
    expect(lab.fact("State")).to_have_text("in use")
    lab.picture("queue-granted")


def test_who_waits_is_told_when_it_is_expected(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("long.ipynb")
    lab.run("%gpu request 2 --for 30min")
    lab.open_notebook("patient.ipynb")
    lab.run("%gpu request 1 --no-wait")

    queue = lab.panel.get_by_role("region", name="Queue")
    about = re.compile(r"expected in about (29|30) min")
    expect(lab.mine).to_contain_text("waiting, number 1")
    expect(lab.mine).to_contain_text(about)
    expect(queue).to_contain_text(about)
    expect(lab.status_item).to_contain_text(about)
    (request,) = lab.server.queue()
    assert request["eta_at"] == pytest.approx(time.time() + 1800, abs=120)
    assert request["reason"]
    expect(queue.locator(".jp-AIStack-reason")).to_contain_text(
        re.compile(r"frees in about (29|30) min")
    )
    lab.picture("queue-expected")


def test_waiting_can_be_given_up(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("holder.ipynb")
    lab.run("%gpu request 2")
    lab.open_notebook("impatient.ipynb")
    lab.run("%gpu request 1 --no-wait")
    lab.mine.get_by_role("button", name="Cancel").click()
    expect(lab.panel.get_by_role("region", name="Queue")).to_contain_text(
        "No requests are waiting."
    )
    expect(lab.mine).to_contain_text("This notebook has no slice of a device.")
    assert lab.server.queue() == []
    assert [lease["spec"] for lease in lab.server.leases()] == ["2"]
