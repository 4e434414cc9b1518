"""How long a Jupyter server takes to answer, with the extension and without it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from tests.benchmarks.harness import Report, interleaved, main, paired_ratio

START_SECONDS = 60
OPTIONS = [
    "--ServerApp.open_browser=False",
    "--ServerApp.allow_root=True",
    "--IdentityProvider.token=",
]


def start_once(*, extension: bool) -> float:
    """Milliseconds until ``/api`` answers, in folders of its own."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
        env = {
            **os.environ,
            **dict.fromkeys(names, folder),
            "AISTACK_LEDGER": f"sqlite:///{folder}/ledger.sqlite",
        }
        extensions = (
            f"--ServerApp.jpserver_extensions={{'jupyter_aistack': {extension}}}"
        )
        command = [
            sys.executable,
            "-m",
            "jupyter_server",
            *OPTIONS,
            extensions,
            "--ServerApp.port=0",
        ]
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_answer(Path(folder), process)
            return (time.perf_counter() - begin) * 1000
        finally:
            process.kill()
            process.wait()


def wait_for_answer(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the server has written down its address and answers there."""
    file = folder / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + START_SECONDS
    while not answers(file):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.005)


def answers(file: Path) -> bool:
    """Whether the server whose runtime file this is answers already."""
    try:
        url = json.loads(file.read_text())["url"]
        urlopen(f"{url}api", timeout=5).close()
    except (OSError, ValueError):  # not there, half written, or not listening yet
        return False
    return True


def measure(rounds: int) -> Report:
    contenders = {
        "with": lambda: start_once(extension=True),
        "without": lambda: start_once(extension=False),
    }
    result = interleaved(contenders, rounds)
    figures = {f"{name}_ms": statistics.median(result[name]) for name in contenders}
    ratio = paired_ratio(result["with"], result["without"])
    return Report(
        ratios={"vs_without": ratio}, figures=figures, goals={"vs_without": 1.05}
    )


if __name__ == "__main__":
    main("server_start", measure, rounds=10)
