"""Scopes that keep results by name: what they keep, run again, free and refuse, whatever runs around them."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

from specc.kernels.collectives import all_reduce
from specc.kernels.saves import current, hollow, keep, kept
from specc.verify.launch import run_ranks
from tests.counting import Counting

BATCH, SEQ, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 2, 24, 4, 2, 8, 2
WIDTH = HEADS * HEAD_DIM
MASK = torch.arange(SEQ).lt(17).expand(BATCH, 1, SEQ, SEQ).tril()
Block = Callable[[Tensor, dict[str, Tensor]], Tensor]


@pytest.fixture(autouse=True)
def _nothing_stays_on() -> Iterator[None]:
    yield
    assert current.tape is None and _get_current_dispatch_mode() is None


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def weights(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    sizes = {"q": WIDTH, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM, "o": WIDTH, "last": WIDTH}
    made = {name: noise(n, WIDTH, seed=ord(name[0]), dtype=dtype) / 6 for name, n in sizes.items()}
    return {name: w.requires_grad_() for name, w in {**made, "bias": noise(WIDTH, dtype=dtype)}.items()}


def attend(x: Tensor, w: dict[str, Tensor], mask: Tensor | None = None, drop: float = 0.0) -> Tensor:
    """A layer that keeps its attention core and the projection after it; random numbers are drawn in it and later."""
    q = F.linear(x, w["q"]).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
    k = F.linear(x, w["k"]).unflatten(-1, (KV_HEADS, HEAD_DIM)).transpose(1, 2)
    v = F.linear(x, w["v"]).unflatten(-1, (KV_HEADS, HEAD_DIM)).transpose(1, 2)
    with kept("core"):
        y = F.scaled_dot_product_attention(q, k, v, mask, drop, is_causal=mask is None, enable_gqa=True)
    y = y.transpose(1, 2).flatten(2)
    with kept("o"):
        y = F.linear(y, w["o"], w["bias"])
    return x + F.linear(F.dropout(y, drop).tanh(), w["last"])


def forward(block: Block, x: Tensor, w: dict[str, Tensor], how: dict[str, Any] | None) -> Tensor:
    """Two layers; `how`: options of checkpointing, None for none."""
    for _ in range(LAYERS):
        x = block(x, w) if how is None else checkpoint(block, x, w, use_reentrant=False, **how)
    return x


FULL: dict[str, Any] = {}
KEEP: dict[str, Any] = {"context_fn": keep}


def step(
    block: Block, how: dict[str, Any] | None, dtype: torch.dtype = torch.float64
) -> tuple[list[Tensor], Counter[str], int, int]:
    """Output and all gradients, the ops that ran, and the bytes alive before and after backward."""
    torch.manual_seed(3)
    w, x = weights(dtype), noise(BATCH, SEQ, WIDTH, dtype=dtype).requires_grad_()
    with Counting() as count:
        y = forward(block, x, w, how)
        before = count.bytes
        y.square().sum().backward()
    return [y.detach(), *gradients(x, w)], count.ops, before, count.bytes


def gradients(x: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    found = [p.grad for p in (x, *w.values()) if p.grad is not None]
    assert len(found) == 1 + len(w)
    return found


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert bool(a.isfinite().all()) and torch.equal(a, b)


@contextmanager
def cast_steps() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
CAST, STEPS = partial(torch.autocast, "cpu", BF16), partial(sdpa_kernel, SDPBackend.MATH)
masked, drawing = partial(attend, mask=MASK), partial(attend, drop=0.3)
CASES: dict[str, tuple[Block, Callable[[], AbstractContextManager[Any]], torch.dtype, tuple[int, int, int]]] = {
    # the last are bytes of one number of the core, of its logsumexp, and of the projection
    "fused": (attend, nullcontext, F64, (8, 8, 8)),
    "fused f32": (attend, nullcontext, F32, (4, 4, 4)),
    "fused bf16": (attend, nullcontext, BF16, (2, 4, 2)),
    "fused masked": (masked, nullcontext, F64, (8, 8, 8)),
    "fused autocast": (attend, CAST, F32, (2, 4, 2)),
    "steps": (attend, STEPS, F64, (8, 0, 8)),
    "steps bf16": (attend, STEPS, BF16, (4, 0, 2)),  # computed in float32
    "steps masked": (masked, STEPS, F64, (8, 0, 8)),
    "steps masked autocast": (masked, cast_steps, F32, (4, 0, 2)),
    "steps drawing": (drawing, nullcontext, F64, (8, 0, 8)),
    "steps drawing bf16": (drawing, nullcontext, BF16, (4, 0, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_keeps_the_results_alone_and_runs_them_once(case: str) -> None:
    block, context, dtype, (core, logsumexp, o) = CASES[case]
    with context():
        plain, _, _, rest = step(block, None, dtype)
        full, all_ops, less, _ = step(block, FULL, dtype)
        found, ops, more, after = step(block, KEEP, dtype)
    assert_same(full, plain)
    assert_same(found, plain)
    tokens = BATCH * SEQ
    assert more - less == LAYERS * tokens * (WIDTH * core + HEADS * logsumexp + WIDTH * o)
    assert after == rest  # nothing is held after backward
    once = "_scaled_dot_product_flash_attention_for_cpu" if logsumexp else "bmm"
    assert all_ops - ops == {once: LAYERS, "addmm": LAYERS} and not ops - all_ops


def test_a_copy_of_an_operand_is_not_kept() -> None:
    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        with kept("q"):  # a linear copies what is not contiguous, and needs the copy in backward
            y = F.linear(x.transpose(0, 1), w["q"])
        return attend(x + y.transpose(0, 1).tanh(), w)

    def without(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        return attend(x + F.linear(x.transpose(0, 1), w["q"]).transpose(0, 1).tanh(), w)

    found, _, more, _ = step(block, KEEP)
    plain, _, less, _ = step(without, KEEP)
    assert_same(found, plain)
    assert_same(found, step(block, None)[0])
    assert more - less == LAYERS * BATCH * SEQ * WIDTH * 8


def copied_and_reduced(how: dict[str, Any] | None, cast: bool) -> list[Tensor]:
    tp = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))

    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        with kept("q"):
            y = all_reduce(F.linear(x.transpose(0, 1), w["q"]), tp)
        return attend(x + y.transpose(0, 1).tanh(), w)

    with torch.autocast("cpu", BF16, enabled=cast):
        return step(block, how, F32 if cast else F64)[0]


@pytest.mark.parametrize("cast", [False, True], ids=["copied", "cast"])
def test_copies_before_a_collective_are_made_again(cast: bool) -> None:
    runs = [run_ranks(2, copied_and_reduced, how, cast) for how in (KEEP, None)]
    for found, expected in zip(*runs, strict=True):
        assert_same([torch.from_numpy(x) for x in found], [torch.from_numpy(x) for x in expected])


def test_what_is_dropped_before_backward_is_freed() -> None:
    w, x = weights(), noise(BATCH, SEQ, WIDTH).requires_grad_()
    gc.disable()
    try:
        left = []
        for how in (None, FULL, KEEP):
            with Counting() as count:
                y = forward(attend, x, w, how)
                del y
            left.append(count.bytes)
    finally:
        gc.enable()
    assert left == left[:1] * 3


def test_a_graph_that_stays_holds_no_more_after_backward() -> None:
    grown = []
    for how in (FULL, KEEP):
        w, x = weights(), noise(BATCH, SEQ, WIDTH).requires_grad_()
        with Counting() as count:
            y = forward(attend, x, w, how).square().sum()
            before = count.bytes
            y.backward(retain_graph=True)
            grown.append(count.bytes - before)
    assert grown[0] == grown[1]


def test_only_the_shape_of_numbers_is_kept() -> None:
    assert bool(hollow(torch.ones(3, 4)).isnan().all()) and hollow(torch.ones(3, 4)).untyped_storage().nbytes() == 4
    assert torch.equal(hollow(torch.arange(3)), torch.arange(3))  # there is no NaN among whole numbers


def test_other_threads_have_no_part_in_it() -> None:
    seen = []

    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        thread = threading.Thread(target=lambda: seen.append(current.tape))
        thread.start()
        thread.join()
        return attend(x, w)

    step(block, KEEP)
    assert seen == [None] * 2 * LAYERS


def test_a_view_may_be_the_result() -> None:
    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        with kept("q"):
            y = F.linear(x, w["q"]).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
        return attend(x + y.cos().transpose(1, 2).flatten(2), w)

    assert_same(step(block, KEEP)[0], step(block, None)[0])


def test_changes_in_place_inside_are_part_of_the_result() -> None:
    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        with kept("q"):
            y = F.linear(x, w["q"]).add_(x)
        with kept("o"):
            z = torch.zeros_like(y).add_(y)
        with kept("k"):
            u = F.linear(F.linear(z, w["o"]).add_(w["bias"]), w["last"])
        return attend(y.tanh() * z.cos() + u.tanh(), w)

    found, ops, *_ = step(block, KEEP)
    assert_same(found, step(block, None)[0])
    assert step(block, FULL)[1]["mm"] - ops["mm"] == 2 * LAYERS  # in the last scope one mm runs again


def test_microbatches_in_flight_do_not_meet() -> None:
    inputs = [noise(BATCH, SEQ, WIDTH, seed=n) for n in range(3)]

    def run(how: dict[str, Any] | None, order: tuple[int, ...]) -> list[Tensor]:
        w = weights()
        outputs = [forward(attend, x, w, how).square().sum() for x in inputs[:2]]
        outputs[order[0]].backward()
        outputs.append(forward(attend, inputs[2], w, how).square().sum())
        for n in order[1:]:
            outputs[n].backward()
        return [p.grad for p in w.values() if p.grad is not None]

    for order in ((0, 1, 2), (1, 2, 0)):
        assert_same(run(KEEP, order), run(None, order))


def test_backward_twice_and_on_another_thread() -> None:
    w, x = weights(), noise(BATCH, SEQ, WIDTH).requires_grad_()
    forward(attend, x, w, KEEP).square().sum().backward()
    once = [grad.clone() for grad in gradients(x, w)]
    for grad in gradients(x, w):
        grad.zero_()
    y = forward(attend, x, w, KEEP).square().sum()
    y.backward(retain_graph=True)
    thread = threading.Thread(target=y.backward)
    thread.start()
    thread.join()
    assert_same(gradients(x, w), [2 * grad for grad in once])


@pytest.mark.parametrize("outer", [FULL, KEEP], ids=["full", "keep"])
@pytest.mark.parametrize("inner", [FULL, KEEP], ids=["full", "keep"])
def test_checkpointed_calls_nest(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        y = checkpoint(attend, x, w, use_reentrant=False, **inner)
        with kept("q"):
            z = F.linear(y, w["q"])
        return attend(y + z.tanh(), w)

    def plain(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        y = attend(x, w)
        return attend(y + F.linear(y, w["q"]).tanh(), w)

    assert_same(step(block, outer)[0], step(plain, None)[0])


def test_recomputation_may_end_inside() -> None:
    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        y = attend(x, w)
        with kept("end"):
            return F.linear(y, w["q"]).exp()

    found, ops, *_ = step(block, KEEP)
    assert_same(found, step(block, None)[0])
    assert ops["exp"] == LAYERS


def test_nothing_is_kept_without_gradient() -> None:
    w, x = weights(), noise(BATCH, SEQ, WIDTH)
    for context in (torch.no_grad, torch.inference_mode):
        runs = []
        for how in (None, KEEP):
            with context(), Counting() as count:
                y = forward(attend, x, w, how)
                runs.append((count.bytes, count.ops))
        assert runs[0] == runs[1] and bool(y.isfinite().all())


def test_an_error_inside_leaves_nothing_on() -> None:
    broken = True

    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        with kept("q"):
            y = F.linear(x, w["q"])
            if broken:
                raise KeyError("inside")
        return attend(y.tanh(), w)

    with pytest.raises(KeyError, match="inside"):
        step(block, KEEP)
    assert current.tape is None and _get_current_dispatch_mode() is None
    broken = False
    assert_same(step(block, KEEP)[0], step(block, None)[0])


def test_what_else_is_used_of_a_scope_is_right_too() -> None:
    """Two ops in a scope are no error: the first runs again."""

    def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        with kept("both"):
            y = F.linear(x, w["q"])
            z = F.linear(y, w["o"])
        return attend(z.tanh() * y.cos(), w)

    assert_same(step(block, KEEP)[0], step(block, None)[0])


# --- refused, as gradients would be wrong


def in_place_after(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    with kept("q"):
        y = F.linear(x, w["q"])
    y.add_(1)
    return attend(y.tanh(), w)


def in_place_on_an_operand(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    x = x * 2
    with kept("q"):
        y = F.linear(x, w["q"])
        x.add_(1)
    return attend(y.tanh() + x, w)


def changing(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    with kept("q"):
        y = F.linear(x, w["q"]) if current.tape and not current.tape.again else x.tanh()
    return attend(y.tanh(), w)


def twice(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    with kept("outer"):
        with kept("q"):
            y = F.linear(x, w["q"])
        y = y.tanh()
    return attend(y.cos(), w)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (in_place_after, "kept q: aten.mm.default .* changed in place"),
        (in_place_on_an_operand, "kept q: aten.add_.Tensor changes in place what was made outside"),
        (changing, "kept q: aten.tanh.default was aten.mm.default before"),
        (twice, "kept outer: aten.tanh.default was aten.mm.default before"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_refused(block: Block, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        step(block, KEEP)


def test_another_kernel_in_the_recomputation_is_refused() -> None:
    w, x = weights(), noise(BATCH, SEQ, WIDTH).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        y = forward(attend, x, w, KEEP)
    with pytest.raises(RuntimeError, match=r"kept core: .*flash.* was aten\.mul\.Scalar before"):
        y.sum().backward()
