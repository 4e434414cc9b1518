"""What a replay takes for granted, in plain sentences."""

from __future__ import annotations

from jupyter_aistack.core.model.units import format_bytes, format_duration

from .costs import GB
from .scenario import Scenario


def assumptions(policy: str, scenario: Scenario) -> list[str]:
    """Everything that the trace does not tell and a reader should know."""
    return [*_of_sessions(scenario), *_of_policy(policy, scenario)]


def _of_sessions(scenario: Scenario) -> list[str]:
    model = scenario.session_model
    sentences = [
        "Sessions are told from the order of the rows: one begins where a row begins before the one above it ended.",
        f"A session opens {format_duration(model.head_seconds)} before its first task on average (exponential), closes "
        f"{format_duration(model.tail_seconds)} after its last, and reserves as many GPUs as its largest task uses.",
        "Users think as long after each task as the trace says, however late it was; tasks run as long as it says.",
        f"State on each GPU is lognormal, median {_gb(model.median_bytes)}, 90th percentile {_gb(model.p90_bytes)}, "
        "cut at what a GPU holds; no public trace of notebooks tells memory (see sensitivity).",
    ]
    if model.jitter_seconds:
        sentences.append(
            f"Times of submission are spread over {model.jitter_seconds:g} s (seed {model.seed}), because the trace "
            "rounds them down; durations are taken as they are."
        )
    if model.longest_seconds < float("inf"):
        sentences.append(
            f"Tasks longer than {format_duration(model.longest_seconds)} are not replayed (batch jobs in notebooks); "
            f"long_tasks counts them, --longest 0 keeps them."
        )
    sentences.append(_unused(model.unused_share))
    return sentences


def _unused(share: float) -> str:
    if share:
        return f"Sessions that never run a task are added until they are {share:.0%} of all GPU-hours reserved."
    return (
        "Sessions that never run a task (some 70 % of reserved GPUs, says the NotebookOS paper) are left out, which "
        "favours reservation; --unused 0.7 adds them."
    )


def _of_policy(policy: str, scenario: Scenario) -> list[str]:
    costs = scenario.costs
    load = f"state is read at {costs.load_rate / GB:g} GB/s"
    shortest, longest = costs.start_seconds
    start = f"{shortest:g} to {longest:g} s"
    if policy == "reservation":
        return _of_reservation(scenario, load)
    if policy == "batch":
        return [
            f"Each task starts a container in {start}, then its {load}; it holds its GPUs meanwhile."
        ]
    if policy == "notebookos":
        return [
            "NotebookOS, in its favour: standby replicas hold no GPU; choosing one and loading its state take no time.",
            f"A task whose replicas have no free GPUs moves one: {start} for a container, then its {load}.",
        ]
    if policy == "reclaim":
        idle = scenario.idle
        return [
            f"A lease idle for {format_duration(idle.notice_seconds)} gets notice and ends after "
            f"{format_duration(idle.reclaim_seconds)}; what was on the GPU must be loaded again: {load}."
        ]
    return _of_suspend(scenario)


def _of_reservation(scenario: Scenario, load: str) -> list[str]:
    if scenario.reclaim_seconds is None:
        return [
            "A session holds its GPUs from its opening to its end, whatever it does."
        ]
    after = format_duration(scenario.reclaim_seconds)
    return [
        f"GPUs of a session idle for {after} are reclaimed; its next task asks again, and its {load}."
    ]


def _of_suspend(scenario: Scenario) -> list[str]:
    costs = scenario.costs
    number = scenario.side_by_side
    beside = "one runs at a time"
    if number > 1:
        beside = f"up to {number} run on it at once without slowing each other down"
    cap = format_bytes(scenario.host_bytes * scenario.parked_share)
    return [
        "Held is the sum over sessions of their GPUs while their state is on them, idle or not, copying included; GPUs "
        "that sessions share count once for each. gpu_hours_occupied counts each GPU once.",
        f"Suspending takes {costs.checkpoint_seconds:g} s and {costs.checkpoint_rate / GB:g} GB/s, resuming "
        f"{costs.restore_seconds:g} s and {costs.restore_rate / GB:g} GB/s on each GPU, those of a session side by "
        "side: from two published measurements of one GPU. That sessions on several GPUs can be suspended is assumed: "
        "today the driver's checkpoint is safe for kernels on one whole GPU.",
        f"A session is resumed only on the GPUs it had; sessions share a GPU while their memory fits; {beside}.",
        f"A session idle for {format_duration(scenario.park_seconds)} is suspended even if its capacity is not needed; "
        f"at most {cap} are suspended on a host of {scenario.gpus_per_host} GPUs.",
        "No checkpoint and no restore fails, and no session outgrows its budget of memory.",
    ]


def _gb(size: float) -> str:
    return f"{size / GB:g} GB"
