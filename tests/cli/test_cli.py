from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.cli import main
from jupyter_aistack.cli.host import _doctor_lines, enforcement
from jupyter_aistack.cli.output import device_state_text
from jupyter_aistack.cli.queues import read_moment
from jupyter_aistack.cli.status import _all_hosts_lines
from jupyter_aistack.client import client as clients
from jupyter_aistack.core.model.device import Enforcement

CLASS = ["reserve", "deep learning class", "--spec", "1/8"]


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:2xH100-80GB")
    monkeypatch.setattr(clients, "_connected", None)


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    report: dict[str, object] = json.loads(
        capsys.readouterr().out.strip().splitlines()[-1]
    )
    return report


def test_status_shows_devices_and_who_holds_what(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with clients.request("1/4", attach=False, label="paper.ipynb"):
        assert main(["status"]) == 0
        text = capsys.readouterr().out
        assert main(["status", "--json"]) == 0
    report = last_json(capsys)
    assert "simulated" in text
    assert "paper.ipynb" in text
    assert "3/4 free" in text
    assert [lease["spec"] for lease in report["leases"]] == ["1/4"]  # type: ignore[index, attr-defined]


def test_status_shows_all_hosts_and_what_is_not_known_of_those_unheard_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with clients.request("1/4", attach=False, label="paper.ipynb"):
        assert main(["status", "--all-hosts"]) == 0
        text = capsys.readouterr().out
        assert main(["status", "--all-hosts", "--json"]) == 0
    answer: Any = last_json(capsys)
    (here,) = answer["hosts"]
    assert text.startswith(f"{here['name']} (this host)\n  GPU 0: ")
    assert "3/4 free" in text
    assert "paper.ipynb" in text

    request = {
        "spec": "1/2",
        "queue": "default",
        "submitted_at": 1000.0,
        "holder": {"user": "bob"},
    }
    seen = {**here, "is_here": False, "name": "far", "queue": [request]}
    (device, *_) = here["devices"]
    heard = {**seen, "is_heard": True, "seen_at": 1050.0, "devices": [], "leases": []}
    lost = {
        **heard,
        "is_heard": False,
        "devices": [{**device, "free_fraction": None}],
        "queue": [],
    }
    never = {**lost, "seen_at": None, "devices": []}
    lines = [*_all_hosts_lines({"at": 1060.0, "hosts": [heard, lost, never]})]
    assert lines[:3] == [
        "far, heard of 10 s ago",
        "  1 waiting",
        "    1/2  bob  default  for 1 min",
    ]
    assert lines[3].startswith("far, not heard of since ")
    assert lines[3].endswith(" (10 s): what is free there is not known")
    assert lines[4].endswith(": 80.0 GiB")
    assert lines[5:] == ["far, never heard of: what is free there is not known"]


def test_status_and_doctor_say_up_to_what_a_slice_may_be_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with clients.request("1/4", up_to="3/4", attach=False, label="paper.ipynb") as held:
        assert main(["status"]) == 0
        text = capsys.readouterr().out
        assert main(["doctor"]) == 0
        doctor = capsys.readouterr().out
        with clients.request("1/2", attach=False):
            assert main(["status"]) == 0
            less = capsys.readouterr().out
    assert "1/4, up to 3/4, now 3/4, 60.0 GiB" in text
    assert f"  lease {held.id} of paper.ipynb" in doctor
    assert ": 1/4, up to 3/4, now 3/4" in doctor
    assert "1/4, up to 3/4, now 1/2, 40.0 GiB" in less


@pytest.mark.parametrize(
    ("spec", "ceiling", "sentence"),
    [
        ("1/4", "1/8", "up_to: 1/8 of a device is less than 1/4 guarantees"),
        ("1/4", "5/4", "up_to: 5/4 is not within one device"),
        ("1", "1/1", "up_to: 1 is whole devices, and only parts"),
        ("1g.10gb", "1/1", "up_to: 1g.10gb is a MIG profile, and only parts"),
        ("80GiB", "1/2", "up_to: 1/2 of a device is less than 80GiB guarantees"),
    ],
)
def test_a_bad_ceiling_is_one_sentence_and_starts_nothing(
    spec: str, ceiling: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["request", spec, "--up-to", ceiling, "--", "true"]
    assert main(command) == 2
    assert sentence in capsys.readouterr().err


def test_doctor_says_what_would_enforce_a_slice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    assert "nothing: the device is simulated" in capsys.readouterr().out


def test_doctor_calls_a_compute_instance_advisory_as_its_lease_will() -> None:
    device = {"simulated": False, "kind": "gpu", "mig_enabled": True}
    part = {"profile": "1c.2g.35gb", "gpu_slices": 2, "compute_slices": 1}
    told = enforcement(
        {
            **device,
            "mig": [part, {"profile": "2g.35gb", "gpu_slices": 2, "compute_slices": 2}],
        }
    )
    assert told == {"1c.2g.35gb": Enforcement.L0.label, "2g.35gb": Enforcement.L4.label}


def test_doctor_tells_the_level_of_each_gpu_and_why_it_is_no_better() -> None:
    result = {
        "kind": "gpu",
        "simulated": False,
        "mig_enabled": False,
        "is_divisible": True,
        "level": "L1",
    }
    device = {**result, "index": 0, "name": "NVIDIA H200"}
    told = {
        "enforcement": enforcement(device),
        "why_not": {"L2": "needs driver 615"},
        "advice": "switch it on",
        "conditions": [
            {
                "code": "PowerBrake",
                "severity": "warning",
                "message": "runs slowly",
                "since": time.time() - 180,
            }
        ],
    }
    report = {
        "version": "1",
        "host": "box",
        "transport": "here",
        "problems": [],
        "suspend": {"tier": "off", "why": ""},
        "ceilings": [],
        "strays": [],
    }
    shown = [
        *_doctor_lines(
            {**report, "devices": [{**device, **told, "memory_bytes": 1 << 30}]}
        )
    ]
    assert shown[2:5] == [
        f"  whole: {Enforcement.WHOLE.label}",
        "  share: L1, MPS daemon (driver)",
        "  not L2: needs driver 615",
    ]
    assert shown[5:7] == [
        "  health: warning PowerBrake for 3 min: runs slowly",
        "  advice: switch it on",
    ]


def test_doctor_says_one_reason_once_for_all_levels_it_keeps_from() -> None:
    result = {
        "kind": "gpu",
        "simulated": False,
        "mig_enabled": False,
        "is_divisible": True,
        "level": "L0",
        "index": 0,
    }
    why_not = {
        "L4": "MIG mode is off",
        "L3": "no control program",
        "L2": "no control program",
    }
    device = {
        **result,
        "name": "NVIDIA H200",
        "enforcement": {},
        "why_not": why_not,
        "advice": "",
        "conditions": [],
        "memory_bytes": 1,
    }
    report = {
        "version": "1",
        "host": "box",
        "transport": "here",
        "problems": [],
        "suspend": {"tier": "off", "why": ""},
        "ceilings": [],
        "strays": [],
    }
    shown = [*_doctor_lines({**report, "devices": [device]})]
    assert shown[2:4] == [
        "  not L4: MIG mode is off",
        "  not L3, L2: no control program",
    ]


def test_leases_and_their_use_stand_in_columns_with_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        clients.request("1/4", attach=False, label="a.ipynb"),
        clients.request("20000MiB", attach=False, label="longer.ipynb"),
    ):
        main(["status"])
        rows = sorted(
            line for line in capsys.readouterr().out.splitlines() if "ipynb" in line
        )
        starts = {
            row.index(name)
            for row in rows
            for name in (" a.ipynb", " longer.ipynb")
            if name in row
        }
        assert (len(rows), len(starts)) == (2, 1)
        assert any("24.4%, 19.5 GiB" in row for row in rows)
        assert all(row.endswith("nothing: the device is simulated") for row in rows)
        main(["usage"])
        heading, *used = capsys.readouterr().out.splitlines()
    assert heading.split() == ["who", "memory", "busy"]
    assert used[0].startswith("GPU 0: NVIDIA H100-80GB (simulated)")
    assert any("longer.ipynb" in row for row in used[2:])


def test_a_host_without_devices_says_so_when_its_use_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "gpu")
    main(["usage"])
    assert capsys.readouterr().out == "there is no device here\n"


@pytest.mark.parametrize(
    ("home", "text"),
    [
        ({"standing": "warm", "phase": "parking"}, "warm (being suspended)"),
        ({"standing": "warm", "asked": "suspend"}, "warm (to be suspended)"),
        ({"standing": "suspended", "phase": "restoring"}, "suspended (coming back)"),
        (
            {"standing": "pinned", "why": "pinned by the user"},
            "pinned (pinned by the user)",
        ),
        ({"standing": "warm"}, "warm"),
    ],
)
def test_a_move_that_is_under_way_is_said(home: dict[str, str], text: str) -> None:
    assert (
        device_state_text(
            {"residence": {"phase": "resident", "why": "", "asked": "", **home}}
        )
        == text
    )


def test_doctors_json_has_the_level_of_each_device(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--json"]) == 0
    first = last_json(capsys)["devices"][0]  # type: ignore[index]
    assert (first["level"], first["why_not"]) == (
        None,
        {},
    )  # simulated: nothing holds it


@pytest.mark.parametrize("verb", ["queue", "usage", "status", "doctor", "reservations"])
def test_every_view_has_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--json"]) == 0
    assert isinstance(last_json(capsys), dict)


def test_request_runs_a_command_on_a_slice_and_gives_it_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = main(
        ["request", "1/4", "--", "sh", "-c", 'test -n "$AISTACK_LEASE" && exit 7']
    )
    assert code == 7
    assert clients.connect().leases() == []
    assert clients.connect().leases(ended=True)[0]["outcome"] == "released"


def test_a_preemptible_request_waits_in_the_queue_it_names(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        main(
            [
                "request",
                "1/4",
                "--preemptible",
                "--queue",
                "default",
                "--json",
                "--",
                "true",
            ]
        )
        == 0
    )
    lease = last_json(capfd)["lease"]
    assert (lease["preemptible"], lease["queue"]) == (True, "default")  # type: ignore[index]


def test_a_lease_is_extended(capsys: pytest.CaptureFixture[str]) -> None:
    with clients.request("1/4", attach=False, duration="1h") as held:
        before = held.lease["ends_at"]  # type: ignore[index]
        assert main(["extend", held.id, "30min"]) == 0
        assert f"{held.id} 1/4: until " in capsys.readouterr().out
        assert held.refresh().lease["ends_at"] == before + 1800  # type: ignore[index]


def test_the_queue_says_who_waits_why_and_until_when(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["queue"]) == 0
    assert capsys.readouterr().out == "no request waits\n"
    with clients.request("1x2", attach=False, duration="1h"):
        waiting = clients.request("1", attach=False, wait=False)
        assert main(["queue"]) == 0
        heading, row = capsys.readouterr().out.splitlines()
        assert heading.split() == ["wants", "who", "queue", "expected", "why"]
        assert row.startswith("1  1 ")
        assert "needs a whole GPU; the next one frees in about" in row
        waiting.release()


def test_a_reservation_is_made_listed_and_taken_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert main(["reservations"]) == 0
    assert capsys.readouterr().out == "nothing is reserved\n"
    times = ["--from", "2099-01-06 10:00", "--for", "2h"]
    assert main([*CLASS, "--count", "8", *times, "--weekly", "--json"]) == 0
    made = last_json(capsys)
    assert (made["name"], made["count"], made["is_weekly"]) == (
        "deep learning class",
        8,
        True,
    )
    assert made["ends_at"] - made["starts_at"] == 7200  # type: ignore[operator]
    assert main(["reservations"]) == 0
    listed = capsys.readouterr().out.splitlines()[1]
    for words in (
        made["id"],
        "deep learning class",
        "8 x 1/8",
        "Tue 2099-01-06 10:00 for 2 h, every week",
    ):
        assert str(words) in listed
    assert main(["unreserve", str(made["id"])]) == 0
    assert clients.connect().reservations() == []


def test_only_admins_reserve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert main([*CLASS, "--from", "2099-01-06 10:00", "--for", "2h"]) == 1
    assert "AIStack.admins" in capsys.readouterr().err


def test_a_time_may_name_its_zone() -> None:
    assert read_moment("2026-11-24T10:00+01:00", field="from") == 1795510800


def test_parsing_a_command_imports_neither_the_simulator_nor_numpy() -> None:
    code = """
import sys
from jupyter_aistack.cli import _parser
_parser(["status"]).parse_args(["status"])
print([name for name in sys.modules if name.partition(".")[0] == "numpy" or "simulate" in name])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["request", "banana", "--", "true"], "spec: 'banana' is not a slice"),
        (["request", "9", "--", "true"], "this host has 2 GPUs"),
        (["request", "1/4", "--for", "never", "--", "true"], "for: 'never'"),
        (
            ["request", "1/4", "--timeout", "soon", "--", "true"],
            "timeout: 'soon' is not a duration",
        ),
        (
            ["request", "1/4", "--queue", "nowhere", "--", "true"],
            "queue: there is no queue 'nowhere'",
        ),
        (
            ["request", "1/4", "--", "no-such-program"],
            "command: no-such-program cannot be run",
        ),
        (["release", "l-nope"], "l-nope"),
        (["extend", "l-nope", "1h"], "l-nope"),
        (["extend", "l-nope", "soon"], "time: 'soon' is not a duration"),
        (["unreserve", "v-nope"], "v-nope"),
        (
            [*CLASS, "--from", "tuesday", "--for", "2h"],
            "from: 'tuesday' is not a time; write 2026-11-24 10:00",
        ),
        (
            [*CLASS, "--from", "2099-01-06 10:00", "--for", "long"],
            "for: 'long' is not a duration",
        ),
        (
            [*CLASS, "--from", "2020-01-07 10:00", "--for", "2h"],
            "ends_at: that time is over already",
        ),
        (
            [*CLASS, "--count", "99", "--from", "2099-01-06 10:00", "--for", "2h"],
            "99 slices of 1/8 do not fit",
        ),
        (
            [*CLASS, "--queue", "nowhere", "--from", "2099-01-06 10:00", "--for", "2h"],
            "there is no queue 'nowhere'",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert main(arguments) == 2
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("jupyter aistack:")
    ]
    assert len(lines) == 1
    assert words in lines[0]
    assert clients.connect().leases() == []


def test_a_command_that_cannot_be_run_does_not_wait_for_its_turn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with clients.request("2", attach=False):
        assert main(["request", "1", "--", "no-such-program"]) == 2
        assert "waiting" not in capsys.readouterr().err
        assert clients.connect().queue() == []


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AISTACK_SOCKET", "{tmp}/dead.sock", "no Jupyter server answers"),
        ("AISTACK_LEDGER", "sqlite:///{tmp}/corrupt.sqlite", "corrupt.sqlite"),
        (
            "AISTACK_LEDGER",
            "sqlite:///{tmp}/corrupt.sqlite/below/ledger.sqlite",
            "ledger_url",
        ),
        ("AISTACK_LEDGER", "nonsense", "ledger_url"),
        ("AISTACK_PROVIDERS", "quantum", "providers"),
        ("AISTACK_PROVIDERS", "simulated:8xWonder", "providers"),
    ],
)
def test_a_broken_setting_is_one_line_and_exit_code_2(
    variable: str,
    value: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "corrupt.sqlite").write_bytes(b"this is no database" * 100)
    monkeypatch.setenv(variable, value.format(tmp=tmp_path))
    assert main(["status"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert words in error
    assert (tmp_path / "corrupt.sqlite").read_bytes().startswith(b"this is no database")


def test_doctor_says_how_well_the_host_can_suspend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["suspend"]["tier"] == "off"
    assert "AIStack.suspend" in report["suspend"]["why"]
    main(["doctor"])
    assert "suspending idle kernels: off: it is switched off" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["suspend", "resume", "pin", "unpin"])
def test_a_lease_that_cannot_be_suspended_says_why(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with clients.request("1/4", attach=False) as lease:
        assert main([verb, lease.id]) == 2
    assert (
        "this lease cannot be suspended: suspending is switched off on this host"
        in capsys.readouterr().err
    )


def test_a_device_is_drained_and_shown_so(capsys: pytest.CaptureFixture[str]) -> None:
    (device,) = clients.connect().host()["devices"][:1]
    wish = [device["id"], "--reason", "a fan", "--for", "2h", "--json"]
    assert main(["drain", *wish]) == 0
    drain = last_json(capsys)["drain"]
    assert isinstance(drain, dict)
    assert drain["until"] - drain["since"] == pytest.approx(7200, abs=60)
    for command in ("status", "doctor"):
        main([command])
        assert ": a fan" in capsys.readouterr().out
    assert main(["quarantine", device["id"]]) == 0
    assert "in quarantine" in capsys.readouterr().out
    assert main(["undrain", device["id"]]) == 0
    assert "may be granted again" in capsys.readouterr().out
    both = ["--until", "2099-01-01 10:00", "--for", "2h"]
    assert main(["drain", device["id"], *both]) == 2
    assert "for: give either" in capsys.readouterr().err
