"""Which MIG instances to create, and which unused instances to give up for them: a
decision without effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class MIGPermission:
    """Which instances an administrator lets be created when a request waits for one.

    Attributes:
        everywhere: any, on any GPU in MIG mode.
        profiles: else those that may be, by a GPU's UUID or its number.
    """

    everywhere: bool = False
    profiles: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def allows(self, device_id: str, index: int, profile: str) -> bool:
        """Whether that profile may be created on that GPU."""
        if self.everywhere:
            return True
        by_id = self.profiles.get(device_id, frozenset())
        by_index = self.profiles.get(str(index), frozenset())
        return profile in by_id or profile in by_index


@dataclass(frozen=True, kw_only=True)
class MIGPlacement:
    """A place on a GPU, in memory slices: where an instance begins and how many it
    takes.
    """

    start: int
    size: int

    def overlaps(self, other: MIGPlacement) -> bool:
        """Whether both cannot be there at once."""
        end = self.start + self.size
        return self.start < other.start + other.size and other.start < end


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
        places: where the GPU can hold such an instance.
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
        in_use: what it must stay for, as a phrase; empty when it is unused.
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
    """The steps to have an instance of each of `wanted`; those named first are served
    first.

    An unused instance that is there already is taken as it is. Else an instance is
    created where nothing is, from the far end of a GPU, so that its beginning stays
    whole for large instances; else where the fewest unused slices must be given up.
    What is in use is never touched.
    """
    gpus = [_GPU(layout) for layout in layouts]
    steps: list[MIGStep] = []
    refused: list[tuple[str, str]] = []
    for profile in wanted:
        if any(gpu.claim(profile) for gpu in gpus):
            continue
        options = [option for gpu in gpus for option in gpu.options(profile)]
        best = min(options, key=lambda option: option.cost, default=None)
        if best is None:
            refused.append((profile, _why_not(gpus, profile)))
        else:
            steps.extend(best.gpu.cut(best))
    return MIGPlan(steps=tuple(steps), refused=tuple(refused))


@dataclass(frozen=True)
class _Option:
    """A place where an instance could be created, with what would have to go.

    Attributes:
        gpu: the GPU.
        shape: what is created.
        span: where.
        removed: the unused instances in the way.
    """

    gpu: _GPU
    shape: MIGProfile
    span: MIGPlacement
    removed: tuple[GPUInstance, ...]

    @property
    def cost(self) -> tuple[int, int, int, int]:
        """Slices given up, then instances, then the GPU's number; of places alike the
        farthest.
        """
        slices = sum(instance.span.size for instance in self.removed)
        index = self.gpu.layout.index
        return slices, len(self.removed), index, -self.span.start


class _GPU:
    """A layout that changes as a plan is made.

    Attributes:
        layout: as it was.
        unused: the instances that may be taken or removed.
        fixed: where nothing may be created any more.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.unused = [each for each in layout.instances if not each.in_use]
        self.fixed = [each.span for each in layout.instances if each.in_use]

    def claim(self, profile: str) -> bool:
        """Take an unused instance of a profile; whether there was any."""
        for instance in self.unused:
            if instance.profile == profile:
                self.unused.remove(instance)
                self.fixed.append(instance.span)
                return True
        return False

    def shapes(self, profile: str) -> list[MIGProfile]:
        """The shapes of that name; variants of one size may share it."""
        return [shape for shape in self.layout.shapes if shape.name == profile]

    def options(self, profile: str) -> list[_Option]:
        """The places where an instance could be created."""
        return [
            _Option(self, shape, span, self._in_the_way(span))
            for shape in self.shapes(profile)
            for span in shape.places
            if not any(span.overlaps(fixed) for fixed in self.fixed)
        ]

    def _in_the_way(self, span: MIGPlacement) -> tuple[GPUInstance, ...]:
        return tuple(each for each in self.unused if each.span.overlaps(span))

    def cut(self, option: _Option) -> list[MIGStep]:
        """The steps of an option; what is created is taken."""
        self.unused = [each for each in self.unused if each not in option.removed]
        self.fixed.append(option.span)
        steps = [
            self._step(MIGAction.DESTROY, each.profile, each.span, each.id)
            for each in option.removed
        ]
        shape = option.shape
        created = self._step(MIGAction.CREATE, shape.name, option.span, shape.id)
        return [*steps, replace(created, gpu_slices=shape.gpu_slices)]

    def _step(
        self, action: MIGAction, profile: str, span: MIGPlacement, number: int
    ) -> MIGStep:
        return MIGStep(
            action=action,
            device_id=self.layout.device_id,
            index=self.layout.index,
            profile=profile,
            span=span,
            id=number,
        )


def _why_not(gpus: Sequence[_GPU], profile: str) -> str:
    """Why no instance of a profile can be created anywhere."""
    if not gpus:
        return "no GPU here is in MIG mode; the administrator switches it on, this never does"
    able = [gpu for gpu in gpus if gpu.shapes(profile)]
    if not able:
        shapes = [shape.name for gpu in gpus for shape in gpu.layout.shapes]
        names = ", ".join(dict.fromkeys(shapes)) or "none"
        return f"no GPU here may be cut into {profile}; there may be {names}"
    uses = [
        instance.in_use
        for gpu in able
        for instance in gpu.layout.instances
        if instance.in_use
    ]
    taken = "; ".join(dict.fromkeys(uses)) or "by what goes before it"
    return f"every place for {profile} is taken: {taken}"
