"""Attention inside groups of a token grid, without the linear layers, as PyTorch users have it.

Every peer is timed with the copies it needs, and there are two places to start from:

* "windows": what a Swin block gives. The peer takes one channels-wide tensor from the token grid into windows (roll,
  partition) and brings the output back, as the block does before the qkv projection and after the attention. q plays
  that tensor; k and v lie in windows already, at no cost, as the projection leaves them.
* "packed": what a model with its projection in the grid gives. The peer takes qkv from the token grid into groups and
  heads in one copy (two with a shift), and brings the output back in one (two).

vtfast takes q, k and v packed in the grid's own layout in both, and copies nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from vtfast import ops, reference, use_backend
from vtfast.bench.measure import NotSupportedError, Outputs, Way
from vtfast.bench.shapes import Triple, WindowShape
from vtfast.reference.grid_attention import relative_position_bias

MODES = ("forward", "forward + backward")

SDPA_BACKENDS = {
    "SDPA math": SDPBackend.MATH,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
}

Heads = tuple[Tensor, Tensor, Tensor]
Core = Callable[..., Tensor]  # (*activations, table if there is one) -> [B, T, H, W, C]


@dataclass(frozen=True)
class Start:
    """Where a peer starts from.

    Args:
        activations: of qkv [B, T, H, W, 3*C], what the peer is given.
        heads: of the activations, q, k and v, each [B*G, heads, N, D].
        to_grid: of the result [B*G, heads, N, D], what the peer returns, [B, T, H, W, C].
        d_qkv: of the gradients of the activations, that of qkv.
        makes_mask: whether the peer builds its shift mask in each call, as torchvision does.
    """

    activations: Callable[[Tensor, WindowShape], tuple[Tensor, ...]]
    heads: Callable[[WindowShape, tuple[Tensor, ...]], Heads]
    to_grid: Callable[[Tensor, WindowShape], Tensor]
    d_qkv: Callable[[tuple[Tensor, ...], WindowShape], Tensor]
    makes_mask: bool


@dataclass(frozen=True)
class CoreInputs:
    """The same numbers for everybody.

    Args:
        shape: the sizes.
        start: where the peers start from.
        qkv: [B, T, H, W, 3*C], for vtfast and the reference.
        activations: what the peers are given of it.
        table: [offsets, num_heads], float32 as parameters are under autocast; every peer rounds the bias to its dtype.
            None for a shape without bias.
        grad_out: [B, T, H, W, C].
    """

    shape: WindowShape
    start: Start
    qkv: Tensor
    activations: tuple[Tensor, ...]
    table: Tensor | None
    grad_out: Tensor

    @staticmethod
    def make(
        shape: WindowShape, dtype: torch.dtype, requires_grad: bool, start: str = "windows", device: str = "cpu"
    ) -> "CoreInputs":
        """Standard normal numbers; leaves of a graph if `requires_grad`."""
        generator = torch.Generator(device).manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, device=device)

        qkv = normal(shape.batch, *shape.grid, 3 * shape.channels).to(dtype)
        table = normal(*shape.table_shape) if shape.bias else None
        grad_out = normal(shape.batch, *shape.grid, shape.channels).to(dtype)
        activations = STARTS[start].activations(qkv, shape)
        inputs = CoreInputs(shape, STARTS[start], qkv, activations, table, grad_out)
        for tensor in (qkv, *inputs.leaves):
            tensor.requires_grad_(requires_grad)
        return inputs

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What a peer is given."""
        return self.activations if self.table is None else (*self.activations, self.table)


def reference_outputs(shape: WindowShape, dtype: torch.dtype, mode: str, device: str = "cpu") -> Outputs:
    """Output, and with the backward the gradients of qkv and table, of vtfast's specification in float64.

    As many clips at a time as have 1 GiB of scores.
    """
    backward = mode != "forward"
    inputs = CoreInputs.make(shape, dtype, backward, device=device)
    table = None if inputs.table is None else inputs.table.detach().double().requires_grad_(backward)
    clips = max(1, 2**27 * shape.batch // (shape.num_tokens * shape.group_size * shape.num_heads))
    outs, d_qkvs = [], []
    for part, grad_out in zip(inputs.qkv.split(clips), inputs.grad_out.split(clips), strict=True):
        qkv = part.detach().double().requires_grad_(backward)
        out = reference.grid_attention(
            qkv, shape.grid, num_heads=shape.num_heads, block=shape.window, shift=shape.shift, bias_table=table
        )
        outs.append(out.detach())
        if backward:
            out.backward(grad_out.double())
            assert qkv.grad is not None
            d_qkvs.append(qkv.grad)
    grads = [torch.cat(d_qkvs)] if backward else []
    if backward and table is not None and table.grad is not None:
        grads.append(table.grad)
    return (torch.cat(outs), *grads)


def core_ways(
    shape: WindowShape,
    dtype: torch.dtype,
    mode: str,
    names: Sequence[str],
    start: str = "windows",
    device: str = "cpu",
) -> list[Way]:
    """The ways of `names` on the same numbers: "vtfast", "compile", or a key of `_CORES`, also with " compiled"."""
    inputs = CoreInputs.make(shape, dtype, mode != "forward", start, device)
    return [vtfast_way(inputs, mode) if name == "vtfast" else _peer(name, inputs, mode) for name in names]


def vtfast_way(inputs: CoreInputs, mode: str, name: str = "vtfast", threads: int | None = None) -> Way:
    """The compiled `vtfast.ops.grid_attention`; in the mode "backward" its backward alone, on a graph that is kept."""
    shape = inputs.shape
    leaves = [leaf for leaf in (inputs.qkv, inputs.table) if leaf is not None]

    def core() -> Tensor:
        with use_backend("native"):
            return ops.grid_attention(
                inputs.qkv,
                shape.grid,
                num_heads=shape.num_heads,
                block=shape.window,
                shift=shape.shift,
                bias_table=inputs.table,
            )

    if mode == "forward":
        return Way(name, torch.no_grad()(core), lambda out: (out,), threads)
    if mode == "forward + backward":
        return Way(name, lambda: step(core, leaves, inputs.grad_out), lambda returned: returned, threads)
    out = core()

    def backward() -> Outputs:
        return (out, *torch.autograd.grad(out, leaves, inputs.grad_out, retain_graph=True))

    return Way(name, backward, lambda returned: returned, threads)


def eager_core(inputs: CoreInputs, mode: str) -> Core:
    """What torchvision's `shifted_window_attention_3d` does between and around its two linear layers.

    In order: roll, partition, scale, q k^T, table look-up and bias, mask, softmax, product with v, merge, roll back.
    """
    shape, index, start = inputs.shape, _table_index(inputs), inputs.start
    mask = None if start.makes_mask else _shift_mask(inputs)

    def core(*leaves: Tensor) -> Tensor:
        activations, table = _split(leaves, inputs)
        q, k, v = start.heads(shape, activations)
        scores = (q * shape.head_dim**-0.5) @ k.transpose(-2, -1)
        if table is not None:
            scores = scores + table[index].permute(2, 0, 1).contiguous().to(q.dtype)
        if any(shape.shift):
            added = (_shift_mask(inputs) if mask is None else mask)[:, None]  # [G, 1, N, N]
            scores = (scores.unflatten(0, (-1, shape.num_groups)) + added).flatten(0, 1)
        return start.to_grid(scores.softmax(dim=-1) @ v, shape)

    return core


def sdpa_core(inputs: CoreInputs, mode: str) -> Core:
    """`scaled_dot_product_attention` with bias and mask as one 4-D tensor.

    In the forward the tensor is prebuilt, at no cost. With a backward the table needs its gradient, so the tensor is
    gathered from it in every step.
    """
    shape, index, start = inputs.shape, _table_index(inputs), inputs.start
    prebuilt = None if inputs.table is None else _bias_and_mask(inputs, inputs.table.detach(), index)

    def core(*leaves: Tensor) -> Tensor:
        activations, table = _split(leaves, inputs)
        added = prebuilt if mode == "forward" or table is None else _bias_and_mask(inputs, table, index)
        heads = start.heads(shape, activations)
        if added is None or added.shape[0] == 1 or shape.batch == 1:
            return start.to_grid(F.scaled_dot_product_attention(*heads, attn_mask=added), shape)
        # The groups of a clip stand beside its heads, so that one mask serves all clips.
        q, k, v = (x.unflatten(0, (-1, shape.num_groups)).flatten(1, 2) for x in heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=added.flatten(0, 1)[None])
        return start.to_grid(out.unflatten(1, (-1, shape.num_heads)).flatten(0, 1), shape)

    return core


def flex_core(inputs: CoreInputs, mode: str) -> Core:
    """Compiled FlexAttention whose `score_mod` looks bias and mask up in one prebuilt tensor.

    On the CPU, looking the bias up in the table and the mask in the tokens' regions needs less memory, but takes
    longer: 1.4 x without shift, 6 x with it. The faster one is the peer.
    """
    shape, start, compiled = inputs.shape, inputs.start, torch.compile(flex_attention, dynamic=False)
    assert inputs.table is not None
    prebuilt = _bias_and_mask(inputs, inputs.table.detach(), _table_index(inputs)).float().contiguous()
    groups = prebuilt.shape[0]

    def add_bias_and_mask(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + prebuilt[b % groups, h, i, j]

    def core(*leaves: Tensor) -> Tensor:
        if mode != "forward":
            raise NotSupportedError("the prebuilt tensor gives the table no gradient")
        q, k, v = start.heads(shape, _split(leaves, inputs)[0])
        return start.to_grid(compiled(q.contiguous(), k, v, score_mod=add_bias_and_mask), shape)

    return core


def flex_bias_core(inputs: CoreInputs, mode: str) -> Core:
    """FlexAttention with the bias of every pair of slots in a tensor, and the mask by the slots' regions."""
    index = _table_index(inputs)
    prebuilt = None if inputs.table is None else inputs.table.detach()[index].permute(2, 0, 1).contiguous()

    def bias_of(table: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        pairs = prebuilt if mode == "forward" else table[index].permute(2, 0, 1).contiguous()  # [heads, N, N]
        return lambda h, i, j: pairs[h, i, j]

    return _flex_by_region(inputs, bias_of)


def flex_table_core(inputs: CoreInputs, mode: str) -> Core:
    """FlexAttention that gathers each bias from the table itself, and the mask by the slots' regions."""
    index = _table_index(inputs)
    # The row of two slots is a difference of their places plus that of a slot with itself.
    place, middle = index[:, 0] - index[0, 0], int(index[0, 0])

    def bias_of(table: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda h, i, j: table[place[i] - place[j] + middle, h]

    return _flex_by_region(inputs, bias_of)


def _flex_by_region(inputs: CoreInputs, bias_of: Callable[[Tensor], Callable[..., Tensor]]) -> Core:
    shape, start = inputs.shape, inputs.start
    regions, groups = _regions(inputs) if any(shape.shift) else None, shape.num_groups

    def core(*leaves: Tensor) -> Tensor:
        activations, table = _split(leaves, inputs)
        bias = None if table is None else bias_of(table)

        def modify(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            if bias is not None:
                score = score + bias(h, i, j)
            if regions is None:
                return score
            return torch.where(regions[b % groups, i] == regions[b % groups, j], score, -float("inf"))

        q, k, v = start.heads(shape, activations)
        return start.to_grid(flex_attention(q, k, v, score_mod=modify), shape)

    return core


_CORES: dict[str, Callable[[CoreInputs, str], Core]] = {
    "eager": eager_core,
    "compile": eager_core,
    "SDPA": sdpa_core,
    **dict.fromkeys(SDPA_BACKENDS, sdpa_core),
    "FlexAttention": flex_core,
    "FlexAttention, bias": flex_bias_core,
    "FlexAttention, table": flex_table_core,
}


def partition(x: Tensor, window: Triple, shift: Triple) -> Tensor:
    """[B, T, H, W, C] -> [B*G, N, C], rolled."""
    t, h, w = window
    return rearrange(_rolled(x, shift, -1), "b (nt t) (nh h) (nw w) c -> (b nt nh nw) (t h w) c", t=t, h=h, w=w)


def merge(x: Tensor, shape: WindowShape) -> Tensor:
    """The inverse of `partition`."""
    (t, h, w), (nt, nh, nw) = shape.window, _groups(shape)
    x = rearrange(
        x, "(b nt nh nw) (t h w) c -> b (nt t) (nh h) (nw w) c", nt=nt, nh=nh, nw=nw, t=t, h=h, w=w
    )  # fmt: skip
    return _rolled(x, shape.shift)


def _from_windows(qkv: Tensor, shape: WindowShape) -> tuple[Tensor, ...]:
    """Q in the grid, kv rolled and in windows."""
    kv = partition(qkv[..., shape.channels :], shape.window, shape.shift)
    return qkv[..., : shape.channels].contiguous(), kv.contiguous()


def _heads_of_windows(shape: WindowShape, activations: tuple[Tensor, ...]) -> Heads:
    q, kv = activations
    q = partition(q, shape.window, shape.shift).unflatten(-1, (shape.num_heads, shape.head_dim)).transpose(1, 2)
    k, v = kv.unflatten(-1, (2, shape.num_heads, shape.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _windows_to_grid(x: Tensor, shape: WindowShape) -> Tensor:
    """By way of [B*G, N, C], which the output projection needs."""
    return merge(x.transpose(1, 2).flatten(2), shape).contiguous()


def _d_qkv_of_windows(grads: tuple[Tensor, ...], shape: WindowShape) -> Tensor:
    d_q, d_kv = grads
    return torch.cat([d_q, merge(d_kv, shape)], dim=-1)


def _heads_of_packed(shape: WindowShape, activations: tuple[Tensor, ...]) -> Heads:
    (t, h, w), (qkv,) = shape.window, activations
    q, k, v = rearrange(
        _rolled(qkv, shape.shift, -1), "b (nt t) (nh h) (nw w) (three heads d) -> three (b nt nh nw) heads (t h w) d",
        t=t, h=h, w=w, three=3, heads=shape.num_heads,
    ).unbind(0)  # fmt: skip
    return q, k, v


def _packed_to_grid(x: Tensor, shape: WindowShape) -> Tensor:
    (t, h, w), (nt, nh, nw) = shape.window, _groups(shape)
    x = rearrange(
        x, "(b nt nh nw) heads (t h w) d -> b (nt t) (nh h) (nw w) (heads d)", nt=nt, nh=nh, nw=nw, t=t, h=h, w=w
    )  # fmt: skip
    return _rolled(x, shape.shift).contiguous()


STARTS = {
    "windows": Start(_from_windows, _heads_of_windows, _windows_to_grid, _d_qkv_of_windows, makes_mask=True),
    "packed": Start(
        lambda qkv, shape: (qkv,),
        _heads_of_packed,
        _packed_to_grid,
        lambda grads, shape: grads[0],
        makes_mask=False,
    ),
}


def _peer(name: str, inputs: CoreInputs, mode: str) -> Way:
    leaves, number = inputs.leaves, len(inputs.activations)
    base = name.removesuffix(" compiled")
    core = _CORES[base](inputs, mode)
    if name != base or name == "compile":
        core = torch.compile(core, dynamic=False)

    def outputs(returned: Outputs) -> Outputs:
        out, *grads = returned
        d_qkv = inputs.start.d_qkv(tuple(grads[:number]), inputs.shape)
        return (out, d_qkv, *grads[number:])

    def run() -> Any:
        with only_backend(SDPA_BACKENDS.get(base)):
            if mode == "forward":
                with torch.no_grad():
                    return (core(*leaves),)
            return step(lambda: core(*leaves), leaves, inputs.grad_out)

    return Way(name, run, outputs if mode != "forward" else lambda returned: returned)


@contextmanager
def only_backend(backend: SDPBackend | None) -> Iterator[None]:
    if backend is None:
        yield
        return
    with sdpa_kernel(backend):
        yield


def step(core: Callable[[], Tensor], leaves: Sequence[Tensor], grad_out: Tensor) -> tuple[Any, ...]:
    out = core()
    return (out.detach(), *torch.autograd.grad(out, leaves, grad_out))


def _split(leaves: tuple[Tensor, ...], inputs: CoreInputs) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The activations, and the table if there is one."""
    return leaves[: len(inputs.activations)], leaves[-1] if inputs.shape.bias else None


def _rolled(x: Tensor, shift: Triple, sign: int = 1) -> Tensor:
    return x.roll([sign * s for s in shift], dims=(1, 2, 3)) if any(shift) else x


def _groups(shape: WindowShape) -> Triple:
    """Groups along each axis."""
    t, h, w = (g // s for g, s in zip(shape.grid, shape.window, strict=True))
    return t, h, w


def _table_index(inputs: CoreInputs) -> Tensor:
    """[N, N]: the row of the table for each pair of slots; what a Swin layer keeps as a buffer."""
    shape = inputs.shape
    rows = torch.arange(shape.table_shape[0], dtype=torch.float64)[:, None]
    return relative_position_bias(rows, shape.window, shape.window, "block")[0].long().to(inputs.qkv.device)


def _bias_and_mask(inputs: CoreInputs, table: Tensor, index: Tensor) -> Tensor:
    """The 4-D tensor [G or 1, heads, N, N] that is added to the scores."""
    bias = table[index].permute(2, 0, 1).to(inputs.qkv.dtype)[None]
    if not any(inputs.shape.shift):
        return bias.contiguous()
    return bias + _shift_mask(inputs, blocked=float("-inf"))[:, None]


def _shift_mask(inputs: CoreInputs, blocked: float = -100.0) -> Tensor:
    """[G, N, N]: `blocked` for pairs of slots that only the roll made neighbours, 0 for the others."""
    slots = _regions(inputs).to(inputs.qkv.dtype)
    difference = slots[:, None, :] - slots[:, :, None]
    return difference.masked_fill(difference != 0, blocked).masked_fill(difference == 0, 0.0)


def _regions(inputs: CoreInputs) -> Tensor:
    """[G, N]: equal numbers for slots of a group that were neighbours before the roll."""
    shape, device = inputs.shape, inputs.qkv.device
    region = torch.zeros(shape.grid, dtype=torch.int32, device=device)
    for axis, (size, window, shift) in enumerate(zip(shape.grid, shape.window, shape.shift, strict=True)):
        if shift:
            position = torch.arange(size, device=device)
            along = (position >= size - window).int() + (position >= size - shift).int()
            region = region * 3 + along.view([-1 if a == axis else 1 for a in range(3)])
    return partition(region[None, ..., None], shape.window, (0, 0, 0))[..., 0]
