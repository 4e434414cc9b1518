"""What a notebook should ask for next time, derived from what it has used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.broker.host_state import HostState
from jupyter_aistack.core.accounting.charges import SYSTEM, UsageRecord, day_of
from jupyter_aistack.core.accounting.rightsizing import (
    HISTORY_DAYS,
    Advice,
    SizeOption,
    advise,
    sizes,
)
from jupyter_aistack.core.model.device import Device, DeviceKind
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.exceptions import AIStackError


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose usage is meant.

    Attributes:
        user: login name.
        id: the kernel, or the process, that used it.
        label: the notebook; empty where none is known.
    """

    user: str
    id: str
    label: str

    def as_filter(self, *, by_notebook: bool) -> dict[str, str]:
        """The fields by which the ledger finds the usage: of the notebook over all its
        kernels, or of this kernel only.
        """
        if by_notebook and self.label:
            return {"user": self.user, "label": self.label}
        return {"user": self.user, "owner": self.id}


RECENT_SECONDS = 10.0
"""Usage is written down every ten seconds; sooner there is nothing new to advise by."""
MOST_OWNERS = 256


class Advisor:
    """Advises on sizes, on the devices of one host.

    Args:
        host_state: provides the devices, and what was used.
    """

    def __init__(self, host_state: HostState) -> None:
        self._host_state = host_state
        self._given: dict[Owner, tuple[float, Advice]] = {}

    def for_owner(self, owner: Owner) -> Advice:
        """Advice for a notebook, or for a kernel without a notebook."""
        history = self._history(**owner.as_filter(by_notebook=True))
        return self._advice(owner.label or owner.id, history)

    def for_all(self, user: str) -> list[Advice]:
        """Advice for each of a user's notebooks, by name."""
        labels = {
            record.label
            for record in self._history(user=user)
            if record.lease_id != SYSTEM
        }
        return [
            self._advice(label, self._history(user=user, label=label))
            for label in sorted(labels - {""})
        ]

    def on_request(self, spec: Spec, owner: Owner) -> str | None:
        """A line for who asks for another size than their notebook has needed; None for
        nothing to say.

        A failure is not passed on: a request must not be refused for want of advice.
        """
        with suppress(AIStackError):
            advice = self._recent(owner)
            is_other = bool(advice.advised) and advice.advised != str(spec)
            if is_other and self._applies_to(advice, spec):
                return f"this notebook {advice.text}"
        return None

    def _recent(self, owner: Owner) -> Advice:
        """Advice at most `RECENT_SECONDS` old: a notebook that asks again and again must
        not have its whole history read each time.
        """
        now = self._host_state.now()
        at, advice = self._given.get(owner, (now, None))
        if advice is None or not 0 <= now - at < RECENT_SECONDS:
            advice = self.for_owner(owner)
            if len(self._given) >= MOST_OWNERS:
                self._given.clear()
            self._given[owner] = (now, advice)
        return advice

    def _applies_to(self, advice: Advice, spec: Spec) -> bool:
        """Whether the advice, made from another spec, is true of this spec too."""
        asked = self._share(spec)
        advised = self._shares().get(advice.advised)
        if asked is None or advised is None:
            return False
        return advised < asked if advice.verdict == "less" else advised > asked

    def _share(self, spec: Spec) -> Fraction | None:
        """The share of a device that a spec asks for; None where none is known."""
        match spec.unit:
            case Unit.FRACTION:
                return spec.amount
            case Unit.DEVICES:
                return Fraction(1)
            case Unit.PROFILE:
                return self._shares().get(spec.profile)
            case Unit.MEMORY:
                largest = max((gpu.memory_bytes for gpu in self._gpus()), default=0)
                return Fraction(spec.amount) / largest if largest else None
        return None

    def _shares(self) -> dict[str, Fraction]:
        """The share of a device that each size here has, by the size's name."""
        return {
            size.name: size.share for gpu in self._gpus() for size in _sizes_of(gpu)
        }

    def _advice(self, label: str, history: Sequence[UsageRecord]) -> Advice:
        device = self._device_of(history)
        if device is None:
            return Advice(
                label=label,
                verdict="unknown",
                asked="",
                text="no advice yet: this host has no GPU",
            )
        return advise(label, history, _sizes_of(device), device.memory_bytes)

    def _device_of(self, history: Sequence[UsageRecord]) -> Device | None:
        """The GPU that was used last, or any where that is gone."""
        gpus = {gpu.id: gpu for gpu in self._gpus()}
        last = max(history, key=lambda record: record.day, default=None)
        if last is not None and last.device_id in gpus:
            return gpus[last.device_id]
        return next(iter(gpus.values()), None)

    def _history(self, **owner: str) -> tuple[UsageRecord, ...]:
        today = day_of(self._host_state.now())
        return self._host_state.ledger.charges(today - HISTORY_DAYS, today, **owner)

    def _gpus(self) -> tuple[Device, ...]:
        return self._host_state.inventory().of_kind(DeviceKind.GPU)


def _sizes_of(device: Device) -> tuple[SizeOption, ...]:
    if device.is_shareable:
        return sizes(device.memory_bytes)
    whole = max(device.memory_bytes, 1)
    by_profile = {instance.profile: instance for instance in device.mig}
    return tuple(
        SizeOption(
            name=profile,
            share=Fraction(instance.memory_bytes, whole),
            memory_bytes=instance.memory_bytes,
        )
        for profile, instance in by_profile.items()
    )
