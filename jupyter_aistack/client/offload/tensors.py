"""Every tensor of what a user registers, by a name that the user knows."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest


def check(objects: tuple[Any, ...]) -> None:
    """Raise unless each of `objects` is something whose tensors can be found.

    Raises:
        InvalidRequest: naming the first that is not.
    """
    import torch

    if not objects:
        raise InvalidRequest(
            "objects: nothing was given; write offloadable(model, optimizer)",
            field="objects",
        )
    for number, thing in enumerate(objects, 1):
        if not isinstance(
            thing,
            (
                torch.nn.Module,
                torch.optim.Optimizer,
                torch.Tensor,
                Mapping,
                list,
                tuple,
            ),
        ):
            raise InvalidRequest(
                f"object {number}: a {type(thing).__name__} cannot be moved; give modules, optimizers, tensors, "
                "or lists and dictionaries of them",
                field="objects",
            )


def named_tensors(objects: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Each tensor that `objects` hold now, as ``("Linear.weight", tensor)``; a tensor
    that two hold comes twice.
    """
    for thing in objects:
        yield from _walk(type(thing).__name__, thing, set())


def _walk(name: str, thing: Any, above: set[int]) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(thing, torch.Tensor):
        yield name, thing
        if thing.is_leaf and thing.grad is not None:
            yield f"{name}.grad", thing.grad
        return
    if id(thing) in above:
        return  # a list that holds itself
    for key, part in _parts(thing):
        yield from _walk(f"{name}.{key}", part, above | {id(thing)})


def _parts(thing: Any) -> Iterator[tuple[Any, Any]]:
    import torch

    if isinstance(thing, torch.nn.Module):
        yield from thing.named_parameters(remove_duplicate=False)
        yield from thing.named_buffers(remove_duplicate=False)
    elif isinstance(thing, torch.optim.Optimizer):
        for number, group in enumerate(thing.param_groups):
            yield f"param_groups[{number}]", group
        for number, state in enumerate(thing.state.values()):
            yield f"state[{number}]", state
    elif isinstance(thing, Mapping):
        yield from thing.items()
    elif isinstance(thing, (list, tuple)):
        yield from enumerate(thing)


def tensors_on(storages: set[int]) -> list[Any]:
    """Every tensor Python knows whose storage (by its C address) is one of `storages`:
    views that were not registered too.
    """
    import torch

    return [tensor for tensor in alive(torch.Tensor) if storage_key(tensor) in storages]


def alive(kind: type) -> list[Any]:
    """Every object of a class, or of a subclass, that Python's search for garbage
    knows of.

    The classes are collected once: a notebook has hundreds of thousands of objects.
    """
    kinds = set(_kinds(kind))
    return [thing for thing in gc.get_objects() if type(thing) in kinds]


def _kinds(kind: type) -> Iterator[type]:
    """A class and all that are made from it."""
    yield kind
    below: list[type] = type.__subclasses__(kind)
    for kind_below in below:
        yield from _kinds(kind_below)


def has_others(storage: Any, known: int) -> bool:
    """Whether more than `known` tensors may stand on a storage; the search for them can
    be left out when not.

    torch counts the references to a storage: each tensor once, and the object given
    here. What it saved for a backward pass counts too, and a torch that does not count
    (before 2.1) leaves it open: both are a yes.
    """
    import torch

    count = getattr(torch._C, "_storage_Use_Count", None)
    return count is None or count(storage._cdata) != known + 1


def storage_key(tensor: Any) -> int | None:
    """What two tensors that share memory have in common; None for a tensor without
    plain memory of its own.
    """
    try:
        key: int = tensor.untyped_storage()._cdata
    except (
        RuntimeError,
        NotImplementedError,
    ):  # sparse, or a wrapper around other tensors
        return None
    return key


def why_not(tensor: Any) -> str:
    """Why a tensor cannot be moved; empty when it can be."""
    import torch
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if is_traceable_wrapper_subclass(tensor):
        return f"it is a {type(tensor).__name__}, which keeps its data in other tensors"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "it is sparse or quantized"
    if not tensor.untyped_storage().resizable():
        return "its memory belongs to another library or process"
    return ""
