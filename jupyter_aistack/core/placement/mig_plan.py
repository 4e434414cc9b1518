"""Which MIG instances to create, and which unused ones to give up for them: a decision
without effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class MIGPermission:
    """Which instances an administrator lets be created when somebody waits for one.

    Attributes:
        everywhere: any, on any GPU in MIG mode.
        profiles: else those that may be, by a GPU's UUID or its number.
    """

    everywhere: bool = False
    profiles: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def allows(self, device_id: str, index: int, profile: str) -> bool:
        """Whether that profile may be created on that GPU."""
        named = self.profiles.get(device_id, frozenset()) | self.profiles.get(
            str(index), frozenset()
        )
        return self.everywhere or profile in named


@dataclass(frozen=True, kw_only=True)
class MIGPlacement:
    """A place on a GPU, in memory slices: where an instance begins and how many it
    takes.
    """

    start: int
    size: int

    def overlaps(self, other: MIGPlacement) -> bool:
        """Whether both cannot be there at once."""
        return (
            self.start < other.start + other.size
            and other.start < self.start + self.size
        )


@dataclass(frozen=True, kw_only=True)
class MIGProfile:
    """One kind of instance that a GPU can be cut into.

    Attributes:
        id: the driver's number for it, on this model of GPU.
        name: by which it is asked for, e.g. ``1g.18gb``.
        gpu_slices: its compute slices.
        memory_bytes: its memory.
        engines: its copy, decoder, encoder, JPEG and optical flow engines, which tell
            variants of one size apart.
        places: where the GPU can hold one.
    """

    id: int
    name: str
    gpu_slices: int
    memory_bytes: int = 0
    engines: tuple[int, ...] = ()
    places: tuple[MIGPlacement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GPUInstance:
    """A GPU instance that is there.

    Attributes:
        id: the driver's number for it.
        profile: the name of its shape.
        span: where it is.
        in_use: what it must stay for, as a phrase; empty when nobody uses it.
    """

    id: int
    profile: str
    span: MIGPlacement
    in_use: str = ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A GPU in MIG mode: what may be created on it, and what is there."""

    device_id: str
    index: int
    shapes: tuple[MIGProfile, ...]
    instances: tuple[GPUInstance, ...] = ()


class MIGAction(StrEnum):
    DESTROY = "destroy"
    CREATE = "create"


@dataclass(frozen=True, kw_only=True)
class MIGStep:
    """One step of a plan.

    Attributes:
        action: what to do.
        device_id: on which GPU.
        index: its number, for people.
        profile: the name of the shape.
        span: where.
        id: the shape to create, or the instance to destroy, by the driver's number.
        gpu_slices: compute slices of what is created; 0 when something is destroyed.
    """

    action: MIGAction
    device_id: str
    index: int
    profile: str
    span: MIGPlacement
    id: int
    gpu_slices: int = 0

    def __str__(self) -> str:
        return f"{self.action} {self.profile} at slice {self.span.start} of GPU {self.index}"


@dataclass(frozen=True, kw_only=True)
class MIGPlan:
    """What would be done, and for which profiles nothing can be.

    Attributes:
        steps: in this order: what is in the way of an instance goes right before it
            comes.
        refused: profile and reason, one sentence each.
    """

    steps: tuple[MIGStep, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def plan_cuts(layouts: Sequence[Layout], wanted: Sequence[str]) -> MIGPlan:
    """Make room for one instance of each of `wanted`, those named first going first.

    An unused instance that is there already is taken as it is. Else one is created
    where nothing is, from the far end of a GPU, so that its beginning stays whole for
    large ones; else where the fewest unused slices must be given up. What is in use is
    never touched.
    """
    gpus = [_GPU(layout) for layout in layouts]
    steps: list[MIGStep] = []
    refused: list[tuple[str, str]] = []
    for profile in wanted:
        if any(gpu.claim(profile) for gpu in gpus):
            continue
        best = min(
            (place for gpu in gpus for place in gpu.ways(profile)),
            key=lambda way: way.cost,
            default=None,
        )
        if best is None:
            refused.append((profile, _why_not(gpus, profile)))
        else:
            steps.extend(best.gpu.cut(best))
    return MIGPlan(steps=tuple(steps), refused=tuple(refused))


@dataclass(frozen=True)
class _Way:
    gpu: _GPU
    shape: MIGProfile
    span: MIGPlacement
    gone: tuple[GPUInstance, ...]

    @property
    def cost(self) -> tuple[int, int, int, int]:
        """Slices given up, then instances, then the GPU's number; of places alike the
        farthest.
        """
        return (
            sum(one.span.size for one in self.gone),
            len(self.gone),
            self.gpu.layout.index,
            -self.span.start,
        )


class _GPU:
    """A layout that changes as a plan is made."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.free = [one for one in layout.instances if not one.in_use]
        self.fixed = [one.span for one in layout.instances if one.in_use]

    def claim(self, profile: str) -> bool:
        """Take an unused instance that is there."""
        found = next((one for one in self.free if one.profile == profile), None)
        if found is None:
            return False
        self.free.remove(found)
        self.fixed.append(found.span)
        return True

    def shapes(self, profile: str) -> list[MIGProfile]:
        return [shape for shape in self.layout.shapes if shape.name == profile]

    def ways(self, profile: str) -> list[_Way]:
        """The places where one could be, with what would have to go."""
        spans = [
            (shape, span) for shape in self.shapes(profile) for span in shape.places
        ]
        able = [
            (shape, span)
            for shape, span in spans
            if not any(span.overlaps(other) for other in self.fixed)
        ]
        return [
            _Way(
                self, shape, span, tuple(o for o in self.free if o.span.overlaps(span))
            )
            for shape, span in able
        ]

    def cut(self, way: _Way) -> list[MIGStep]:
        """The steps of one way; what comes is spoken for."""
        self.free = [one for one in self.free if one not in way.gone]
        self.fixed.append(way.span)
        gone = [
            self._step(MIGAction.DESTROY, one.profile, one.span, one.id)
            for one in way.gone
        ]
        made = self._step(MIGAction.CREATE, way.shape.name, way.span, way.shape.id)
        return [*gone, replace(made, gpu_slices=way.shape.gpu_slices)]

    def _step(
        self, action: MIGAction, profile: str, span: MIGPlacement, number: int
    ) -> MIGStep:
        device_id = self.layout.device_id
        index = self.layout.index
        return MIGStep(
            action=action,
            device_id=device_id,
            index=index,
            profile=profile,
            span=span,
            id=number,
        )


def _why_not(gpus: Sequence[_GPU], profile: str) -> str:
    if not gpus:
        return "no GPU here is in MIG mode; the administrator switches it on, this never does"
    able = [gpu for gpu in gpus if gpu.shapes(profile)]
    if not able:
        names = ", ".join(
            dict.fromkeys(shape.name for gpu in gpus for shape in gpu.layout.shapes)
        )
        return f"no GPU here may be cut into {profile}; there may be {names or 'none'}"
    uses = dict.fromkeys(
        one.in_use for gpu in able for one in gpu.layout.instances if one.in_use
    )
    return f"every place for {profile} is taken: {'; '.join(uses) or 'by what goes before it'}"
