from __future__ import annotations

import asyncio
import builtins
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from jupyter_aistack.client import client
from jupyter_aistack.client.display import Panel
from jupyter_aistack.client.runtime import attach
from jupyter_aistack.client.transports import SocketTransport
from jupyter_aistack.exceptions import AIStackError, DeviceInUse, LeaseError
from jupyter_aistack.notebook.magics.extension import AIStackMagics
from jupyter_aistack.notebook.panels import views
from jupyter_aistack.notebook.session.lease_sync import LeaseSync
from tests.fakes.shells import gpu, new_shell
from tests.paths import DATA

HOLD = {"kind": "run", "id": "somebody-else"}


@pytest.fixture
def shell_without_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InteractiveShell:
    """A shell whose Jupyter server has gone."""
    path = str(tmp_path / "gone.sock")
    monkeypatch.setenv("AISTACK_SOCKET", path)
    shell = new_shell()
    connected = client.Client(SocketTransport(path))
    AIStackMagics(shell, lambda: connected).register()
    return shell


# -- status, request, release ----------------------------------------------------------


def test_without_a_lease_status_says_what_is_free(shell: InteractiveShell):
    shown = gpu(shell, "")
    assert "This kernel holds no slice" in shown
    assert "1 of 80.0 GiB" in shown
    assert "simulated" in shown


def test_request_gives_the_kernel_a_slice_and_release_takes_it_back(
    shell: InteractiveShell, broker: client.Client
):
    shown = gpu(shell, "request 1/4")
    assert "This kernel holds 1/4 (simulated" in shown
    assert "1/4 of NVIDIA H100" in shown
    assert "nothing: the device is simulated" in shown
    assert os.environ["AISTACK_LEASE"] in shown
    assert [lease["state"] for lease in broker.leases()] == ["active"]
    assert gpu(shell, "release") == "Released 1/4"
    assert broker.leases() == []
    assert "AISTACK_LEASE" not in os.environ


def test_a_ceiling_is_asked_for_and_shown(
    shell: InteractiveShell, broker: client.Client
):
    shown = gpu(shell, "request 1/4 --up-to 1/1")
    assert "1/4 of NVIDIA H100" in shown
    assert ", up to 1/1, now 1/1" in shown
    assert "of 80.0 GiB" in shown
    other = broker.request("1/2", attach=False, holder=HOLD)
    shown = gpu(shell, "")
    assert ", up to 1/1, now 1/2" in shown
    assert "of 40.0 GiB" in shown
    other.release()


def test_a_bad_ceiling_is_said_in_one_line(shell: InteractiveShell):
    with pytest.raises(AIStackError, match=r"up_to: 1/8 of a device is less than 1/4"):
        gpu(shell, "request 1/4 --up-to 1/8")


def test_release_without_a_lease_is_no_error(shell: InteractiveShell):
    assert "nothing to release" in gpu(shell, "release")


def test_asking_for_the_same_slice_again_shows_it(
    shell: InteractiveShell, broker: client.Client
):
    gpu(shell, "request 1/4")
    assert "This kernel holds 1/4" in gpu(shell, "request 0.25")
    assert len(broker.leases()) == 1


def test_asking_for_another_slice_says_what_to_do_and_changes_nothing(
    shell: InteractiveShell, broker: client.Client
):
    gpu(shell, "request 1/4")
    with pytest.raises(
        LeaseError, match=r"already holds 1/4 .* %gpu release it to ask for 1/2"
    ):
        gpu(shell, "request 1/2")
    assert [lease["spec"] for lease in broker.leases()] == ["1/4"]


def test_asking_for_another_ceiling_says_what_to_do_and_changes_nothing(
    shell: InteractiveShell, broker: client.Client
):
    gpu(shell, "request 1/4 --up-to 1/2")
    with pytest.raises(
        LeaseError,
        match=r"holds 1/4 up to 1/2 .* release it to ask for 1/4 up to 1/1",
    ):
        gpu(shell, "request 1/4 --up-to 1/1")
    with pytest.raises(AIStackError, match=r"up_to: 1/8 of a device is less than 1/4"):
        gpu(shell, "request 1/4 --up-to 1/8")
    assert [lease["up_to"] for lease in broker.leases()] == ["1/2"]


@pytest.mark.parametrize("again", ["request 1/4 --up-to 0.5", "request 1/4"])
def test_asking_again_within_the_ceiling_shows_what_is_held(
    shell: InteractiveShell, broker: client.Client, again: str
):
    gpu(shell, "request 1/4 --up-to 1/2")
    assert "This kernel holds 1/4" in gpu(shell, again)
    assert len(broker.leases()) == 1


def test_a_lease_with_an_end_shows_it_and_can_be_extended(
    shell: InteractiveShell, broker: client.Client
):
    assert "1 h" in gpu(shell, "request 1/4 --for 1h --preemptible")
    before = broker.leases()[0]["ends_at"]
    assert "1 h 30 min" in gpu(shell, "extend 30m").replace("29 min", "30 min")
    assert broker.leases()[0]["ends_at"] == pytest.approx(before + 1800)


def test_extend_of_a_lease_without_end_and_without_lease(shell: InteractiveShell):
    with pytest.raises(LeaseError, match="holds no slice to extend"):
        gpu(shell, "extend 30m")
    gpu(shell, "request 1/4")
    assert "until it is released" in gpu(shell, "extend 30m")


def test_usage_shows_memory_and_cost(shell: InteractiveShell):
    gpu(shell, "request 1/4")
    shown = gpu(shell, "usage")
    assert "of 20.0 GiB" in shown
    assert "GPU and 0.0000 CPU slice-hours" in shown


def test_workers_leases_are_listed_but_not_taken_for_the_kernels(
    shell: InteractiveShell, broker: client.Client
):
    with broker.request("1/4", attach=False, holder={"kind": "worker", "id": "w-0"}):
        assert "holds no slice" in gpu(shell, "")
        assert "worker w-0" in gpu(shell, "usage")
        assert "nothing to release" in gpu(shell, "release")


# -- waiting ---------------------------------------------------------------------------


def test_no_wait_queues_and_the_lease_is_attached_before_a_later_cell(
    shell: InteractiveShell,
    broker: client.Client,
    capsys: pytest.CaptureFixture[str],
    magics: Any,
):
    full = broker.request("1", attach=False, holder=HOLD)
    shown = gpu(shell, "request 1/4 --no-wait")
    assert "This kernel waits for 1/4" in shown
    assert "position 1" in shown
    assert "1/4" in gpu(shell, "queue")
    assert "this kernel" in gpu(shell, "queue")
    with pytest.raises(LeaseError, match="already waits for 1/4"):
        gpu(shell, "request 1/2")
    full.release()
    magics.lease_sync._is_waiting_told = False  # wait for the answer as in a first cell
    capsys.readouterr()
    result = shell.run_cell("import os; held = os.environ['AISTACK_LEASE']")
    assert result.success
    assert "This kernel now holds 1/4" in capsys.readouterr().out
    assert shell.user_ns["held"] == broker.leases()[0]["id"]
    shell.run_cell("1")
    assert "now holds" not in capsys.readouterr().out


def test_release_leaves_the_queue(
    shell: InteractiveShell, broker: client.Client, magics: Any
):
    with broker.request("1", attach=False, holder=HOLD):
        gpu(shell, "request 1/4 --no-wait")
        assert gpu(shell, "release") == "Left the queue for 1/4"
        assert broker.queue() == []
    assert magics.lease_sync.pending is None


def test_a_request_whose_lease_has_failed_before_it_came_is_waited_for_no_more(
    shell: InteractiveShell, broker: client.Client, magics: Any
):
    with broker.request("1", attach=False, holder=HOLD):
        gpu(shell, "request 1/4 --no-wait")
    pending = magics.lease_sync.pending
    granting: Any = broker._transport
    granting._broker.withdraw(pending.request["id"])
    magics.lease_sync.patience_seconds = 30
    shell.run_cell("1")
    assert magics.lease_sync.pending is None


def test_waiting_ends_with_the_timeout_and_leaves_nothing(
    shell: InteractiveShell, broker: client.Client
):
    with broker.request("1", attach=False, holder=HOLD):
        with pytest.raises(AIStackError, match="no slice came free in time"):
            gpu(shell, "request 1/4 --timeout 0.2")
        assert broker.queue() == []


def test_waiting_tells_position_and_reason_and_ctrl_c_takes_the_request_back(
    shell: InteractiveShell, broker: client.Client, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    shown: list[str] = []
    line = SimpleNamespace(update=lambda panel: shown.append(str(panel)))
    monkeypatch.setattr(
        "IPython.display.display",
        lambda panel, display_id: shown.append(str(panel)) or line,
    )
    with broker.request("1", attach=False, holder=HOLD):
        monkeypatch.setattr("time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            gpu(shell, "request 1/4")
        assert broker.queue() == []
    assert caught.value._render_traceback_() == ["KeyboardInterrupt: stopped"]
    assert "Waiting for 1/4 (position 1)" in shown[0]
    assert "no longer waited for" in shown[-1]


def test_a_driver_that_starts_slowly_is_told_of_while_it_is_waited_for(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
):
    shown: list[str] = []
    line = SimpleNamespace(update=lambda panel: shown.append(str(panel)))
    monkeypatch.setattr(
        "IPython.display.display",
        lambda panel, display_id: shown.append(str(panel)) or line,
    )

    def start_slowly(expects: object, is_client: object, on_slow: Any) -> Any:
        on_slow(2.5)
        on_slow(3.5)
        return None, None

    monkeypatch.setattr(attach, "verify", start_slowly)
    gpu(shell, "request 1/4")
    assert "1/4 was granted, and is being checked from inside" in shown[0]
    assert "2 s so far" in shown[0]
    assert "4 s so far" in shown[1]
    assert "1/4 was granted after" in shown[2]
    gpu(shell, "release")


def test_a_kernel_started_waiting_says_so_once(
    shell: InteractiveShell,
    broker: client.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with broker.request("1", attach=False, holder=HOLD):
        waiting = broker.request("1/2", wait=False)
        monkeypatch.setenv("AISTACK_REQUEST", waiting.request["id"])
        hook = LeaseSync(lambda: broker, patience_seconds=30)
        capsys.readouterr()
        hook.before_cell()
        assert "Waiting for 1/2 (position 1)" in capsys.readouterr().out
        hook.before_cell()
        assert capsys.readouterr().out == ""
        waiting.release()


@pytest.fixture
def hook(broker: client.Client, monkeypatch: pytest.MonkeyPatch) -> LeaseSync:
    """The hook of a kernel that a page may ask for."""
    monkeypatch.setenv("AISTACK_REQUEST", "r-anything")
    return LeaseSync(lambda: broker, patience_seconds=30)


def ask_from_a_page(broker: client.Client) -> client.LeaseHandle:
    """A lease for this kernel that its own process does not know of."""
    return client.LeaseHandle(broker, broker.call("request", spec="1/4"))


def test_a_lease_that_came_from_a_page_is_attached_once(
    hook: LeaseSync, broker: client.Client, capsys: pytest.CaptureFixture[str]
):
    lease = ask_from_a_page(broker)
    hook.before_cell()
    assert f"This kernel now holds 1/4 ({lease.id})" in capsys.readouterr().out
    assert broker.leases()[0]["state"] == "active"
    hook.before_cell()
    assert capsys.readouterr().out == ""


def test_a_lease_the_kernel_was_launched_with_is_left_to_its_launcher(
    hook: LeaseSync,
    broker: client.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    lease = ask_from_a_page(broker)
    monkeypatch.setattr(attach, "LAUNCH_LEASES", frozenset({lease.id}))
    monkeypatch.setattr(attach, "attach", lambda prepared: 1 / 0)
    hook.before_cell()
    assert capsys.readouterr().out == ""
    assert [result["state"] for result in broker.leases()] == ["granted"]


def test_a_lease_that_was_asked_for_without_attaching_is_not_attached(
    hook: LeaseSync, broker: client.Client
):
    with broker.request("1/4", attach=False):
        hook.before_cell()
        assert [lease["state"] for lease in broker.leases()] == ["granted"]
        assert client.attached() is None


def test_a_lease_that_ended_since_it_was_looked_at_is_not_attached(
    hook: LeaseSync, broker: client.Client, capsys: pytest.CaptureFixture[str]
):
    ask_from_a_page(broker)
    seen_before = broker.mine()
    broker.call("release", lease_id=seen_before["leases"][0]["id"])
    hook.update(seen_before)
    assert (client.attached(), capsys.readouterr().out) == (None, "")


def test_a_lease_that_comes_after_cuda_has_started_is_given_back_with_the_way_out(
    hook: LeaseSync,
    broker: client.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    lease = ask_from_a_page(broker)

    def touched(prepared: Any) -> None:
        raise DeviceInUse("CUDA has already started: restart the kernel")

    monkeypatch.setattr(attach, "attach", touched)
    hook.before_cell()
    text = f"1/4 ({lease.id}) came and was given back: CUDA has already started: restart the kernel"
    assert capsys.readouterr().out.strip() == text
    assert broker.leases() == []
    hook.before_cell()
    assert capsys.readouterr().out == ""


def test_a_lease_that_has_ended_is_let_go_of_before_the_next_cell(
    shell: InteractiveShell,
    magics: AIStackMagics,
    broker: client.Client,
    capsys: pytest.CaptureFixture[str],
):
    magics.lease_sync.patience_seconds = 30
    gpu(shell, "request 1/4")
    held = broker.leases()[0]["id"]
    broker.call("release", lease_id=held)
    capsys.readouterr()
    shell.run_cell("import os; left = os.environ.get('AISTACK_LEASE')")
    text = (
        f"the lease {held} has ended: released; this kernel runs without a device now"
    )
    assert capsys.readouterr().out.strip() == text
    assert shell.user_ns["left"] is None
    assert "This kernel holds 1/2" in gpu(shell, "request 1/2")


def test_the_hook_asks_nobody_when_nothing_may_come(broker: client.Client):
    def connect() -> client.Client:
        raise AssertionError("nobody should be asked")

    shell = new_shell()
    AIStackMagics(shell, connect).register()
    assert shell.run_cell("1 + 1").result == 2


def test_a_broker_that_is_gone_does_not_break_a_cell(
    shell_without_server: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    assert shell_without_server.run_cell("1 + 1").result == 2
    assert capsys.readouterr().err == ""


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("request nonsense", "spec: 'nonsense' is not a slice"),
        ("request 0", "ask for at least one"),
        ("request -1", "unrecognized arguments|required: SPEC|is not a slice"),
        ("request nan", "spec: 'nan' is not a slice"),
        ("request 1000000000", "at most 1024"),
        ("request 8", "8"),
        ("request 7g.80gb", "7g.80gb"),
        ("request 1/4 --queue nowhere", "there is no queue 'nowhere'"),
        ("request 1/4 --for soon", "for: 'soon' is not a duration"),
        ("request 1/4 --for 0.1s", "for: '0.1s' is too short"),
        ("extend 0.1s", "duration: '0.1s' is too short; it is at least 1 second"),
        ("request 1/4 --timeout never", "timeout: 'never' is not a duration"),
        ("request", "required: SPEC"),
        ("request 1/4 1/2", "unrecognized arguments: 1/2"),
        ("request '1/4", "no closing quotation"),
        ("extend 1h 2h", "unrecognized arguments: 2h"),
        ("extend soon", "is not a duration"),
        ("bogus", "invalid choice: 'bogus'"),
        ("--bogus", "unrecognized arguments: --bogus"),
    ],
)
def test_each_mistake_is_one_line_fails_the_cell_and_changes_nothing(
    shell: InteractiveShell,
    broker: client.Client,
    capsys: pytest.CaptureFixture[str],
    line: str,
    text: str,
):
    capsys.readouterr()
    result = shell.run_cell(f"%gpu {line}")
    shown = capsys.readouterr().out.strip()
    assert isinstance(result.error_in_exec, AIStackError)
    assert len(shown.splitlines()) == 1
    assert "Traceback" not in shown
    assert any(part in shown for part in text.split("|")), shown
    assert broker.leases() == []
    assert broker.queue() == []


def test_after_cuda_was_touched_nothing_changes_and_the_way_out_is_said(
    shell: InteractiveShell, broker: client.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attach, "started_runtime", lambda known: "CUDA")
    environment = dict(os.environ)
    with pytest.raises(DeviceInUse, match="restart the kernel"):
        gpu(shell, "request gpu:1/4")
    assert broker.leases() == []
    assert broker.queue() == []
    assert dict(os.environ) == environment


def test_a_dead_socket_is_one_line(shell_without_server: InteractiveShell):
    with pytest.raises(
        AIStackError, match="AISTACK_SOCKET: no Jupyter server answers"
    ) as caught:
        gpu(shell_without_server, "")
    assert len(caught.value._render_traceback_()) == 1


# -- help, JSON, looks -----------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", ["", "status", "request", "release", "queue", "extend", "usage"]
)
def test_every_verb_has_help_and_help_does_nothing(
    shell: InteractiveShell,
    broker: client.Client,
    capsys: pytest.CaptureFixture[str],
    verb: str,
):
    assert shell.run_line_magic("gpu", f"{verb} --help") is None
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: %gpu {verb}".strip())
    assert "--json" in shown
    assert broker.leases() == []


@pytest.mark.parametrize("verb", ["up", "scale", "down", "status"])
def test_cluster_verbs_have_help(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], verb: str
):
    shell.run_line_magic("cluster", f"{verb} --help")
    assert capsys.readouterr().out.startswith(f"usage: %cluster {verb}")


def test_json_is_printed_for_every_verb(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    answers = {}
    for line in ("request 1/4", "status", "usage", "queue", "extend 5m", "release", ""):
        capsys.readouterr()
        assert shell.run_line_magic("gpu", f"{line} --json") is None
        answers[line] = json.loads(capsys.readouterr().out)
    assert answers["request 1/4"]["lease"]["spec"] == "1/4"
    assert answers["status"]["leases"][0]["state"] == "active"
    assert answers["usage"]["cost"]["energy_wh"] is None
    assert answers["queue"] == {"queue": []}
    assert answers["release"]["released"] == [answers["request 1/4"]["lease"]["id"]]
    assert answers[""]["leases"] == []


def test_panels_are_text_and_html_and_escape_what_others_wrote():
    samples = json.loads((DATA / "wire_samples.json").read_text())
    waiting = samples["queue"][0]
    waiting["holder"]["label"] = '<img src=x onerror="alert(1)">'
    waiting["reason"] = "a & b <script>"
    shown = views.queue_panel(
        [waiting], [], waiting["eta_at"] - 720
    )._repr_mimebundle_()
    assert "<script>" in shown["text/plain"]
    assert "<script>" not in shown["text/html"]
    assert "<img" not in shown["text/html"]
    assert "a &amp; b" in shown["text/html"]
    assert "in about 12 min" in shown["text/plain"]
    stranger = {**waiting["holder"], "user": "someone", "label": "", "pid": None}
    row = str(
        views.queue_panel([{**waiting, "holder": stranger}], [], 0.0)
    ).splitlines()[2]
    assert "  someone  " in row
    assert stranger["id"] not in row


def test_status_names_device_enforcement_memory_and_time_left():
    samples = json.loads((DATA / "wire_samples.json").read_text())
    lease = samples["leases"][0]
    panel = views.status_panel(
        lease,
        samples["leases"][1:2],
        samples["host"],
        samples["usage"],
        lease["ends_at"] - 600,
    )
    shown = str(panel)
    assert "L0: framework caps (advisory)" in shown
    assert "yes, from inside" in shown
    assert "of 20.0 GiB" in shown
    assert "10 min" in shown
    assert "1 more lease: 1/2" in shown
    assert "no driver answers" in shown
    assert "notice" not in shown
    idle = samples["leases"][1]
    told = str(
        views.status_panel(
            idle, [], samples["host"], samples["usage"], idle["notice"]["ends_at"] - 300
        )
    )
    assert (
        "will be reclaimed in 5 min: it is idle. Run a cell, or %gpu extend, to keep it."
        in told
    )
    assert "for 20 min; reclaimed after 25 min" in told
    seen = {
        "kind": "NotEnforced",
        "severity": "error",
        "message": "two devices were visible",
        "since": 1.0,
    }
    doubtful = {**lease, "verified": False, "conditions": [seen]}
    panel = views.status_panel(doubtful, [], samples["host"], {"leases": {}}, 0)
    assert "NO: not enforced: two devices were visible" in str(panel)
    nothing = {**seen, "kind": "NotVerified", "message": "there is nothing to verify"}
    unverified = {**lease, "verified": None, "conditions": [nothing]}
    panel = views.status_panel(unverified, [], samples["host"], {"leases": {}}, 0)
    assert "  could not be verified: there is nothing to verify" in str(panel)
    assert "n/a of 20.0 GiB" in str(panel)


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_where_the_memory_is_says_why_and_not_what_is_about_to_change(verb: str):
    samples = json.loads((DATA / "wire_samples.json").read_text())
    home = {"standing": "suspended", "why": "simulated: nothing has moved"}
    shown = str(
        views.device_state_panel({**samples["leases"][0], "residence": home}, verb)
    )
    assert ("needs it (simulated: nothing has moved)" in shown) == (verb == "resume")
    assert ("It moves to host memory now" in shown) == (verb == "suspend")


def test_labels_of_rows_are_not_broken_into_lines():
    html = Panel(title="x", rows=[("GPU memory", "long " * 50)]).to_html()
    assert html.count("white-space:nowrap") == 1


def test_a_panel_without_rows_is_its_title():
    assert str(Panel(title="Nobody waits")) == "Nobody waits"
    assert "<table" not in Panel(title="Nobody waits").to_html()


# -- %%gpu -----------------------------------------------------------------------------


def test_cell_magic_runs_the_cell_on_a_lease_and_releases_it(
    shell: InteractiveShell, broker: client.Client
):
    cell = "%%gpu 1/2\nimport os\nheld = os.environ['AISTACK_LEASE']\n2 + 3"
    result = shell.run_cell(cell)
    assert result.result == 5
    assert broker.leases() == []
    assert broker.leases(ended=True)[0]["id"] == shell.user_ns["held"]


def test_cell_magic_releases_when_the_cell_fails_and_shows_the_cells_own_error(
    shell: InteractiveShell, broker: client.Client, capsys: pytest.CaptureFixture[str]
):
    result = shell.run_cell("%%gpu 1/2\nx = 1\nx / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert "x / 0" in capsys.readouterr().out
    assert broker.leases() == []


def test_a_semicolon_silences_the_cell(shell: InteractiveShell, broker: client.Client):
    assert shell.run_cell("%%gpu 1/2\nran = 1\n2 + 3;").result is None
    assert shell.run_cell("%%gpu 1/2\n2 + 3; # as IPython reads it").result is None
    assert shell.run_cell("%%gpu 1/2\n'a;'").result == "a;"
    assert shell.user_ns["ran"] == 1


def test_a_semicolon_silences_a_cell_that_awaits(
    shell: InteractiveShell, broker: client.Client
):
    result = shell.run_cell(f"{AWAITING};")
    assert result.success, result.error_in_exec
    assert result.result is None


AWAITING = """%%gpu 1/2
import asyncio, os
async def look():
    await asyncio.sleep(0)
    return os.environ["AISTACK_LEASE"]
held = await look()
loop = asyncio.get_running_loop()
await asyncio.sleep(0, 6) + 1"""


def test_a_cell_that_awaits_runs_on_its_lease_too(
    shell: InteractiveShell, broker: client.Client
):
    result = shell.run_cell(AWAITING)
    assert result.success, result.error_in_exec
    assert result.result == 7
    assert broker.leases() == []
    assert broker.leases(ended=True)[0]["id"] == shell.user_ns["held"]


async def test_a_cell_that_awaits_runs_on_the_kernels_own_loop(
    shell: InteractiveShell, broker: client.Client
):
    result = await shell.run_cell_async(
        AWAITING, transformed_cell=shell.transform_cell(AWAITING)
    )
    assert (result.success, result.result) == (True, 7)
    assert shell.user_ns["loop"] is asyncio.get_running_loop()
    assert broker.leases() == []


def test_a_cell_that_awaits_and_fails_gives_its_lease_back(
    shell: InteractiveShell, broker: client.Client
):
    result = shell.run_cell("%%gpu 1/2\nimport asyncio\nawait asyncio.sleep(0)\n1 / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert broker.leases() == []
    assert isinstance(
        shell.run_cell("%%gpu 99\nran = await x").error_in_exec, AIStackError
    )
    assert "ran" not in shell.user_ns


def test_a_cell_that_cannot_be_read_asks_for_nothing(
    shell: InteractiveShell, broker: client.Client
):
    result = shell.run_cell("%%gpu 1/2\nx = = 1")
    assert isinstance(result.error_in_exec or result.error_before_exec, SyntaxError)
    assert broker.leases(ended=True) == []


@pytest.mark.parametrize(
    ("line", "text"),
    [("", "required: SPEC"), ("bogus", "is not a slice"), ("99", "99")],
)
def test_cell_magic_does_not_run_a_cell_without_its_lease(
    shell: InteractiveShell, line: str, text: str
):
    result = shell.run_cell(f"%%gpu {line}\nran = True")
    assert text in str(result.error_in_exec)
    assert "ran" not in shell.user_ns


def test_cell_magic_refuses_in_a_kernel_that_has_a_slice(shell: InteractiveShell):
    gpu(shell, "request 1/4")
    for spec in ("1/4", "1/2"):
        assert isinstance(shell.run_cell(f"%%gpu {spec}\n1").error_in_exec, LeaseError)
    assert "This kernel holds 1/4" in gpu(shell, "")


def test_cell_magic_has_help(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    shell.run_cell_magic("gpu", "--help", "ran = True")
    assert capsys.readouterr().out.startswith("usage: %%gpu")
    assert "ran" not in shell.user_ns


# -- completion ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        (
            "%gpu ",
            {
                "request",
                "release",
                "queue",
                "extend",
                "usage",
                "advise",
                "status",
                "--json",
            },
            {"up"},
        ),
        ("%gpu re", {"request", "release"}, {"queue"}),
        ("gpu re", {"request", "release"}, {"queue"}),
        ("%gpu request ", {"1/4", "1/2", "20GiB", "--for"}, {"request"}),
        ("%gpu request 1/", {"1/4", "1/2", "1/8"}, {"20GiB"}),
        ("%gpu request cpu:", {"1", "2"}, {"cpu:1"}),
        (
            "%gpu request 1/4 --",
            {"--for", "--no-wait", "--preemptible", "--queue"},
            {"1/2"},
        ),
        ("%gpu request 1/4 --for 2h --", {"--queue"}, {"--for"}),
        ("%%gpu 1", {"1/4", "1/2"}, {"request"}),
        ("%cluster ", {"up", "scale", "down", "status"}, {"request"}),
        ("%cluster up --slice ", {"1/4"}, {"--slice"}),
    ],
)
def test_completion(
    shell: InteractiveShell, line: str, expected: set[str], absent: set[str]
):
    result = set(shell.Completer.complete(line_buffer=line, cursor_pos=len(line))[1])
    assert expected <= result
    assert not absent & result


def test_completion_offers_the_hosts_mig_profiles(
    shell: InteractiveShell, broker: client.Client, monkeypatch: pytest.MonkeyPatch
):
    samples = json.loads((DATA / "wire_samples.json").read_text())
    monkeypatch.setattr(broker, "host", lambda: samples["host"])
    line = "%gpu request 1g"
    assert (
        "1g.10gb" in shell.Completer.complete(line_buffer=line, cursor_pos=len(line))[1]
    )


# -- %cluster --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("scale 3", "no cluster is up"),
        ("scale -1", "unrecognized|required|not a number"),
        ("up 1.5", "not a number of workers"),
        ("up 2 --slice bogus", "spec: 'bogus' is not a slice"),
        ("up 2 --timeout never", "timeout: 'never' is not a duration"),
        ("sideways", "invalid choice"),
    ],
)
def test_cluster_mistakes_are_one_line(shell: InteractiveShell, line: str, text: str):
    pytest.importorskip("distributed")
    with pytest.raises(AIStackError) as caught:
        shell.run_line_magic("cluster", line)
    assert any(part in caught.value.message for part in text.split("|")), (
        caught.value.message
    )
    assert len(caught.value._render_traceback_()) == 1
    assert "cluster" not in shell.user_ns


def test_without_a_cluster_status_and_down_say_so(shell: InteractiveShell):
    assert "%cluster up 2" in str(shell.run_line_magic("cluster", ""))
    assert "nothing to stop" in str(shell.run_line_magic("cluster", "down"))


def test_cluster_without_dask_says_what_to_install(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
):
    load = builtins.__import__

    def without_dask(name: str, *rest: Any, **options: Any) -> Any:
        if name in {"distributed", "jupyter_aistack.compute.clusters.cluster"}:
            raise ImportError(name)
        return load(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_dask)
    with pytest.raises(AIStackError, match=r"pip install .jupyter_aistack\[train\]"):
        shell.run_line_magic("cluster", "up 1")


def test_cluster_up_scale_and_down(
    shell: InteractiveShell, broker: client.Client, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("distributed")
    shell.run_line_magic("cluster", "up 1 --slice 1/8")
    assert shell.user_ns["client"].submit(sum, [1, 2]).result(timeout=60) == 3
    assert [lease["spec"] for lease in broker.leases()] == ["1/8"]
    with pytest.raises(AIStackError, match="a cluster is up already"):
        shell.run_line_magic("cluster", "up 1")
    shell.run_line_magic("cluster", "scale 2")
    assert len(broker.leases()) == 2
    capsys.readouterr()
    shell.run_line_magic("cluster", "status --json")
    assert json.loads(capsys.readouterr().out)["workers"] == 2
    assert "is down" in str(shell.run_line_magic("cluster", "down"))
    assert not {"cluster", "client"} & set(shell.user_ns)
    assert broker.leases() == []


# -- loading ---------------------------------------------------------------------------


def test_loading_twice_is_loading_once(shell: InteractiveShell):
    from jupyter_aistack.magics import load_ipython_extension

    before = len(shell.events.callbacks["pre_run_cell"])
    load_ipython_extension(shell)
    assert len(shell.events.callbacks["pre_run_cell"]) == before


def test_ipython_loads_the_magics_and_unloads_them(broker: client.Client):
    shell = new_shell()
    callbacks = {name: len(hooks) for name, hooks in shell.events.callbacks.items()}
    shell.run_line_magic("load_ext", "jupyter_aistack.magics")
    assert "This kernel holds no slice" in gpu(shell, "")
    shell.run_line_magic("unload_ext", "jupyter_aistack.magics")
    assert shell.find_line_magic("gpu") is None
    assert shell.find_cell_magic("gpu") is None
    left = {name: len(hooks) for name, hooks in shell.events.callbacks.items()}
    assert left == callbacks


def test_loading_imports_nothing_heavy():
    code = (
        "import IPython, sys; before = set(sys.modules); import jupyter_aistack.magics;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {
        "sqlalchemy",
        "mlflow",
        "torch",
        "dask",
        "distributed",
        "anywidget",
        "tornado",
        "pynvml",
        "jupyter_server",
    }
    assert not heavy & set(done.stdout.split())


@pytest.mark.service
def test_a_mistake_fails_a_notebook_with_one_line(
    broker: client.Client, tmp_path: Path
):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    cells = ["%load_ext jupyter_aistack.magics", "%gpu request bogus"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
    )
    run: Callable[[], Any] = NotebookClient(
        notebook, kernel_name="python3", timeout=120
    ).execute
    with pytest.raises(CellExecutionError, match="spec: 'bogus' is not a slice"):
        run()
    output = notebook.cells[1].outputs[0]
    assert (output.output_type, len(output.traceback)) == ("error", 1)


# -- the slice of a kernelspec whose command alone was started -------------------------


def start(
    broker: client.Client, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> InteractiveShell:
    """A shell as VS Code starts it: with the variables of the kernelspec alone."""
    monkeypatch.setenv("AISTACK_SLICE", wanted)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7")
    shell = new_shell()
    shell.colors = "nocolor"
    AIStackMagics(shell, lambda: broker).register()
    return shell


def test_a_kernel_without_its_provisioner_asks_before_its_first_cell(
    broker: client.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    shell = start(broker, monkeypatch, "1/4")
    assert "AISTACK_SLICE" not in os.environ
    assert broker.leases() == []
    shell.run_cell("import os; print(os.environ['AISTACK_LEASE'])")
    (lease,) = broker.leases()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"This kernel now holds 1/4 ({lease['id']})")
    assert shown[1] == lease["id"]
    shell.run_cell("2")
    assert len(broker.leases()) == 1


def test_a_kernel_without_its_provisioner_asks_with_the_ceiling_of_its_kernelspec(
    broker: client.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AISTACK_UP_TO", "1/2")
    shell = start(broker, monkeypatch, "1/4")
    assert "AISTACK_UP_TO" not in os.environ
    shell.run_cell("1")
    (lease,) = broker.leases()
    assert lease["up_to"] == "1/2"


def test_a_kernel_without_its_provisioner_waits_without_devices(
    broker: client.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    shell = start(broker, monkeypatch, "1/4")
    with broker.request("1", attach=False, holder=HOLD):
        shell.run_cell("1")
        assert "Waiting for 1/4" in capsys.readouterr().out
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    shell.run_cell("2")
    assert "This kernel now holds 1/4" in capsys.readouterr().out
    assert [lease["spec"] for lease in broker.leases()] == ["1/4"]


def test_a_kernel_that_can_have_no_slice_is_told_so_once_and_sees_no_device(
    broker: client.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    shell = start(broker, monkeypatch, "9")
    shell.run_cell("1")
    shown = capsys.readouterr().out
    assert "This kernel was to have 9 and has none: spec: 9 cannot be had" in shown
    assert "%gpu request 9" in shown
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    shell.run_cell("2")
    assert "was to have" not in capsys.readouterr().out


def test_a_kernel_that_its_provisioner_launched_asks_for_nothing(
    broker: client.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AISTACK_KERNEL", "kernel-1")
    start(broker, monkeypatch, "1/4").run_cell("1")
    assert broker.leases() == []
