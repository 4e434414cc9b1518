"""Reports for people, and plots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.exceptions import InvalidRequest

from .csv_io import write_whole
from .metrics import Gauge, Meter
from .trace import HOUR

JSON = dict[str, Any]
FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#9e9e9e", "#1976d2")


def lines(report: JSON) -> Iterator[str]:
    """A report as text: the figures, what depends on the sizes of states, and
    what was assumed.
    """
    yield (
        f"{report['policy']}: {report['tasks']:,} tasks of {report['sessions']:,} sessions "
        f"on {report['gpus']:,} GPUs"
    )
    for name, value in _rows(report):
        yield f"  {name:<26}{value}"
    for name, figures in report.get("sensitivity", {}).items():
        yield f"  {name + ':':<26}{_short(figures)}"
    yield "assumed:"
    yield from (f"  - {sentence}" for sentence in report["assumptions"])


def _rows(report: JSON) -> Iterator[tuple[str, str]]:
    share = report["held_of_reservation_pct"]
    held = report["reservation_gpu_hours_held"]
    yield (
        "GPU-hours held",
        f"{report['gpu_hours_held']:,.0f}, {share:.1f} % of what reservation holds ({held:,.0f})",
    )
    yield (
        "GPU-hours in use",
        f"{report['gpu_hours_occupied']:,.0f}, at most {report['peak_gpus']:,} GPUs at once",
    )
    yield "GPU-hours executed", f"{report['gpu_hours_executed']:,.0f}"
    yield (
        "tasks that start at once",
        f"{report['immediate_pct']:.1f} %; within 1 s: {report['within_1s_pct']:.1f} %",
    )
    delays = report["delay_s"].items()
    yield "delay", ", ".join(f"{name} {_seconds(value)}" for name, value in delays)
    yield "states resumed", f"{report['resumes_per_task']:.3f} per task"
    yield (
        "suspended to host memory",
        f"at most {report['host_gib_parked_peak']:,.0f} GiB on one host, "
        f"{report['all_hosts_gib_parked_peak']:,.0f} GiB on all",
    )
    left_out = report["long_tasks"]
    if left_out["tasks"]:
        yield (
            "left out",
            f"{left_out['tasks']:,} long tasks of {left_out['gpu_hours']:,.0f} GPU-hours",
        )


def _short(figures: JSON) -> str:
    return (
        f"{figures['gpu_hours_held']:,.0f} GPU-hours held, {figures['within_1s_pct']:.1f} % within 1 s, "
        f"p99 {_seconds(figures['delay_s']['p99'])}, {figures['host_gib_parked_peak']:,.0f} GiB suspended on one host"
    )


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 60 else format_duration(value)


def check_plot(path: Path) -> None:
    """Raises InvalidRequest when nothing could be drawn to `path`, before anything is
    simulated.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidRequest(
            f"plot: {str(path)!r} is not a picture; its name ends in {', '.join(FORMATS)}",
            field="plot",
        )
    if not path.parent.is_dir():
        raise InvalidRequest(
            f"plot: there is no folder {str(path.parent)!r}", field="plot"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InvalidRequest(
            "plot: needs matplotlib: pip install 'jupyter_aistack[simulate]'",
            field="plot",
        ) from error


def plot(meters: Mapping[str, Meter], report: JSON, path: Path) -> None:
    """Draw the GPUs held over time, and those that run a task; the picture is there
    whole or not at all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (name, meter), colour in zip(meters.items(), COLOURS, strict=False):
        axes.plot(
            *_hourly(meter.held),
            drawstyle="steps-post",
            label=f"held: {name}",
            color=colour,
            linewidth=1,
        )
    running = list(meters.values())[-1].running
    axes.plot(
        *_hourly(running),
        drawstyle="steps-post",
        label="running a task",
        color="#e65100",
        linewidth=0.8,
    )
    axes.set(xlabel="days", ylabel="GPUs (mean of each hour)", ylim=(0, None))
    axes.set_title(f"{report['tasks']:,} notebook tasks on {report['gpus']:,} GPUs")
    axes.legend(loc="upper left")
    write_whole(path, lambda part: figure.savefig(part, dpi=150))


def _hourly(gauge: Gauge) -> tuple[list[float], list[float]]:
    """Days, and the gauge's mean over each hour."""
    sums: defaultdict[int, float] = defaultdict(float)
    at = 0.0
    value = 0.0
    for when, then in zip(gauge.times, gauge.values, strict=True):
        while at < when:
            hour = int(at // HOUR)
            until = min(when, (hour + 1) * HOUR)
            sums[hour] += value * (until - at)
            at = until
        value = then
    hours = range(max(sums, default=0) + 1)
    days = [hour / 24 for hour in hours]
    means = [sums[hour] / HOUR for hour in hours]
    return days, means
