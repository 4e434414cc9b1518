"""How busy each lease kept its GPU since the last look, and the GPU's energy counter.

Activity is the share of a GPU's multiprocessors that worked. Where the driver has GPM
(Hopper and later) it says so of each GPU and MIG instance; elsewhere the share of time
in which a process had a kernel running (``smUtil``) is the best there is. Several
processes on one GPU are told apart by ``smUtil`` alone, which the driver does not have
on MIG.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from jupyter_aistack.core.accounting.attribution import ProcessLoad
from jupyter_aistack.core.model.device import Device, Enforcement, Slice
from jupyter_aistack.core.model.lease import Lease

from . import mig
from .gpm import GPM
from .nvml import NVML
from .usage import SAMPLE_SECONDS, UsageReader


class LoadSampler:
    """Looks at GPUs again and again; what it says is of the time between two looks.

    Args:
        nvml: the connection to the driver.
    """

    def __init__(self, nvml: NVML) -> None:
        self._nvml = nvml
        self._gpm = GPM(nvml)
        self._looked_at: float | None = None

    def look(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        now: float,
    ) -> dict[str, ProcessLoad]:
        """The load of each GPU; what the driver cannot tell is missing from it.

        Args:
            devices: the GPUs to look at.
            leases: the leases on them, also those that ended since the last look.
            pids: the processes of each lease; of one that is missing they are not
                known.
            now: seconds since the epoch.
        """
        before = self._looked_at
        self._looked_at = now
        span = SAMPLE_SECONDS if before is None or now <= before else now - before
        reading = UsageReader(self._nvml, now, span)
        activity = self._gpm.look(devices.values())
        return {
            i: self._load(device, leases, pids, reading, activity)
            for i, device in devices.items()
        }

    def _load(
        self,
        device: Device,
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        reading: UsageReader,
        activity: Mapping[str, float],
    ) -> ProcessLoad:
        pieces = {
            i: [p for p in lease.slices if p.device_id == device.id]
            for i, lease in leases.items()
        }
        pieces = {i: own for i, own in pieces.items() if own}
        memory = {
            i: reading.of_processes(own, pids[i]).memory_bytes
            for i, own in pieces.items()
            if i in pids
        }
        if device.mig_enabled:
            busy, others = by_instance(device, pieces, activity)
        else:
            samples = reading.busy(device.id)
            by_mps = {
                i
                for i in pieces
                if (level := leases[i].enforced_by) is not None and level.is_by_mps
            }
            known = {i: pids[i] for i in pieces if i in pids}
            busy, others = by_process(samples, known, by_mps, activity.get(device.id))
        return ProcessLoad(
            millijoules=reading.millijoules(device.id),
            busy=busy,
            others=others,
            memory={i: held for i, held in memory.items() if held is not None},
        )


def by_process(
    samples: Mapping[int, float] | None,
    pids: Mapping[str, frozenset[int]],
    by_mps: frozenset[str] | set[str] = frozenset(),
    whole: float | None = None,
) -> tuple[dict[str, float], float | None]:
    """Activity of each lease, and of all other processes, on one GPU.

    Args:
        samples: share of time each process was busy; None where the driver does not
            tell.
        pids: the processes of each lease.
        by_mps: leases behind an MPS server. NVIDIA's MPS documentation has tools count
            what clients do as the server's: where a stranger works and such a lease
            does not, it may be the one that works, and is not known.
        whole: the activity of the GPU's multiprocessors, if it is known; it is divided
            as the samples are.
    """
    if samples is None:
        return {}, None
    shares = {
        i: sum(share for pid, share in samples.items() if pid in own)
        for i, own in pids.items()
    }
    ours = frozenset().union(*pids.values())
    others = sum(share for pid, share in samples.items() if pid not in ours)
    total = sum(shares.values()) + others
    # Shares of time may add up to more than one: processes take turns within a sample.
    scale = 1.0 if total <= 0 else min(1.0, total if whole is None else whole) / total
    if total <= 0 and whole is not None:
        others = min(1.0, whole)
        scale = 1.0
    hidden = {
        i for i, share in shares.items() if share == 0 and others > 0 and i in by_mps
    }
    return {
        i: share * scale for i, share in shares.items() if i not in hidden
    }, others * scale


def by_instance(
    device: Device, pieces: Mapping[str, Sequence[Slice]], activity: Mapping[str, float]
) -> tuple[dict[str, float], float | None]:
    """The same on a GPU that is cut into MIG instances, each with its activity and its
    multiprocessors.

    Compute instances of one GPU instance share one figure and cannot be told apart;
    theirs goes to the others.
    """
    total = sum(instance.multiprocessors for instance in device.mig)
    if not total or any(instance.uuid not in activity for instance in device.mig):
        return {}, None
    holders = Counter(piece.uuid for held in pieces.values() for piece in held)
    worked = {
        i.uuid: min(1.0, activity[i.uuid]) * i.multiprocessors / total
        for i in device.mig
    }
    parts = {
        i.uuid
        for i in device.mig
        if mig.enforcement(i.gpu_slices, i.compute_slices) is not Enforcement.L4
    }
    own = {lease: [piece.uuid for piece in held] for lease, held in pieces.items()}
    known = {
        lease: ids
        for lease, ids in own.items()
        if not parts & set(ids) and set(ids) <= worked.keys()
    }
    # One lease may have ended since the last look and another begun on the same
    # instance.
    busy = {
        lease: sum(worked[uuid] / holders[uuid] for uuid in ids)
        for lease, ids in known.items()
    }
    return busy, max(0.0, sum(worked.values()) - sum(busy.values()))
