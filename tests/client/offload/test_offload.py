from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import jupyter_aistack as aistack
from jupyter_aistack.client.offload import tensor_state as module
from jupyter_aistack.client.offload.cuda import Cpu, Cuda
from jupyter_aistack.client.offload.tensor_state import Offload
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.suspend import host_memory
from jupyter_aistack.exceptions import InvalidRequest, LeaseError
from tests.fakes.pinned_host import PinningCpu

torch = pytest.importorskip("torch")
MIB = 1 << 20


class Tied(torch.nn.Module):  # type: ignore[misc]
    """A model with everything that is easily lost: tied weights, a buffer's view, an
    odd layout, a frozen parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(32, 32)
        self.last = torch.nn.Linear(32, 32)
        self.last.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(32)
        self.register_buffer("upper", self.norm.running_mean[16:])
        self.frozen = torch.nn.Parameter(
            torch.randn(32, 32, dtype=torch.bfloat16).t(), requires_grad=False
        )

    def forward(self, x: Any) -> Any:
        return self.last(self.norm(self.first(x))) @ self.frozen.float()


def trained(seed: int = 0, steps: int = 2) -> tuple[Tied, Any]:
    torch.manual_seed(seed)
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: Any, optimizer: Any) -> float:
    optimizer.zero_grad()
    loss = model(torch.randn(8, 32)).square().mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def everything(model: Any, optimizer: Any) -> list[Any]:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [
        t.detach().clone()
        for t in (*model.parameters(), *model.buffers(), *grads, *state)
    ]


@pytest.fixture(autouse=True)
def small_heap() -> Iterator[None]:
    """Leave what other tests have made out of the search for garbage, which each cycle
    begins with.
    """
    trained()  # torch imports more of itself at the first step
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def offload() -> Iterator[Offload]:
    with aistack.offloadable(*trained(), device="cpu") as made:
        yield made


def test_a_hundred_cycles_amid_training_change_nothing() -> None:
    plain, moved = trained(), trained()
    with aistack.offloadable(*moved, device="cpu") as offload:
        for cycle in range(100):
            torch.manual_seed(cycle)
            expected = step(*plain)
            torch.manual_seed(cycle)
            assert step(*moved) == expected
            assert offload.suspend().size_bytes == offload.resume().size_bytes > 0
    assert all(
        torch.equal(each, other)
        for each, other in zip(everything(*plain), everything(*moved), strict=True)
    )


def test_a_hundred_cycles_under_load_keep_the_state() -> None:
    expected, moved, shapes = (
        everything(*trained()),
        trained(),
        [(32, 32), (32,), (32, 32), (1,)],
    )
    stop, taken = threading.Event(), 0

    def take_what_is_freed() -> None:
        nonlocal taken
        while not stop.is_set():
            kept = [torch.full(shape, torch.nan) for shape in shapes * 20]
            taken += len(kept)

    thread = threading.Thread(target=take_what_is_freed)
    thread.start()
    try:
        with aistack.offloadable(*moved, device="cpu") as offload:
            for _ in range(100):
                with offload.suspended() as out:
                    assert out.storages > 10
                now = everything(*moved)
                assert all(
                    torch.equal(each, other)
                    for each, other in zip(expected, now, strict=True)
                )
    finally:
        stop.set()
        thread.join()
    assert taken > 100 * len(expected)


@pytest.mark.parametrize(("width", "layers"), [(4096, 3), (1024, 48), (256, 768)])
def test_its_memory_is_really_returned(width: int, layers: int) -> None:
    model = torch.nn.ModuleList(
        [torch.nn.Linear(width, width, bias=False) for _ in range(layers)]
    )
    process, size = psutil.Process(), 3 * 64 * MIB
    with aistack.offloadable(model, device="cpu") as offload:
        offload.suspend()  # the host copy stays from now on, so that only the device's memory comes and goes
        offload.resume()
        here = process.memory_info().rss
        offload.suspend()
        away = process.memory_info().rss
        offload.resume()
        back = process.memory_info().rss
    assert here - away == pytest.approx(size, abs=16 * MIB)
    assert back - away == pytest.approx(size, abs=16 * MIB)
    assert back - process.memory_info().rss == pytest.approx(size, abs=16 * MIB)


def test_a_hundred_cycles_leave_tensors_what_they_are(offload: Offload) -> None:
    model, optimizer = offload.objects

    def looks() -> list[tuple[Any, ...]]:
        state = [
            value for entry in optimizer.state.values() for value in entry.values()
        ]
        tensors = [
            *model.parameters(),
            *model.buffers(),
            *(p.grad for p in model.parameters()),
            *state,
        ]
        there = [t for t in tensors if t is not None]
        return [
            (
                id(t),
                t.untyped_storage()._cdata,
                t.dtype,
                t.shape,
                t.stride(),
                t.storage_offset(),
                t.requires_grad,
            )
            for t in there
        ]

    before, addressed = looks(), model.first.weight.untyped_storage()
    for _ in range(100):
        with offload.suspended():
            assert addressed.nbytes() == 0
    assert looks() == before
    assert model.last.weight is model.first.weight
    model.norm.running_mean[20] = 5.0
    assert model.upper[4] == 5.0
    assert model.first.weight.untyped_storage()._cdata == addressed._cdata
    assert any(
        param is model.first.weight for param in optimizer.param_groups[0]["params"]
    )


def test_what_shares_memory_goes_once_and_shares_it_again() -> None:
    base = torch.arange(1000.0)
    view, other_type, turned = (
        base[100:200],
        base.view(torch.int32),
        base.view(10, 100).t(),
    )
    unregistered, conjugate = base[5:], torch.view_as_complex(base.view(500, 2)).conj()
    with aistack.offloadable([base, view, other_type, turned], device="cpu") as offload:
        moved = offload.suspend()
        assert (moved.storages, moved.size_bytes) == (1, 4000)
        offload.resume()
    base[100] = -1.0
    assert view[0] == unregistered[95] == turned[0, 1] == -1.0
    assert other_type[100] == torch.tensor(-1.0).view(torch.int32)
    assert conjugate[50] == torch.complex(torch.tensor(-1.0), torch.tensor(-101.0))


def test_views_are_found_where_torch_does_not_count_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    base = torch.arange(100.0)
    view = base[50:]
    with aistack.offloadable(base, device="cpu").suspended():
        assert (
            view.untyped_storage()._cdata == base.untyped_storage()._cdata
        )  # on the copy, both
        assert view[0] == 50.0
    base[50] = -1.0
    assert view[0] == -1.0


def test_what_is_garbage_is_not_kept_alive_by_a_view_in_it() -> None:
    class Loop:
        def __init__(self, view: Any) -> None:
            self.view, self.own = view, self

    base = torch.arange(100.0)
    gone = weakref.ref(Loop(base[50:]))
    gc.disable()
    try:
        assert gone() is not None
        with aistack.offloadable(base, device="cpu").suspended():
            assert gone() is None
    finally:
        gc.enable()


def test_nothing_is_searched_where_torch_counts_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, held = torch.arange(100.0), []
    monkeypatch.setattr(
        module, "tensors_on", lambda storages: held.append(storages) or []
    )
    with aistack.offloadable(base, device="cpu").suspended():
        assert held == []
    view = base[50:]
    with aistack.offloadable(base, device="cpu").suspended():
        assert len(held) == 1
    del view


def test_a_graph_that_waits_for_backward_is_still_right() -> None:
    plain, moved = trained(), trained()
    for model, optimizer in (plain, moved):
        torch.manual_seed(1)
        optimizer.zero_grad(set_to_none=False)
        loss = model(torch.randn(8, 32)).square().mean()
        if model is moved[0]:
            with aistack.offloadable(model, optimizer, device="cpu").suspended():
                pass
        loss.backward()
        optimizer.step()
    assert all(
        torch.equal(each, other)
        for each, other in zip(everything(*plain), everything(*moved), strict=True)
    )


def test_who_looks_too_early_sees_values_and_what_they_write_is_kept(
    offload: Offload,
) -> None:
    model, _ = offload.objects
    view, value = model.first.bias[3:], model.first.bias[3].item()
    with offload.suspended():
        assert view[0].item() == value
        with torch.no_grad():
            model.first.bias[3] = 7.0
    assert view[0].item() == 7.0


def test_data_that_was_replaced_meanwhile_stays_replaced(offload: Offload) -> None:
    model, _ = offload.objects
    with offload.suspended():
        model.first.bias.data = torch.ones(32)
    assert torch.equal(model.first.bias, torch.ones(32))


def test_what_is_asked_twice_is_done_once(offload: Offload) -> None:
    assert offload.suspend().size_bytes > 0
    assert offload.suspend().size_bytes == 0
    assert offload.resume().size_bytes > 0
    assert offload.resume().size_bytes == 0


def test_many_threads_at_once_leave_it_whole(offload: Offload) -> None:
    before = everything(*offload.objects)
    moves = [offload.suspend, offload.resume] * 3
    threads = [
        threading.Thread(target=lambda move=move: [move() for _ in range(5)])
        for move in moves
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    offload.resume()
    assert all(
        torch.equal(each, other)
        for each, other in zip(before, everything(*offload.objects), strict=True)
    )


def test_two_registrations_may_share_a_model(offload: Offload) -> None:
    model, _ = offload.objects
    before = [p.detach().clone() for p in model.parameters()]
    with aistack.offloadable(model, device="cpu") as second:
        offload.suspend()
        second.suspend()
        offload.resume()
        second.resume()
    assert all(
        torch.equal(each, other)
        for each, other in zip(before, model.parameters(), strict=True)
    )


def test_state_that_grew_meanwhile_goes_too() -> None:
    model, optimizer = trained(steps=0)
    with aistack.offloadable(model, optimizer, device="cpu") as offload:
        first = offload.suspend().size_bytes
        offload.resume()
        step(model, optimizer)
        assert offload.suspend().size_bytes > 2.9 * (
            first - 32 * 32 * 2
        )  # gradients, and two moments


def test_no_room_on_the_device_loses_nothing_and_may_be_tried_again(
    offload: Offload,
) -> None:
    before = everything(*offload.objects)
    offload.suspend()
    last = offload._parked[-1]

    class Full:
        def resize_(self, size: int) -> None:
            if size:
                raise RuntimeError("CUDA out of memory")

    real, full = last.storage, Full()
    object.__setattr__(last, "storage", full)
    with pytest.raises(
        LeaseError, match=r"cannot resume AdamW\.state.* has too little free memory"
    ):
        offload.resume()
    assert offload.is_suspended
    assert offload._parked[0].storage.nbytes() == 0
    assert last.storage is full
    object.__setattr__(last, "storage", real)
    offload.resume()
    assert all(
        torch.equal(each, other)
        for each, other in zip(before, everything(*offload.objects), strict=True)
    )


def test_no_room_on_the_host_moves_nothing(
    offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda _: 1000)
    with pytest.raises(LeaseError, match="would not fit into the 600 B of host memory"):
        offload.suspend()
    assert not offload.is_suspended


def test_the_host_memory_that_its_server_is_set_to_is_what_it_may_take(
    offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def available(host_bytes: int | None) -> int:
        return 1000 if host_bytes is None else 1000 + host_bytes

    monkeypatch.setattr(module, "available_bytes", available)
    monkeypatch.setenv(host_memory.SHARE, "0.25")
    with pytest.raises(LeaseError, match="would not fit into the 250 B of host memory"):
        offload.suspend()
    monkeypatch.setenv(host_memory.BYTES, str(GIB))
    with offload.suspended() as moved:
        assert moved.size_bytes > 250


def test_a_host_that_gives_no_memory_moves_nothing(
    offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Cpu, size_bytes: int) -> Any:
        raise RuntimeError("cannot allocate")

    monkeypatch.setattr(Cpu, "host_buffer", refuse)
    with pytest.raises(LeaseError, match=r"the host gave no .*cannot allocate"):
        offload.suspend()
    assert not offload.is_suspended
    assert offload.objects[0].first.weight.untyped_storage().nbytes() > 0


def test_what_cannot_be_moved_is_named_and_nothing_moves() -> None:
    import numpy as np

    good, foreign = torch.ones(4), torch.from_numpy(np.ones(4))
    with pytest.raises(
        LeaseError,
        match=r"cannot suspend dict\.theirs: its memory belongs to another library",
    ):
        aistack.offloadable({"mine": good, "theirs": foreign}, device="cpu").suspend()
    with pytest.raises(LeaseError, match="cannot suspend Tensor: it is sparse"):
        aistack.offloadable(torch.eye(3).to_sparse(), device="cpu").suspend()
    assert good.untyped_storage().nbytes() == 16


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ((), "nothing was given"),
        ((torch.ones(1), "model"), "object 2: a str cannot be moved"),
    ],
)
def test_bad_input_is_told_apart(objects: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        aistack.offloadable(*objects)
    with pytest.raises(InvalidRequest, match="device: 'tpu' is not known"):
        aistack.offloadable(torch.ones(1), device="tpu")


def test_without_a_gpu_there_is_nothing_to_move_and_cuda_is_not_started() -> None:
    assert aistack.offloadable(torch.ones(3)).suspend().size_bytes == 0
    assert not torch.cuda.is_initialized()


def test_garbage_on_a_gpu_is_looked_for_where_it_may_be_worth_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = 64 * MIB
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: held)
    assert not Cuda().has_more([64 * MIB])
    assert not Cuda().has_more([4] * (held // 512))  # each takes a block
    held = 66 * MIB
    assert Cuda().has_more([64 * MIB])


def test_a_cuda_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    assert Cuda().why_not() == ""
    alive = Graph()
    with pytest.raises(LeaseError, match="a CUDA graph lives in this process"):
        aistack.offloadable(torch.ones(3)).suspend()
    del alive


def test_host_memory_is_let_go_where_it_is_not_to_be_kept() -> None:
    tensor = torch.ones(1000)
    kept, dropped = (
        aistack.offloadable(tensor, device="cpu", keep_host=keep)
        for keep in (True, False)
    )
    for offload in (kept, dropped):
        with offload.suspended():
            assert offload.host_bytes >= 4000
    assert kept.host_bytes >= 4000
    assert dropped.host_bytes == 0
    kept.close()
    assert kept.host_bytes == 0


@pytest.mark.parametrize("sizes", [[1_210_318], [700_000, 300_000, 40], [5] * 100])
def test_pinned_memory_is_what_was_counted_to_the_byte(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = PinningCpu()
    tensors = [torch.ones(size, dtype=torch.uint8) for size in sizes]
    offload = Offload((tensors,), device, keep_host=True)
    missing = offload._arena.missing_bytes(sizes)
    # The share of what is available that may be used is 60 %.
    monkeypatch.setattr(module, "available_bytes", lambda _: missing * 5 // 3 - 2)
    with pytest.raises(LeaseError, match="would not fit"):
        offload.suspend()
    assert device.taken == 0
    monkeypatch.setattr(module, "available_bytes", lambda _: missing * 5 // 3 + 2)
    with offload.suspended():
        assert device.taken == offload.host_bytes == missing
        assert missing < 2 * max(sum(sizes), 64 * len(sizes))
    assert all(torch.equal(each, torch.ones_like(each)) for each in tensors)
    offload.close()


def test_small_storages_fill_what_a_large_one_leaves_of_its_block() -> None:
    device = PinningCpu()
    tensors = [torch.ones(size, dtype=torch.uint8) for size in (1000, 700_000, 300_000)]
    with Offload((tensors,), device, keep_host=True) as offload, offload.suspended():
        assert device.taken == 1 << 20


@pytest.mark.parametrize("end", ["resume", "close", "forget", "refused"])
def test_pinned_memory_is_given_back(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = PinningCpu()
    model, _ = trained()
    offload = Offload((model,), device, keep_host=end != "resume")
    offload.suspend()
    offload.resume()
    if end == "close":
        offload.close()
    elif end == "forget":
        del offload
        gc.collect()
    elif end == "refused":
        model.more = torch.nn.Linear(2000, 600)
        monkeypatch.setattr(device, "host_buffer", _refuse)
        with pytest.raises(LeaseError, match="the host gave no"):
            offload.suspend()
    assert device.taken == 0


def _refuse(size_bytes: int) -> Any:
    raise RuntimeError("cannot allocate")


def test_torch_is_told_to_let_pinned_memory_go(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.accelerator, "empty_host_cache", lambda: emptied.append(True)
    )
    Cuda().give_back_host()
    assert emptied == [True]
    assert Cuda().host_block_bytes(1_210_318_848) == 2_147_483_648
    assert Cuda().host_block_bytes(64 << 20) == 64 << 20
